"""From the text of a pattern to its steps.

pattern   := "" | ["."] component { "." component | index }
component := "**" | glob | index
glob      := { letter | digit | "_" | "-" | "*" | "?" | "{" glob { "," glob } "}" }
index     := "[" ( integer | slice | literal ) "]"

A component of digits is an index: `encoder.3` is `encoder[3]`.
"""

import ast
import functools
import re
from typing import NamedTuple

from .errors import PatternError
from .steps import DEEP, Glob, Key, Position, Step


class Pattern(NamedTuple):
    """A pattern, read. Its `steps` are matched from the root."""

    text: str
    steps: tuple[Step, ...]
    pinned: bool
    """Whether it is a path from the root. If not, it is one component, matched wherever it stands."""


_REGEX_SIGNS = set("()^$|+\\")
_NUMBER = "(?:0|[1-9][0-9]{0,17})"  # int() refuses thousands of digits
_POSITION = re.compile(_NUMBER)
_NEGATIVE = re.compile("-[0-9]+")
_BOUND = rf"\s*([+-]?{_NUMBER})?\s*"
_SLICE = re.compile(rf"{_BOUND}:{_BOUND}(?::{_BOUND})?")


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Pattern:
    """The pattern that `text` spells. Raises `PatternError`, which points at the character."""
    return _Parser(text).pattern()


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.at = 0

    def error(self, reason: str, at: int | None = None) -> PatternError:
        return PatternError(reason, self.text, self.at if at is None else at)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def pattern(self) -> Pattern:
        if not self.text:
            return Pattern("", (), True)
        dotted = self.peek() == "."
        self.at += dotted
        steps = self.steps()
        # `a.**` is everything inside `a`, and `.**` everything inside the root, but not these.
        if steps[-1] is DEEP and (dotted or len(steps) > 1):
            steps.append(Glob.parse("*"))
        pinned = dotted or len(steps) > 1 or steps[0] is DEEP
        return Pattern(self.text, tuple(steps) if pinned else (DEEP, *steps), pinned)

    def steps(self) -> list[Step]:
        steps = [self.component()]
        while self.at < len(self.text):
            if self.peek() == "[":
                steps.append(self.index())
            elif self.peek() == ".":
                self.at += 1
                steps.append(self.component())
            elif self.peek() in "{*?" or _in_label(self.peek()):
                raise self.error(f"A dot is missing before {self.peek()!r}")
            else:
                raise self.error(self.unexpected())
        return steps

    def component(self) -> Step:
        if self.peek() == "[":
            return self.index()
        start = self.at
        self.glob()
        part = self.text[start : self.at]
        if not part:
            raise self.error(
                "A component is missing here" if self.peek() in ("", ".") else self.unexpected()
            )
        if part == "**":
            return DEEP
        if "**" in part:
            raise self.error(
                "'**' is a component of its own, between dots", start + part.index("**")
            )
        if _NEGATIVE.fullmatch(part):
            raise self.error(f"A negative position stands in brackets: [{part}]", start)
        return Position(int(part)) if _POSITION.fullmatch(part) else Glob.parse(part)

    def glob(self) -> None:
        while char := self.peek():
            if char == "{":
                self.braces()
            elif char in "*?" or _in_label(char):
                self.at += 1
            else:
                return

    def braces(self) -> None:
        start = self.at
        self.at += 1
        while True:
            before = self.at
            self.glob()
            char = self.peek()
            if char == "":
                raise self.error("This '{' is never closed", start)
            if char in ".[":
                raise self.error(
                    f"{char!r} cannot stand in braces: they hold parts of one component"
                )
            if char not in ",}":
                raise self.error(self.unexpected())
            if char == "}" and before == self.at and self.text[before - 1] == "{":
                raise self.error("These braces hold no alternative", start)
            self.at += 1
            if char == "}":
                return

    def index(self) -> Step:
        start = self.at
        body, end = self.bracket_body(start + 1)
        self.at = end + 1
        if not body.strip():
            raise self.error(
                "These brackets are empty: a position, a slice or a key is missing", start
            )
        if found := _SLICE.fullmatch(body):
            bounds = [None if group is None else int(group) for group in found.groups()]
            if bounds[2] == 0:
                raise self.error("The step of a slice cannot be 0", start + 1 + found.start(3))
            return Position(slice(*bounds))
        try:
            key = ast.literal_eval(body)
            hash(key)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise self.error(
                f"[{body}] is no position, slice or key. A label stands after a dot, "
                "or in quotes between brackets",
                start + 1,
            ) from error
        return Position(key) if type(key) is int else Key(key)

    def bracket_body(self, start: int) -> tuple[str, int]:
        quote, quoted = "", 0
        at = start
        while at < len(self.text):
            char = self.text[at]
            if quote and char == "\\":
                at += 1
            elif char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote, quoted = char, at
            elif not quote and char == "]":
                return self.text[start:at], at
            at += 1
        if quote:
            raise self.error("This quote is never closed", quoted)
        raise self.error("This '[' is never closed", start - 1)

    def unexpected(self) -> str:
        char = self.peek()
        if char in _REGEX_SIGNS:
            return (
                f"{char!r} has no meaning in a pattern. A regular expression is given as "
                "re.compile(...)"
            )
        if char in "}]":
            return f"This {char!r} was never opened"
        if char == ",":
            return "Alternatives stand in braces, {a,b}; several patterns are given as a list"
        if char == "/":
            return "Components are separated by dots"
        return f"{char!r} cannot stand in a label. Other keys are written in brackets: ['my key']"


def _in_label(char: str) -> bool:
    # Identifiers hold more than letters: the vowel signs of many scripts, for one.
    return char.isalnum() or char == "-" or f"a{char}".isidentifier()
