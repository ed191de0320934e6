"""The nodes of a tree that meet criteria."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from .match import Matcher
from .parse import Pattern, parse
from .path import render
from .tree import INNER, kind_of

Test = Callable[[Any], bool]

_EVERYTHING = parse("**")
_Trail = Any
"""The way to a node, last step first: `(trail, number, key)`; None for the root."""


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
    what it holds. O(nodes that the pattern can reach), whatever the depth.
    """
    matcher = Matcher(_EVERYTHING if pattern is None else pattern)
    found: list[Match] = []
    # (trail, node, state, whether a wrapper around the node was taken)
    pending: list[tuple[_Trail, Any, int, bool]] = [(None, model, matcher.start, False)]
    while pending:
        trail, node, state, taken = pending.pop()
        if not taken and matcher.accepts(state) and _passes(node, tests):
            found.append(Match(*_unrolled(trail), node))
            taken = True
        kind = kind_of(type(node))
        if kind is None:
            continue
        level = kind.level(node)
        keys, children = level.keys, level.children
        for i, after in reversed(matcher.next_states(state, level)):
            if (child := children[i]) is not None:
                key = keys[i]
                pending.append(((trail, i, key), child, after, taken and key is INNER))
    return found


def _passes(node: Any, tests: Sequence[Test]) -> bool:
    for test in tests:  # noqa: SIM110 - a generator in all() costs more than most tests
        if not test(node):
            return False
    return True


def _unrolled(trail: _Trail) -> tuple[tuple[int, ...], tuple[Hashable, ...]]:
    address, keys = [], []
    while trail is not None:
        trail, i, key = trail
        address.append(i)
        keys.append(key)
    return tuple(reversed(address)), tuple(reversed(keys))
