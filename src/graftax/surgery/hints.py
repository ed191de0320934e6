"""What an empty or miscounted selection says: what was asked, what is there, the nearest answer."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax

from ..paths.errors import did_you_mean, listed, nearest
from ..paths.functor import children
from ..paths.match import Matcher
from ..paths.parse import Pattern, parse
from ..paths.path import join, render, walk
from ..paths.search import Match, search
from ..paths.steps import DEEP, Position
from ..paths.tree import level_of


class MatchError(ValueError):
    """A selection of another size than was asked for."""


class NoMatchError(MatchError, LookupError):
    """Criteria that nothing in the model meets, where something must."""


def described(node: Any) -> str:
    """A node in a few words: the shape of an array, the type of a layer with its first fields."""
    return eqx.tree_pformat(node, width=10_000, truncate_leaf=_is_part(node))[:100]


def _is_part(node: Any):
    return lambda other: other is not node and bool(level_of(other).children)


def _kind(node: Any) -> str:
    return "Array" if isinstance(node, jax.Array) else type(node).__name__


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'AEIOU' else 'a'} {word}"


def no_match(outer: Sequence[Match], query: Any) -> str:
    """Why nothing in any of the outer nodes meets the query."""
    reason = next(filter(None, _reasons(outer, query)))
    if not outer[0].path:
        return reason
    return f"Inside {listed([repr(match.path) for match in outer], 3)}: {reason}"


def _reasons(outer: Sequence[Match], query: Any) -> Iterator[str | None]:
    for alternative in query.alternatives:
        for pattern in alternative.patterns:
            if isinstance(pattern, re.Pattern):
                yield _no_regex_match(outer, pattern)
            else:
                yield _no_pattern_match(outer, parse(pattern))
    yield _no_node_passes(outer, query)


def _no_regex_match(outer: Sequence[Match], pattern: re.Pattern[str]) -> str | None:
    paths = [path for each in outer for path, _ in walk(each.node)]
    if any(pattern.fullmatch(path) for path in paths):
        return None
    if fill := _only_none(outer, parse("**"), pattern):
        return f"No path matches the regular expression {pattern.pattern!r}.{fill}"
    partly = [path for path in paths if pattern.search(path)]
    hint = (
        f" It is found inside {listed(partly, 3)}, but must match a whole path." if partly else ""
    )
    return f"No path matches the regular expression {pattern.pattern!r}.{hint}"


def _no_pattern_match(outer: Sequence[Match], pattern: Pattern) -> str | None:
    if any(search(each.node, pattern) for each in outer):
        return None
    if fill := _only_none(outer, pattern):
        return f"Nothing matches {pattern.text!r}.{fill}"
    model = outer[0].node
    if not pattern.pinned:
        return _no_such_label(model, pattern)
    deeper = Pattern(pattern.text, (DEEP, *pattern.steps), True)
    stands = [match.path for each in outer for match in search(each.node, deeper)]
    for length in range(len(pattern.steps) - 1, -1, -1):
        reached = search(model, Pattern(pattern.text, pattern.steps[:length], True))
        if reached:
            return _nothing_below(pattern, length, reached, stands)
    return f"Nothing matches {pattern.text!r}."


def _only_none(
    outer: Sequence[Match], pattern: Pattern, whole_path: re.Pattern[str] | None = None
) -> str | None:
    """How to fill the fields that a pattern leads to, and that hold None: None is no node."""
    fields = [
        ((*each.keys, *keys), name)
        for each in outer
        for keys, name in _none_fields(each.node, pattern)
        if whole_path is None or whole_path.fullmatch(render((*keys, name)))
    ]
    if not fields:
        return None
    places = listed((repr(render((*keys, name))) for keys, name in fields), 3)
    keys, name = fields[0]
    return (
        f" None stands at {places}, and None is no node: "
        f"select(model, {render(keys)!r}).update({name}=...) gives it a value."
    )


def _none_fields(model: Any, pattern: Pattern) -> Iterator[tuple[tuple[Any, ...], str]]:
    """(keys of a node, name of a field of it) for the fields that hold None."""
    # The walk of `search`, but that it looks at None too.
    matcher = Matcher(pattern)
    pending: list[tuple[tuple[Any, ...], Any, int]] = [((), model, matcher.start)]
    while pending:
        keys, node, state = pending.pop()
        level = level_of(node)
        for i, after in reversed(matcher.next_states(state, level)):
            key, child = level.keys[i], level.children[i]
            if child is not None:
                pending.append(((*keys, key), child, after))
            elif matcher.accepts(after) and isinstance(key, str):
                yield keys, key


def _no_such_label(model: Any, pattern: Pattern) -> str:
    by_label: dict[str, list[str]] = {}
    for path, _ in walk(model):
        by_label.setdefault(path.rpartition(".")[2], []).append(path)
    hint = f" Those of the {type(model).__name__} are: {listed(children(model))}."
    if near := nearest(pattern.text, by_label):
        hint = f" Did you mean {near[0]!r} ({listed(by_label[near[0]], 3)})?"
    return f"No label matches {pattern.text!r}.{hint}"


def _nothing_below(pattern: Pattern, length: int, reached: list[Any], stands: list[str]) -> str:
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
    if stands:
        hint = _unpinned(pattern.text, stands)
    place = repr(match.path) if match.path else "the root"
    return (
        f"Nothing matches {pattern.text!r}: {place} is {_article(_kind(match.node))}, and none of its "
        f"children matches {asked!r}. They are: {listed(names)}.{hint}"
    )


def _unpinned(text: str, stands: list[str]) -> str:
    # One component is pinned by its dot alone; several always are.
    rest = text.removeprefix(".")
    name = f"**.{rest}" if parse(rest).pinned else rest
    return f" A path starts at the root; {name!r} matches wherever it stands ({listed(stands, 3)})."


def _step_text(step: Any) -> str:
    if isinstance(step, Position):
        place = step.place
        if not isinstance(place, slice):
            return f"[{place}]"
        bounds = ("" if bound is None else str(bound) for bound in (place.start, place.stop))
        return f"[{':'.join(bounds)}{'' if place.step is None else f':{place.step}'}]"
    return getattr(step, "text", "**")


def _no_node_passes(outer: Sequence[Match], query: Any) -> str:
    wanted = " and ".join(query.descriptions)
    if not query.alternatives:
        kinds = Counter(_kind(node) for each in outer for _, node in walk(each.node))
        return (
            f"No node is {wanted}. There are: {listed(f'{n} {kind}' for kind, n in kinds.items())}."
            + did_you_mean(wanted, kinds)
        )
    patterns = [p for alternative in query.alternatives for p in alternative.patterns]
    asked = " and ".join(repr(getattr(p, "pattern", p)) for p in patterns)
    candidates = [
        match
        for each in outer
        for pattern in patterns
        if isinstance(pattern, str)
        for match in search(each.node, parse(pattern))
    ]
    there = Counter(_kind(match.node) for match in candidates)
    return (
        f"{len(candidates)} nodes match {asked}, and none is {wanted or 'matched by all of it'}. "
        f"They are: {listed(f'{n} {kind}' for kind, n in there.items())}."
    )
