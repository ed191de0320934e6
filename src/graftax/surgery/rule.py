"""One rule of a dispatch: what it is for, and how specific that is."""

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from ..paths.match import Matcher
from ..paths.parse import Pattern, parse
from ..paths.steps import Glob, Key, Position
from ..structure.labels import layer_name


class Rule(NamedTuple):
    """One rule of a dispatch. `rank` orders rules by how specific they are; higher wins."""

    fn: Callable
    criterion: Any
    rank: tuple[int, int, int]
    matcher: Matcher | None

    def __str__(self) -> str:
        name = getattr(self.criterion, "__name__", None)
        return name or (repr(self.criterion) if self.criterion is not None else "default")


_PATH, _PATTERN, _LABEL, _TYPE = 4, 3, 2, 1


def _is_literal(step: Any) -> bool:
    exact = isinstance(step, Position) and isinstance(step.place, int)
    return exact or isinstance(step, Key) or (isinstance(step, Glob) and step.literal)


def _pattern_rank(pattern: Pattern) -> tuple[int, int]:
    literal = sum(_is_literal(step) for step in pattern.steps)
    if literal == len(pattern.steps):
        return _PATH, literal
    if not pattern.pinned and literal == len(pattern.steps) - 1:
        return _LABEL, 0
    return _PATTERN, literal


@functools.singledispatch
def read_rules(criterion: Any, fn: Callable, order: int) -> list[Rule]:
    """The rules that a criterion spells, the `order`-th and following of their dispatch."""
    if isinstance(criterion, types.UnionType):
        return read_rules(criterion.__args__, fn, order)
    raise TypeError(
        "A rule is registered for a pattern, a compiled regular expression, a type or a tuple of "
        f"types; not for {criterion!r}."
    )


@read_rules.register
def _(criterion: str, fn: Callable, order: int) -> list[Rule]:
    pattern = parse(criterion)
    return [Rule(fn, criterion, (*_pattern_rank(pattern), order), Matcher(pattern))]


@read_rules.register(re.Pattern)
def _(criterion: Any, fn: Callable, order: int) -> list[Rule]:
    return [Rule(fn, criterion, (_PATTERN, 0, order), None)]


@read_rules.register
def _(criterion: type, fn: Callable, order: int) -> list[Rule]:
    return [Rule(fn, criterion, (_TYPE, 0, order), None)]


@read_rules.register
def _(criterion: tuple, fn: Callable, order: int) -> list[Rule]:
    if not criterion or not all(isinstance(each, type) for each in criterion):
        return read_rules.dispatch(object)(criterion, fn, order)
    return [Rule(fn, each, (_TYPE, 0, order), None) for each in criterion]


def annotated_type(fn: Callable) -> Any:
    """The type that the first parameter is annotated with. Raises `TypeError` if there is none."""
    hints = typing.get_type_hints(fn)
    parameters = list(inspect.signature(fn).parameters)
    if not parameters or parameters[0] not in hints:
        raise TypeError(
            f"{layer_name(fn)} is registered without a criterion: annotate its first parameter with a "
            "type, or name a pattern or type in register(...)."
        )
    return hints[parameters[0]]
