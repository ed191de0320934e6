"""How `op` puts outputs together."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from .calling import again_key, call_child
from .signature import is_binary


def check_op(owner: type, op: Any, init: Any = None) -> None:
    """Raise `TypeError` for an `op` that is not callable, `ValueError` for an `init` it ignores."""
    if not callable(op):
        raise TypeError(
            f"op of {owner.__name__} must be callable; got {op!r} of type {type(op).__name__}."
        )
    if init is not None and not is_binary(op):
        raise ValueError(
            f"init of {owner.__name__} is the start of a fold, and op={op!r} is not folded: it does "
            "not take exactly two required arguments."
        )


def combine(
    parent: Any,
    op: Callable,
    outputs: tuple,
    state: Any,
    key: Any,
    context: Mapping[str, Any],
    init: Any = None,
) -> tuple[Any, Any]:
    """`op(outputs)` once; or, if `op` takes two arguments, its left fold over the outputs."""
    call = functools.partial(call_child, parent, "op", op)
    if not is_binary(op):
        return call((outputs,), state, key, context)
    if not outputs and init is None:
        raise ValueError(
            f"{type(parent).__name__} has {len(parent)} branch and was given a tuple of 0 inputs, "
            "which folds to nothing without init."
        )
    first, *rest = outputs if init is None else (init, *outputs)
    for i, output in enumerate(rest):
        first, state = call((first, output), state, again_key(key, "op", i), context)
    return first, state
