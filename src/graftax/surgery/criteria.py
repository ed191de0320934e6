"""Criteria: what may be asked of a node, and the nodes that meet all of it."""

import re
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..paths.parse import parse
from ..paths.search import Match, Test, search
from ..structure.labels import layer_name
from .hints import NoMatchError, no_match

Criterion = str | re.Pattern | type | tuple | list | types.UnionType | Callable[[Any], bool]


class Query(NamedTuple):
    """Criteria, sorted: each group of patterns is an alternative; all groups and all tests must hold."""

    groups: tuple[tuple[str | re.Pattern, ...], ...]
    tests: tuple[Test, ...]
    descriptions: tuple[str, ...]
    """What the tests ask for, in words."""


def read_criteria(criteria: Sequence[Any]) -> Query:
    """Sort criteria into patterns and tests. Raises `TypeError` for what is neither."""
    if not criteria:
        raise TypeError("At least one criterion is needed: a pattern, a type or a predicate.")
    groups, tests, descriptions = [], [], []
    for criterion in criteria:
        if (group := _as_patterns(criterion)) is not None:
            groups.append(group)
        elif (test := _as_type_test(criterion)) is not None:
            tests.append(test[0])
            descriptions.append(test[1])
        elif callable(criterion):
            tests.append(_noted(criterion))
            descriptions.append(f"something that {layer_name(criterion)} accepts")
        else:
            raise TypeError(
                "A criterion is a pattern (a string), a list of patterns, a compiled regular "
                f"expression, a type, a tuple of types or a predicate; got {criterion!r}."
            )
    return Query(tuple(groups), tuple(tests), tuple(descriptions))


def _as_patterns(criterion: Any) -> tuple[str | re.Pattern, ...] | None:
    if isinstance(criterion, str | re.Pattern):
        return (criterion,)
    if isinstance(criterion, list | tuple) and all(
        isinstance(each, str | re.Pattern) for each in criterion
    ):
        if not criterion:
            raise TypeError("A list of patterns needs at least one pattern; it is empty.")
        return tuple(criterion)
    return None


def _as_type_test(criterion: Any) -> tuple[Test, str] | None:
    if isinstance(criterion, list):
        criterion = tuple(criterion)
    if isinstance(criterion, types.UnionType):
        criterion = criterion.__args__
    several = criterion if isinstance(criterion, tuple) else (criterion,)
    if not all(isinstance(each, type) for each in several):
        return None
    return (lambda node: isinstance(node, several)), " or ".join(each.__name__ for each in several)


def _noted(predicate: Callable[..., Any]) -> Test:
    def test(node: Any) -> bool:
        try:
            return bool(predicate(node))
        except Exception as error:
            error.add_note(
                f"The predicate {layer_name(predicate)} was asked about a {type(node).__name__}. "
                "It is asked about every node: put a pattern or a type before it to ask fewer."
            )
            raise

    return test


def find(model: Any, query: Query) -> list[Match]:
    """The nodes that meet a query, in the order of a walk.

    Raises `NoMatchError` if one of several alternative patterns matches nothing.
    """
    if not query.groups:
        return search(model, None, query.tests)
    kept: dict[tuple, Match] | None = None
    for group in query.groups:
        found: dict[tuple, Match] = {}
        for pattern in group:
            matches = _find_one(model, pattern, query.tests)
            if not matches and len(group) > 1:
                raise NoMatchError(no_match(model, query._replace(groups=((pattern,),))))
            found.update((match.address, match) for match in matches)
        kept = found if kept is None else {a: m for a, m in kept.items() if a in found}
    return [match for _, match in sorted((kept or {}).items())]


def _find_one(model: Any, pattern: str | re.Pattern, tests: Sequence[Test]) -> list[Match]:
    if isinstance(pattern, str):
        return search(model, parse(pattern), tests)
    return [match for match in search(model, None, tests) if pattern.fullmatch(match.path)]
