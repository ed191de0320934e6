"""The steps of a pattern: what one component asks of one child."""

import functools
import re
from collections.abc import Hashable
from typing import NamedTuple

from .tree import Level


class Deep:
    """`**`: any number of components, none included."""

    def __repr__(self) -> str:
        return "DEEP"


DEEP = Deep()

_SIGNS = {"*": ".*", "?": ".", "{": "(?:", ",": "|", "}": ")"}


def _text(key: Hashable) -> str:
    return key if isinstance(key, str) else repr(key)


class Glob(NamedTuple):
    """A label, with or without `*`, `?` and `{a,b}`. Without wildcards, digits are a position."""

    text: str
    expression: re.Pattern[str]
    literal: bool
    positional: bool
    """Whether it may also name a position: only what spells out a number does."""

    @classmethod
    def parse(cls, text: str) -> "Glob":
        expression = "".join(_SIGNS.get(char) or re.escape(char) for char in text)
        wild = any(char in "*?" for char in text)
        literal = not wild and "{" not in text
        positional = not wild and any(char.isdecimal() for char in text)
        return cls(text, re.compile(expression, re.DOTALL), literal, positional)

    def matches(self, level: Level, i: int) -> bool:
        key = level.keys[i]
        if self.expression.fullmatch(_text(key)):
            return True
        return (
            self.positional
            and i < level.positions
            and self.expression.fullmatch(str(i)) is not None
        )

    def candidates(self, level: Level) -> list[int]:
        """The children it matches, looked up rather than searched for where it is a plain label."""
        if not self.literal:
            return _scan(self, level)
        if self.text.isdecimal():
            return Position(int(self.text)).candidates(level) or _scan(self, level)
        return _lookup(self.text, level)


class Position(NamedTuple):
    """`[2]`, `[-1]`, `[::2]`: places in a sequence, or an integer key of a dict."""

    place: int | slice

    def matches(self, level: Level, i: int) -> bool:
        if i < level.positions:
            return i in _positions(self.place, level.positions)
        return _is_integer(level.keys[i]) and level.keys[i] == self.place

    def candidates(self, level: Level) -> list[int]:
        if level.positions == 0:
            return _scan(self, level)
        return list(_positions(self.place, level.positions))


class Key(NamedTuple):
    """`["my key"]`: exactly this key or label."""

    key: Hashable

    def matches(self, level: Level, i: int) -> bool:
        key = level.keys[i]
        return type(key) is type(self.key) and key == self.key

    def candidates(self, level: Level) -> list[int]:
        return _scan(self, level)


OneStep = Glob | Position | Key
Step = Deep | OneStep


def _is_integer(key: object) -> bool:
    return isinstance(key, int) and not isinstance(key, bool)


def _positions(index: int | slice, count: int) -> range:
    if isinstance(index, slice):
        return _slice_positions(index.start, index.stop, index.step, count)
    index = index + count if index < 0 else index
    return range(index, index + 1) if 0 <= index < count else range(0)


@functools.lru_cache(maxsize=1024)
def _slice_positions(start: int | None, stop: int | None, step: int | None, count: int) -> range:
    return range(count)[slice(start, stop, step)]


def _scan(step: "OneStep", level: Level) -> list[int]:
    return [i for i in range(len(level.keys)) if step.matches(level, i)]


def _lookup(label: str, level: Level) -> list[int]:
    keys = level.keys
    if isinstance(keys, range):
        return []
    try:
        return [keys.index(label)]
    except ValueError:
        return []
