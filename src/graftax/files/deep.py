"""Recursion that Python's stack does not bound: a model may be nested hundreds deep."""

from collections.abc import Generator
from types import GeneratorType
from typing import Any

Task = Generator[Any, Any, Any]
"""A function that is run: it yields what it waits for, another task or a value, and is sent the result."""


def run(task: Any) -> Any:
    """What a task returns. To explain how this works: it is `return (yield task)` with a stack of our own.

    A value that is no task is its own result, so leaves cost no generator.
    """
    if not isinstance(task, GeneratorType):
        return task
    stack, result = [task], None
    while stack:
        try:
            waited_for = stack[-1].send(result)
        except StopIteration as end:
            stack.pop()
            result = end.value
        else:
            if isinstance(waited_for, GeneratorType):
                stack.append(waited_for)
                result = None
            else:
                result = waited_for
    return result
