"""From the paths of a model to the names in somebody else's checkpoint."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..paths.errors import PatternError

_CAPTURE = re.compile(r"\{([^{}]*)\}")


class Layout(NamedTuple):
    """How a tensor lies in a checkpoint: where its name alone does not say it.

    Used on the right of a rename rule. `transpose` swaps the two axes of a matrix (GPT-2's `Conv1D`).
    `part` is the place of this tensor among `of` that are stored as one, along the first axis after the
    transposition (fused query, key and value). `shape` is the shape in the checkpoint, where only that
    differs (`(1, 1, width)` for a class token).

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.Layout("h.{i}.attn.c_attn", transpose=True, part=1, of=3).part
    1

    ```
    """

    name: str
    transpose: bool = False
    part: int = 0
    of: int = 1
    shape: tuple[int, ...] | None = None


class Named(NamedTuple):
    """The name of one tensor in a checkpoint, and how it lies there."""

    name: str
    layout: Layout | None


class _Rule(NamedTuple):
    expression: re.Pattern[str]
    replacement: str
    layout: Layout | None


class Rename:
    """Rename rules, read. Each is applied in order, to the leftmost place where it fits.

    A rule stands for whole components, anywhere in a path; a leading dot pins it to the beginning.
    `{i}` is one component or a part of one. The empty left side is the beginning of every path: `{"":
    "model"}` puts a prefix before all names.
    """

    def __init__(self, rules: Mapping[str, str | Layout]):
        self._rules = [_read_rule(left, right) for left, right in rules.items()]

    def __call__(self, path: str) -> Named:
        """The name that a path has in the checkpoint."""
        name, layout = path, None
        for rule in self._rules:
            renamed, count = rule.expression.subn(rule.replacement, name, count=1)
            if count:
                name = re.sub(r"\.{2,}", ".", renamed).strip(".")
                layout = rule.layout or layout
        return Named(name, layout)


def _read_rule(left: str, right: str | Layout) -> _Rule:
    layout = right if isinstance(right, Layout) else None
    target = right.name if isinstance(right, Layout) else right
    if layout is not None and not 0 <= layout.part < layout.of:
        raise ValueError(
            f"{target!r} is said to be made of {layout.of} parts, of which {layout.part} is none: they "
            "are counted from 0."
        )
    captures: list[str] = []
    expression = template_expression(left, captures)
    _check_braces(target)
    for name in _CAPTURE.findall(target):
        if name not in captures:
            raise PatternError(
                f"The capture {{{name}}} does not stand on the left side, {left!r}",
                target,
                target.index(f"{{{name}}}"),
            )
    replacement = _CAPTURE.sub(lambda found: rf"\g<{found[1]}>", target.replace("\\", r"\\"))
    if not left:
        return _Rule(re.compile("^"), f"{replacement}." if target else "", layout)
    return _Rule(re.compile(expression), replacement, layout)


def _check_braces(template: str) -> None:
    # What belongs to no capture is blanked out, so that positions stay.
    rest = _CAPTURE.sub(lambda found: " " * len(found[0]), template)
    for position, char in enumerate(rest):
        if char in "{}":
            raise PatternError(f"This {char!r} has no counterpart", template, position)


def template_expression(template: str, captures: list[str] | None = None) -> str:
    """The regular expression of a template, at the borders of components."""
    captures = [] if captures is None else captures
    _check_braces(template)
    pinned = template.startswith(".")
    parts: list[str] = []
    end = int(pinned)
    for found in _CAPTURE.finditer(template):
        name = found[1]
        if not name.isidentifier() or name in captures:
            raise PatternError(
                "A capture is a name in braces, used once on a side", template, found.start()
            )
        captures.append(name)
        parts += [re.escape(template[end : found.start()]), rf"(?P<{name}>[^.\[]+?)"]
        end = found.end()
    parts.append(re.escape(template[end:]))
    return ("^" if pinned else r"(?:^|(?<=\.))") + "".join(parts) + r"(?=[.\[]|$)"


def any_template(templates: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name has any of the templates in it, at the borders of components."""
    expressions = [re.compile(template_expression(template)) for template in templates]
    return lambda name: any(expression.search(name) for expression in expressions)
