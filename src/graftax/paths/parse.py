"""From the text of a pattern to its steps.

pattern   := "" | ["."] component { "." component | index }
component := "**" | glob | index
glob      := { letter | digit | "_" | "-" | "*" | "?" | "{" glob { "," glob } "}" }
index     := "[" ( integer | slice | literal | "<" text ">" ) "]"

A component of digits is an index: `encoder.3` is `encoder[3]`. Between angles stands the repr of a key
that is no literal of Python; a backslash in it takes the next character as it is.
"""

import ast
import functools
import re
from collections.abc import Hashable
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
_NUMBER = "(?:0|[1-9][0-9]{0,599})"  # int() refuses thousands of digits
_POSITION = re.compile(_NUMBER)
_NEGATIVE = re.compile("-[0-9]+")
_BOUND = rf"\s*+([+-]?{_NUMBER})?\s*+"
# A backslash before any other character makes Python warn.
_BAD_ESCAPE = re.compile(r"(?:[^\\]|^)(?:\\\\)*(\\(?:[^\n\\'\"abfnrtvxNuU0-7]|[4-7][0-7]{2}))")
_ANGLES = re.compile(r"<(?:[^\\\]]|\\.)*+(?<=>)(?=\])", re.DOTALL)
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
        # `a.**.**.b` is `a.**.b`.
        steps = [s for i, s in enumerate(steps) if s is not DEEP or steps[i - 1 : i] != [DEEP]]
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
            raise self.error(f"A negative position stands in brackets: [{_shortened(part)}]", start)
        return Position(int(part)) if _POSITION.fullmatch(part) else Glob.parse(part)

    def glob(self) -> None:
        opened: list[int] = []
        while char := self.peek():
            if char == "{":
                opened.append(self.at)
            elif opened and char in ",}":
                if self.text[self.at - 1 : self.at + 1] == "{}":
                    raise self.error("These braces hold no alternative", opened[-1])
                if char == "}":
                    opened.pop()
            elif opened and char in ".[":
                raise self.error(
                    f"{char!r} cannot stand in braces: they hold parts of one component"
                )
            elif not (char in "*?" or _in_label(char)):
                break
            self.at += 1
        if opened and char:
            raise self.error(self.unexpected())
        if opened:
            raise self.error("This '{' is never closed", opened[-1])

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
        if body.startswith("<"):
            return Key(f"[{body}]", None)
        key = self.literal(body, start + 1)
        return Position(key) if type(key) is int else Key.parse(key)

    def literal(self, body: str, start: int) -> Hashable:
        if escape := _BAD_ESCAPE.search(body):
            raise self.error(f"{escape[1]} is no escape of Python's", start + escape.start(1))
        try:
            key = ast.literal_eval(body)
            hash(key)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise self.error(
                f"[{_shortened(body)}] is no position, slice or key. A label stands after a dot, "
                "or in quotes between brackets",
                start,
            ) from error
        return key

    def bracket_body(self, start: int) -> tuple[str, int]:
        if self.text[start : start + 1] == "<":
            return self.angles(start)
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

    def angles(self, start: int) -> tuple[str, int]:
        found = _ANGLES.match(self.text, start)
        if found is None:
            raise self.error("This '[<' is never closed by '>]'", start - 1)
        return found[0], found.end()

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


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _in_label(char: str) -> bool:
    # Identifiers hold more than letters: the vowel signs of many scripts, for one.
    return char.isalnum() or char == "-" or f"a{char}".isidentifier()
