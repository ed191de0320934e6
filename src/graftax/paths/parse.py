"""From the text of a pattern to its steps.

pattern   := "" | ["."] component { "." component | index }
component := "**" | glob | index
glob      := { letter | digit | "_" | "-" | "*" | "?" | "{" glob { "," glob } "}" }
index     := "[" ( integer | slice | literal ) "]"
"""

import ast
import functools
import re
from typing import NamedTuple

from .errors import PatternError
from .steps import DEEP, Glob, Key, Position, Step


class Pattern(NamedTuple):
    """A pattern, read. `steps` are matched from the root; `kind` is its rank in dispatch."""

    text: str
    steps: tuple[Step, ...]
    pinned: bool
    """Whether it is a path from the root. If not, it is one component, matched wherever it stands."""


_REGEX_SIGNS = set("()^$|+\\")
_INTEGER = re.compile(r"[+-]?\d+")
_SLICE = re.compile(r"\s*([+-]?\d+)?\s*:\s*([+-]?\d+)?\s*(?::\s*([+-]?\d+)?\s*)?")


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
            else:
                raise self.error(self.unexpected())
        return steps

    def component(self) -> Step:
        if self.peek() == "[":
            return self.index()
        start = self.at
        self.glob(depth=0)
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
        if _INTEGER.fullmatch(part) and not part.isdecimal():
            raise self.error(f"A negative position stands in brackets: [{part}]", start)
        return Glob.parse(part)

    def glob(self, depth: int) -> None:
        while char := self.peek():
            if char == "{":
                self.braces(depth)
            elif char.isalnum() or char in "_-*?":
                self.at += 1
            else:
                return

    def braces(self, depth: int) -> None:
        start = self.at
        self.at += 1
        while True:
            before = self.at
            self.glob(depth + 1)
            char = self.peek()
            if char == "":
                raise self.error("This '{' is never closed", start)
            if char not in ",}":
                raise self.error(
                    f"{char!r} cannot stand in braces: they hold parts of one component"
                )
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
        if _INTEGER.fullmatch(body.strip()):
            return Position(int(body))
        if found := _SLICE.fullmatch(body):
            bounds = [None if group is None else int(group) for group in found.groups()]
            if bounds[2] == 0:
                raise self.error("The step of a slice cannot be 0", start + 1 + found.start(3))
            return Position(slice(*bounds))
        try:
            return Key(ast.literal_eval(body))
        except (ValueError, SyntaxError) as error:
            raise self.error(
                f"[{body}] is no position, slice or key. A label stands after a dot, "
                "or in quotes between brackets",
                start + 1,
            ) from error

    def bracket_body(self, start: int) -> tuple[str, int]:
        quote = ""
        at = start
        while at < len(self.text):
            char = self.text[at]
            if quote and char == "\\":
                at += 1
            elif char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            elif not quote and char == "]":
                return self.text[start:at], at
            at += 1
        raise self.error("This '[' is never closed", start - 1)

    def unexpected(self) -> str:
        char = self.peek()
        if char in _REGEX_SIGNS:
            return (
                f"{char!r} has no meaning in a pattern. A regular expression is given as "
                "re.compile(...)"
            )
        if char in ",}]":
            return f"This {char!r} was never opened"
        return f"{char!r} cannot stand in a label. Other keys are written in brackets: ['my key']"
