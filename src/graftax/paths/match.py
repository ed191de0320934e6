"""A pattern run down a tree: which children can still lead to a match, and which nodes are one.

The steps of a pattern are the states of a small automaton, held as the bits of an integer. A subtree
that no state reaches is never entered, so a full path costs its depth, not the size of the model.
"""

from typing import Any

from .parse import Pattern
from .steps import DEEP, Deep, OneStep
from .tree import INNER, Level

Reached = list[tuple[int, int]]


class Matcher:
    """One pattern, ready to be run. Its states are opaque integers; 0 is the dead state."""

    def __init__(self, pattern: Pattern):
        self.pattern: Pattern = pattern
        self._steps = pattern.steps
        self._final = 1 << len(pattern.steps)
        # Where `**` stands, and where the steps stand that ask something of a child.
        self._deep = sum(1 << i for i, step in enumerate(self._steps) if step is DEEP)
        self._asking = (self._final - 1) ^ self._deep
        self._memo: dict[tuple[Any, ...], Reached] = {}
        self.start: int = self._closed(1)

    def accepts(self, state: int) -> bool:
        """Whether the node reached in this state is a match."""
        return bool(state & self._final)

    def next_states(self, state: int, level: Level) -> Reached:
        """(number of the child, its state), for the children that can lead to a match."""
        # The nodes of a model have few sets of keys between them: fields, labels, positions. The keys
        # of a dict come as a list; those may be equal and yet differ, as 1 and True do.
        if isinstance(level.keys, list):
            return self._reached(state, level)
        memo = (state, level.keys, level.positions)
        found = self._memo.get(memo)
        if found is None:
            found = self._memo[memo] = self._reached(state, level)
        return found

    def _reached(self, state: int, level: Level) -> Reached:
        keys = level.keys
        inner = [(0, state)] if keys and keys[0] is INNER else []
        single = self._single_step(state)
        if single is not None:
            after = self._closed(state << 1)
            return inner + [(i, after) for i in single.candidates(level) if keys[i] is not INNER]
        outer = [i for i, key in enumerate(keys) if key is not INNER]
        if not state & self._asking:
            after = self._closed(state & ~self._final)
            return inner + [(i, after) for i in outer if after]
        states = [(i, self._step(state, level, i)) for i in outer]
        return inner + [(i, after) for i, after in states if after]

    def _single_step(self, state: int) -> OneStep | None:
        if state & (state - 1) or not 0 < state < self._final:
            return None
        step = self._steps[state.bit_length() - 1]
        return None if isinstance(step, Deep) else step

    def _closed(self, state: int) -> int:
        """`**` may match nothing: whoever stands before it also stands behind it."""
        while (behind := (state & self._deep) << 1) & ~state:
            state |= behind
        return state

    def _step(self, state: int, level: Level, i: int) -> int:
        after = state & self._deep
        asking = state & self._asking
        while asking:
            bit = asking & -asking
            asking ^= bit
            step = self._steps[bit.bit_length() - 1]
            if not isinstance(step, Deep) and step.matches(level, i):
                after |= bit << 1
        return self._closed(after)
