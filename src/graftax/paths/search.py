"""The nodes of a tree that meet criteria."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from .match import Matcher
from .parse import Pattern
from .path import render
from .tree import INNER, kind_of

Test = Callable[[Any], bool]


class Match(NamedTuple):
    """One node. `address` numbers the way to it, child by child: its order is the order of a walk."""

    address: tuple[int, ...]
    keys: tuple[Hashable, ...]
    node: Any

    @property
    def path(self) -> str:
        """The path, without what wrappers add."""
        return render(self.keys)


def search(model: Any, pattern: Pattern | None, tests: Sequence[Test] = ()) -> list[Match]:
    """The nodes at the paths of `pattern` (all paths, if None) that pass all `tests`.

    At most one node a path: the outermost that passes, so that without tests a wrapper stands for
    what it holds. O(nodes that the pattern can reach).
    """
    found: list[Match] = []
    if pattern is None:
        _search_all(model, (), (), False, tests, found)
    else:
        matcher = Matcher(pattern)
        _search_pattern(model, (), (), False, matcher, matcher.start, tests, found)
    return found


def _search_all(
    node: Any, address: tuple, keys: tuple, taken: bool, tests: Sequence[Test], found: list[Match]
) -> None:
    if not taken and all(test(node) for test in tests):
        found.append(Match(address, keys, node))
        taken = True
    kind = kind_of(type(node))
    if kind is None:
        return
    level = kind.level(node)
    for i, (key, child) in enumerate(zip(level.keys, level.children, strict=True)):
        if child is not None:
            same_path = taken and key is INNER
            _search_all(child, (*address, i), (*keys, key), same_path, tests, found)


def _search_pattern(
    node: Any,
    address: tuple,
    keys: tuple,
    taken: bool,
    matcher: Matcher,
    state: int,
    tests: Sequence[Test],
    found: list[Match],
) -> None:
    if matcher.accepts(state) and not taken and all(test(node) for test in tests):
        found.append(Match(address, keys, node))
        taken = True
    kind = kind_of(type(node))
    if kind is None:
        return
    level = kind.level(node)
    for i, after in matcher.next_states(state, level):
        child, key = level.children[i], level.keys[i]
        if child is not None:
            same_path = taken and key is INNER
            _search_pattern(
                child, (*address, i), (*keys, key), same_path, matcher, after, tests, found
            )
