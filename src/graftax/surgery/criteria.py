"""Criteria: what may be asked of a node, and the nodes that meet all of it."""

import abc
import functools
import re
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..paths.parse import parse
from ..paths.search import Match, Test, search
from ..structure.labels import layer_name
from .hints import NoMatchError, no_match

if TYPE_CHECKING:
    Criterion = (
        str
        | re.Pattern[str]
        | type
        | types.UnionType
        | Sequence[str | re.Pattern[str]]
        | Sequence[type]
        | Callable[[Any], Any]
    )
    """A pattern, a regular expression, a type, several of these, or a predicate on the node."""
else:
    Criterion = Any  # A criterion of another type gets an answer in words.


class Alternative(NamedTuple):
    """Patterns of which one must hold; of a list, `each` must match something."""

    patterns: tuple[str | re.Pattern[str], ...]
    each: bool


class Query(NamedTuple):
    """Criteria, sorted: all alternatives and all tests must hold."""

    alternatives: tuple[Alternative, ...]
    tests: tuple[Test, ...]
    descriptions: tuple[str, ...]
    """What the tests ask for, in words."""


class Question(NamedTuple):
    """A test, and what it asks for in words."""

    test: Test
    description: str


def read_criteria(criteria: Sequence[Criterion]) -> Query:
    """Sort criteria into patterns and tests. Raises `TypeError` for what is neither."""
    if not criteria:
        raise TypeError("At least one criterion is needed: a pattern, a type or a predicate.")
    read = [_read(criterion) for criterion in criteria]
    questions = [each for each in read if isinstance(each, Question)]
    return Query(
        tuple(each for each in read if isinstance(each, Alternative)),
        tuple(each.test for each in questions),
        tuple(each.description for each in questions),
    )


@functools.singledispatch
def _read(criterion: Any) -> Alternative | Question:
    if isinstance(criterion, types.UnionType):
        return _of_types(criterion.__args__)
    if not callable(criterion):
        raise TypeError(
            "A criterion is a pattern (a string), a list of patterns, a compiled regular "
            f"expression, a type, a tuple of types or a predicate; got {criterion!r}."
        )
    return Question(
        lambda node: bool(criterion(node)), f"something that {layer_name(criterion)} accepts"
    )


@_read.register(str)
@_read.register(re.Pattern)
def _(criterion: Any) -> Alternative:
    return Alternative((criterion,), each=False)


@_read.register
def _(criterion: type) -> Question:
    return _of_types((criterion,))


@_read.register(list)
@_read.register(tuple)
def _(criterion: Any) -> Alternative | Question:
    if not criterion:
        raise TypeError("A list of patterns needs at least one pattern; it is empty.")
    if all(isinstance(each, str | re.Pattern) for each in criterion):
        return Alternative(tuple(criterion), each=True)
    if all(isinstance(each, type) for each in criterion):
        return _of_types(tuple(criterion))
    return _read.dispatch(object)(criterion)


def _of_types(several: tuple[type, ...]) -> Question:
    return Question(_instance_test(several), " or ".join(each.__name__ for each in several))


_BY_CLASS = (type.__instancecheck__, abc.ABCMeta.__instancecheck__)


def _instance_test(classes: tuple[type, ...]) -> Test:
    # Some types look at the instance itself, as those of jaxtyping do. The others need be asked once a
    # class, which matters: to ask an abstract base class takes longer than all else done for a node.
    if any(type(each).__instancecheck__ not in _BY_CLASS for each in classes):
        return lambda node: isinstance(node, classes)
    holds = functools.cache(lambda cls: issubclass(cls, classes))
    return lambda node: holds(type(node))


def whole(model: Any) -> tuple[Match, ...]:
    """The model as the one node to search in."""
    return (Match((), (), model),)


def find(outer: Sequence[Match], query: Query) -> list[Match]:
    """The nodes that meet a query in any of the outer nodes, in the order of a walk.

    Raises `NoMatchError` if one of a list of patterns matches nothing in all of them.
    """
    if not query.alternatives:
        return _find_one(outer, None, query.tests)
    kept: dict[tuple[Any, ...], Match] | None = None
    for alternative in query.alternatives:
        found: dict[tuple[Any, ...], Match] = {}
        for pattern in alternative.patterns:
            matches = _find_one(outer, pattern, query.tests)
            if not matches and alternative.each and outer:
                only = query._replace(alternatives=(Alternative((pattern,), each=False),))
                raise NoMatchError(no_match(outer, only))
            found.update((match.address, match) for match in matches)
        kept = found if kept is None else {a: m for a, m in kept.items() if a in found}
    return [match for _, match in sorted((kept or {}).items())]


def _find_one(
    outer: Sequence[Match], pattern: str | re.Pattern[str] | None, tests: Sequence[Test]
) -> list[Match]:
    found = [_search(each, pattern, tests) for each in outer]
    if len(found) == 1:
        return found[0]
    # Where one outer node stands inside another, both find the same.
    once = {match.address: match for matches in found for match in matches}
    return [match for _, match in sorted(once.items())]


def _search(
    outer: Match, pattern: str | re.Pattern[str] | None, tests: Sequence[Test]
) -> list[Match]:
    if isinstance(pattern, re.Pattern):
        found = search(outer.node, None, tests)
        found = [match for match in found if pattern.fullmatch(match.path)]
    else:
        found = search(outer.node, None if pattern is None else parse(pattern), tests)
    if not outer.address:
        return found
    return [Match(outer.address + m.address, outer.keys + m.keys, m.node) for m in found]
