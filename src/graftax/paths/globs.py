"""Whether a glob matches a text: `*`, `?` and `{a,b}`, in time that no glob can blow up.

A regular expression would try the ways in which its stars can share out a text one after another:
there are exponentially many. Here they are all followed at once. A way is known by the place in the
glob that it has come to, so the ways are the bits of an integer, and one character of the text moves
all of them on together. Source: the bitap algorithm (Baeza-Yates and Gonnet, 1992).
"""

import functools
from collections.abc import Callable


class Automaton:
    """A glob, ready to be held against texts. Its syntax has been checked by the parser."""

    def __init__(self, glob: str, wildcards: bool = True):
        self._end = len(glob)
        # Where a character is read: one of its own, or any; and where any number of them are.
        self._reads: dict[str, int] = {}
        self._any = self._stars = 0
        # What takes no character: from these places to the next one, or to those listed.
        self._passes = 0
        self._forks: dict[int, list[int]] = {}
        # The stars that are in no braces.
        self._bars = 0
        self._compile(glob, wildcards)
        self._fork_bits = sum(1 << place for place in self._forks)
        self._start = self._spread(1)
        # A model has few keys that differ, and many places where they stand.
        self.matches: Callable[[str], bool] = functools.lru_cache(maxsize=4096)(self._matches)

    def _compile(self, glob: str, wildcards: bool) -> None:
        opened: list[tuple[int, list[int]]] = []
        for place, sign in enumerate(glob):
            bit = 1 << place
            if sign == "{":
                opened.append((place, []))
                self._forks[place] = [place + 1]
            elif sign == ",":
                start, commas = opened[-1]
                commas.append(place)
                self._forks[start].append(place + 1)
            elif sign == "}":
                self._passes |= bit
                self._forks.update((comma, [place]) for comma in opened.pop()[1])
            elif sign == "*" and wildcards:
                self._stars |= bit
                self._passes |= bit
                self._bars |= 0 if opened else bit
            elif sign == "?" and wildcards:
                self._any |= bit
            elif sign not in "*?":
                self._reads[sign] = self._reads.get(sign, 0) | bit

    def _matches(self, text: str) -> bool:
        """Whether the whole text is one that the glob stands for. O(len(text) * len(glob))."""
        ways = self._start
        for char in text:
            on = ways & (self._reads.get(char, 0) | self._any)
            ways = self._spread(on << 1 | ways & self._stars)
            if not ways:
                return False
        return bool(ways >> self._end & 1)

    def _spread(self, ways: int) -> int:
        """The ways, and those that go on from them without a character."""
        forked = 0
        while True:
            while (passed := (ways & self._passes) << 1) & ~ways:
                ways |= passed
            forks = ways & self._fork_bits & ~forked
            if not forks:
                break
            forked |= forks
            while forks:
                place = forks.bit_length() - 1
                forks ^= 1 << place
                for beyond in self._forks[place]:
                    ways |= 1 << beyond
        # Whoever is at a star outside of all braces can do what those before it can: they would have
        # to come by it, and it takes whatever they take on the way.
        bar = max((ways & self._bars).bit_length() - 1, 0)
        return ways >> bar << bar
