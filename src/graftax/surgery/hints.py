"""What an empty or miscounted selection says: what was asked, what is there, the nearest answer."""

import re
from collections import Counter
from typing import Any

import equinox as eqx

from ..paths.errors import did_you_mean, listed, nearest
from ..paths.parse import Pattern, parse
from ..paths.path import join, walk
from ..paths.search import search
from ..paths.steps import Key, Position
from ..paths.tree import children, level_of


class MatchError(ValueError):
    """A selection of another size than was asked for."""


class NoMatchError(MatchError, LookupError):
    """Criteria that nothing in the model meets, where something must."""


def described(node: Any) -> str:
    """A node in a few words: the shape of an array, the type of a layer with its first fields."""
    return eqx.tree_pformat(node, width=10_000, truncate_leaf=_is_part(node))[:100]


def _is_part(node: Any):
    return lambda other: other is not node and bool(level_of(other).children)


def no_match(model: Any, query: Any) -> str:
    """Why nothing meets the query."""
    for group in query.groups:
        for pattern in group:
            if isinstance(pattern, re.Pattern):
                reason = _no_regex_match(model, pattern)
            else:
                reason = _no_pattern_match(model, parse(pattern))
            if reason:
                return reason
    return _no_node_passes(model, query)


def _no_regex_match(model: Any, pattern: re.Pattern) -> str | None:
    paths = [path for path, _ in walk(model)]
    if any(pattern.fullmatch(path) for path in paths):
        return None
    partly = [path for path in paths if pattern.search(path)]
    hint = (
        f" It is found inside {listed(partly, 3)}, but must match a whole path." if partly else ""
    )
    return f"No path matches the regular expression {pattern.pattern!r}.{hint}"


def _no_pattern_match(model: Any, pattern: Pattern) -> str | None:
    if search(model, pattern):
        return None
    if not pattern.pinned:
        return _no_such_label(model, pattern)
    for length in range(len(pattern.steps) - 1, -1, -1):
        reached = search(model, Pattern(pattern.text, pattern.steps[:length], True))
        if reached:
            return _nothing_below(pattern, length, reached)
    return f"Nothing matches {pattern.text!r}."


def _no_such_label(model: Any, pattern: Pattern) -> str:
    by_label: dict[str, list[str]] = {}
    for path, _ in walk(model):
        by_label.setdefault(path.rpartition(".")[2], []).append(path)
    near = nearest(pattern.text, by_label)
    hint = ""
    if near:
        hint = f" Did you mean {near[0]!r} ({listed(by_label[near[0]], 3)})?"
    return f"No label matches {pattern.text!r}.{hint}"


def _nothing_below(pattern: Pattern, length: int, reached: list) -> str:
    step = pattern.steps[length]
    asked = _step_text(step)
    names, hint = [], ""
    for match in reached:
        names = [str(key) for key in children(match.node)]
        if near := nearest(asked, names):
            hint = f" Did you mean {join(match.path, near[0])!r}?"
            break
    else:
        match = reached[0]
        names = [str(key) for key in children(match.node)]
    place = repr(match.path) if match.path else "the root"
    return (
        f"Nothing matches {pattern.text!r}: {place} is a {type(match.node).__name__}, and none of its "
        f"children matches {asked!r}. They are: {listed(names)}.{hint}"
    )


def _step_text(step: Any) -> str:
    if isinstance(step, Position):
        place = step.place
        if not isinstance(place, slice):
            return f"[{place}]"
        bounds = ("" if bound is None else str(bound) for bound in (place.start, place.stop))
        return f"[{':'.join(bounds)}{'' if place.step is None else f':{place.step}'}]"
    return f"[{step.key!r}]" if isinstance(step, Key) else getattr(step, "text", "**")


def _no_node_passes(model: Any, query: Any) -> str:
    wanted = " and ".join(query.descriptions)
    if not query.groups:
        kinds = Counter(type(node).__name__ for _, node in walk(model))
        return (
            f"No node is {wanted}. There are: {listed(f'{n} {kind}' for kind, n in kinds.items())}."
            + did_you_mean(wanted, kinds)
        )
    asked = " and ".join(repr(getattr(p, "pattern", p)) for group in query.groups for p in group)
    candidates = [
        m for g in query.groups for p in g if isinstance(p, str) for m in search(model, parse(p))
    ]
    there = Counter(type(match.node).__name__ for match in candidates)
    return (
        f"{len(candidates)} nodes match {asked}, and none is {wanted or 'matched by all of it'}. "
        f"They are: {listed(f'{n} {kind}' for kind, n in there.items())}."
    )
