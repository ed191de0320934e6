"""The nodes of a tree that meet criteria."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from .match import Matcher
from .parse import Pattern, parse
from .path import render
from .tree import INNER, kind_of

Test = Callable[[Any], bool]

_EVERYTHING = parse("**")


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
    accepts, next_states = matcher.accepts, matcher.next_states
    passes = tests[0] if len(tests) == 1 else lambda node: all(test(node) for test in tests)
    found: list[Match] = []
    # (address, keys, node, state, whether a wrapper around the node was taken)
    pending: list[tuple[Any, ...]] = [((), (), model, matcher.start, False)]
    while pending:
        address, keys, node, state, taken = pending.pop()
        if not taken and accepts(state):
            try:
                taken = bool(passes(node))
            except Exception as error:
                error.add_note(_asked_about(node, keys))
                raise
            if taken:
                found.append(Match(address, keys, node))
        kind = kind_of(node)
        if kind is None:
            continue
        level = kind.level(node)
        names, children, _ = level
        for i, after in reversed(next_states(state, level)):
            if (child := children[i]) is not None:
                key = names[i]
                inner = taken and key is INNER
                pending.append(((*address, i), (*keys, key), child, after, inner))
    return found


def _asked_about(node: Any, keys: tuple[Hashable, ...]) -> str:
    name, path = type(node).__name__, render(keys)
    place = f"the {name} at {path!r}" if path else f"a {name}, the root"
    return (
        f"A criterion was asked about {place}. It is asked about every node: put a pattern or a type "
        "before it to ask fewer."
    )


def search_all(model: Any, test: Test) -> list[Match]:
    """The nodes that pass one test, wherever they stand; the outermost at each path."""
    return search(model, None, (test,))
