"""The steps of a pattern: what one component asks of one child."""

import functools
import re
from collections.abc import Hashable
from typing import NamedTuple

from .path import spelled
from .tree import Level


class Deep:
    """`**`: any number of components, none included."""

    def __repr__(self) -> str:
        return "DEEP"


DEEP = Deep()

_SIGNS = {"*": ".*", "?": ".", "{": "(?:", ",": "|", "}": ")"}
_WITHOUT_WILDCARDS = _SIGNS | {"*": "(?!)", "?": "(?!)"}


def _expression(text: str, signs: dict[str, str]) -> re.Pattern[str]:
    return re.compile("".join(signs.get(char) or re.escape(char) for char in text), re.DOTALL)


class Glob(NamedTuple):
    """A label, with or without `*`, `?` and `{a,b}`. Wildcards stand for the text of a key."""

    text: str
    expression: re.Pattern[str]
    literal: bool
    """Whether it spells out one label."""
    places: re.Pattern[str] | None
    """Which positions it also means, if any: the digits in braces, as in `{0,2}`."""

    @classmethod
    def parse(cls, text: str) -> "Glob":
        literal = not any(char in "*?{" for char in text)
        has_places = "{" in text and any(char.isdecimal() for char in text)
        places = _expression(text, _WITHOUT_WILDCARDS) if has_places else None
        return cls(text, _expression(text, _SIGNS), literal, places)

    def matches(self, level: Level, i: int) -> bool:
        if self.expression.fullmatch(spelled(level.keys[i])):
            return True
        return (
            self.places is not None
            and i < level.positions
            and self.places.fullmatch(str(i)) is not None
        )

    def candidates(self, level: Level) -> list[int]:
        """The children it matches, looked up rather than searched for where it is a plain label."""
        return _lookup(self.text, level) if self.literal else _scan(self, level)


class Position(NamedTuple):
    """`[2]`, `[-1]`, `[::2]`: places in a sequence. A number is also a key of a dict."""

    place: int | slice

    def matches(self, level: Level, i: int) -> bool:
        if i < level.positions:
            return i in _positions(self.place, level.positions)
        return isinstance(self.place, int) and spelled(level.keys[i]) == str(self.place)

    def candidates(self, level: Level) -> list[int]:
        if level.positions == 0:
            return _scan(self, level)
        return list(_positions(self.place, level.positions))


class Key(NamedTuple):
    """`["my key"]`: exactly this key or label."""

    key: Hashable

    def matches(self, level: Level, i: int) -> bool:
        key = level.keys[i]
        return isinstance(key, type(self.key)) and key == self.key

    def candidates(self, level: Level) -> list[int]:
        return _scan(self, level)


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


def _lookup(label: str, level: Level) -> list[int]:
    keys = level.keys
    if isinstance(keys, range):
        return []
    try:
        return [keys.index(label)]
    except ValueError:
        return []
