"""Errors about paths, and the nearest right answer that each of them names."""

import difflib
import itertools
from collections.abc import Iterable
from typing import Any


class PatternError(ValueError):
    """A pattern that cannot be read. The message points at the character.

    `pattern` is its text, `position` the offset of the offending character.
    """

    reason: str
    pattern: str
    position: int

    def __init__(self, reason: str, pattern: str, position: int):
        # A tab or a line break would move the caret away from its character.
        self.reason = _printable(reason)
        self.pattern = pattern
        self.position = position
        super().__init__(f"{self.reason}\n    {_printable(pattern)}\n    {' ' * position}^")

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.reason, self.pattern, self.position))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class LabelError(KeyError):
    """A `KeyError` whose message is printed as it is, not quoted."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


# To compare two words takes as long as the product of their lengths. What was mistyped is shorter, and
# among fewer.
_LONGEST, _MOST = 200, 2000


def nearest(word: str, words: Iterable[str]) -> list[str]:
    """Up to three of `words` that look like `word`, the nearest first; none for very long ones."""
    if len(word) > _LONGEST:
        return []
    short = (each for each in dict.fromkeys(words) if len(each) <= _LONGEST)
    return difflib.get_close_matches(word, list(itertools.islice(short, _MOST)), n=3, cutoff=0.6)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The sentence that ends an error message, or nothing if no word is near."""
    found = nearest(word, words)
    return f" Did you mean {found[0]!r}?" if found else ""


def listed(words: Iterable[object], limit: int = 12) -> str:
    """`a, b, c`, cut after `limit` words."""
    words = [str(word) for word in words]
    rest = f", and {len(words) - limit} more" if len(words) > limit else ""
    return (", ".join(words[:limit]) or "none") + rest
