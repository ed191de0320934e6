"""The steps of a pattern: what one component asks of one child."""

import functools
from collections.abc import Hashable
from typing import Any, NamedTuple

from .globs import Automaton
from .path import bracketed, is_integer, spelled
from .tree import Level


class Deep:
    """`**`: any number of components, none included."""

    def __repr__(self) -> str:
        return "DEEP"


DEEP = Deep()


class Glob(NamedTuple):
    """A label, with or without `*`, `?` and `{a,b}`. Wildcards stand for the text of a key."""

    text: str
    labels: Automaton | None
    """What it is held against texts with; None if it spells out one label."""
    places: Automaton | None
    """Which positions it also means, if any: the digits in braces, as in `{0,2}`."""

    @classmethod
    def parse(cls, text: str) -> "Glob":
        if not any(char in "*?{" for char in text):
            return cls(text, None, None)
        has_places = "{" in text and any(char.isdecimal() for char in text)
        places = Automaton(text, wildcards=False) if has_places else None
        return cls(text, Automaton(text), places)

    @property
    def literal(self) -> bool:
        """Whether it spells out one label."""
        return self.labels is None

    def matches(self, level: Level, i: int) -> bool:
        text = spelled(level.keys[i])
        if self.labels is None:
            return text == self.text
        if self.labels.matches(text):
            return True
        return self.places is not None and i < level.positions and self.places.matches(str(i))

    def candidates(self, level: Level) -> list[int]:
        """The children it matches, looked up rather than searched for where it is a plain label."""
        return _lookup(self, self.text, level) if self.literal else _scan(self, level)


class Position(NamedTuple):
    """`[2]`, `[-1]`, `[::2]`: places in a sequence. A number is also a key of a dict."""

    place: int | slice

    def matches(self, level: Level, i: int) -> bool:
        if i < level.positions:
            return i in _positions(self.place, level.positions)
        key: Any = level.keys[i]
        if isinstance(self.place, slice):
            return False
        if is_integer(key):
            return _is_number(key, self.place)
        # Digits as a string are meant where no number of that value stands beside them.
        return (
            isinstance(key, str)
            and str.__str__(key) == spelled(self.place)
            and not any(_is_number(other, self.place) for other in level.keys)
        )

    def candidates(self, level: Level) -> list[int]:
        if level.positions == 0:
            return _scan(self, level)
        return list(_positions(self.place, level.positions))


def _is_number(key: Any, number: int) -> bool:
    return is_integer(key) and int(key) == number


class Key(NamedTuple):
    """`["my key"]`: exactly this key or label, by what it looks like between brackets."""

    text: str
    label: str | None
    """The key itself, if it is a string."""

    @classmethod
    def parse(cls, key: Hashable) -> "Key":
        return cls(bracketed(key), spelled(key) if isinstance(key, str) else None)

    def matches(self, level: Level, i: int) -> bool:
        key = level.keys[i]
        if isinstance(key, str):
            return str.__str__(key) == self.label
        return self.label is None and bracketed(key) == self.text

    def candidates(self, level: Level) -> list[int]:
        return _scan(self, level) if self.label is None else _lookup(self, self.label, level)


OneStep = Glob | Position | Key
Step = Deep | OneStep


def _positions(index: int | slice, count: int) -> range:
    if isinstance(index, slice):
        return _slice_positions(index.start, index.stop, index.step, count)
    index = index + count if index < 0 else index
    return range(index, index + 1) if 0 <= index < count else range(0)


@functools.lru_cache(maxsize=1024)
def _slice_positions(start: int | None, stop: int | None, step: int | None, count: int) -> range:
    found = range(count)[slice(start, stop, step)]
    return found if found.step > 0 else found[::-1]


def _scan(step: OneStep, level: Level) -> list[int]:
    return [i for i in range(len(level.keys)) if step.matches(level, i)]


def _lookup(step: OneStep, label: str, level: Level) -> list[int]:
    keys = level.keys
    if isinstance(keys, range):
        return []
    # The keys of a dict may be strings of a class of their own, with an equality of its own.
    if isinstance(keys, list) and not set(map(type, keys)) <= {str}:
        return _scan(step, level)
    try:
        return [keys.index(label)]
    except ValueError:
        return []
