"""The one note that an exception carries out of a model: where, which layer, which shapes."""

from collections.abc import Hashable
from typing import Any

import equinox as eqx

from ..paths.path import join, render
from ..paths.tree import INNER, level_of
from .labels import layer_name


class PathNote(str):
    """A note on an exception. Grows at the front while the exception travels outwards."""

    path: str
    details: str
    root: Any

    @classmethod
    def make(cls, path: str, details: str, root: Any) -> "PathNote":
        note = cls(f"In {path}: {details}")
        note.path, note.details, note.root = path, details, root
        return note


def annotate(error: Exception, parent: Any, label: Hashable, layer: Any, inputs: tuple) -> None:
    """Note on `error` that it left the child `label` of `parent`.

    An inner container has noted the path from itself: then only what stands above is added, so that
    there is always exactly one note.
    """
    notes = getattr(error, "__notes__", [])
    for i, note in enumerate(notes):
        if isinstance(note, PathNote):
            above = join("", label) + _between(layer, note.root)
            below = note.path if note.path.startswith("[") else f".{note.path}"
            notes[i] = PathNote.make(above + below, note.details, parent)
            return
    details = f"{type_name(layer)} was given {_shapes(inputs)}"
    error.add_note(PathNote.make(join("", label), details, parent))


def type_name(layer: Any) -> str:
    """The type of a layer, with what it wraps: `Vmap(Linear)`."""
    level = level_of(layer)
    if level.keys and level.keys[0] is INNER:
        return f"{layer_name(layer)}({type_name(level.children[0])})"
    return layer_name(layer)


def _between(layer: Any, root: Any) -> str:
    """The path from `layer` down to `root`, where foreign modules hold our containers."""
    pending: list[tuple[tuple, Any]] = [((), layer)]
    while pending:
        keys, node = pending.pop()
        if node is root:
            path = render(keys)
            return path if not path or path.startswith("[") else f".{path}"
        level = level_of(node)
        pending.extend(
            ((*keys, key), child) for key, child in zip(level.keys, level.children, strict=True)
        )
    return ""


def _shapes(inputs: tuple) -> str:
    return ", ".join(eqx.tree_pformat(value, width=10_000)[:400] for value in inputs)
