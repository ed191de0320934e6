"""A pattern run down a tree: which children can still lead to a match, and which nodes are one.

The steps of a pattern are the states of a small automaton, held as the bits of an integer. A subtree
that no state reaches is never entered, so a full path costs its depth, not the size of the model.
"""

from collections.abc import Iterator

from .parse import Pattern
from .steps import Deep, Glob, OneStep, Position
from .tree import INNER, Level


class Matcher:
    """One pattern, ready to be run. Its states are opaque integers; 0 is the dead state."""

    def __init__(self, pattern: Pattern):
        self.pattern = pattern
        self._steps = pattern.steps
        self._final = 1 << len(pattern.steps)
        self._by_text = not any(
            isinstance(step, Position) or (isinstance(step, Glob) and step.positional)
            for step in self._steps
        )
        self._memo: dict[tuple[int, object], int] = {}
        self.start = self._closed(1)

    def accepts(self, state: int) -> bool:
        """Whether the node reached in this state is a match."""
        return bool(state & self._final)

    def next_states(self, state: int, level: Level) -> Iterator[tuple[int, int]]:
        """(number of the child, its state), for the children that can lead to a match."""
        if level.keys and level.keys[0] is INNER:
            yield 0, state
        single = self._single_step(state)
        if single is not None:
            for i in single.candidates(level):
                if level.keys[i] is not INNER:
                    yield i, self._closed(state << 1)
            return
        for i, key in enumerate(level.keys):
            if key is not INNER and (after := self._advance(state, level, i)):
                yield i, after

    def _single_step(self, state: int) -> OneStep | None:
        if state & (state - 1) or not 0 < state < self._final:
            return None
        step = self._steps[state.bit_length() - 1]
        return None if isinstance(step, Deep) else step

    def _closed(self, state: int) -> int:
        """`**` may match nothing: whoever stands before it also stands behind it."""
        for i, step in enumerate(self._steps):
            if isinstance(step, Deep) and state & (1 << i):
                state |= 1 << (i + 1)
        return state

    def _advance(self, state: int, level: Level, i: int) -> int:
        # Where only labels matter, the answer depends on the label alone, and labels repeat.
        if i < level.positions and not self._by_text:
            return self._step(state, level, i)
        memo = (state, level.keys[i])
        after = self._memo.get(memo)
        if after is None:
            after = self._memo[memo] = self._step(state, level, i)
        return after

    def _step(self, state: int, level: Level, i: int) -> int:
        after = 0
        for j, step in enumerate(self._steps):
            if state & (1 << j):
                if isinstance(step, Deep):
                    after |= 1 << j
                elif step.matches(level, i):
                    after |= 1 << (j + 1)
        return self._closed(after)
