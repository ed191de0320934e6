"""The one note that an exception carries out of a model: where, which layer, which shapes."""

from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax

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

    def __reduce__(self) -> tuple:
        # An exception that is sent to another process takes the words along, not the model.
        return str, (str(self),)


def annotate(error: Exception, parent: Any, label: Hashable, layer: Any, inputs: tuple) -> None:
    """Note on `error` that it left the child `label` of `parent`.

    An inner container has noted the path from itself: then only what stands above is added, so that
    there is always exactly one note.
    """
    notes = getattr(error, "__notes__", [])
    for i, note in enumerate(notes):
        if isinstance(note, PathNote):
            path = _below(join("", label), _from(layer, note))
            notes[i] = PathNote.make(path, note.details, parent)
            return
    details = f"{type_name(layer)} was given {_shapes(inputs)}"
    error.add_note(PathNote.make(join("", label), details, parent))


def reroot(error: Exception, wrapper: Any, layer: Any) -> None:
    """Let the note on `error` start at `wrapper`, which ran `layer`: a copy of what it holds.

    Outside, the copy is not to be found again.
    """
    notes = getattr(error, "__notes__", [])
    for i, note in enumerate(notes):
        if isinstance(note, PathNote):
            notes[i] = PathNote.make(_from(layer, note), note.details, wrapper)


def type_name(layer: Any) -> str:
    """The type of a layer, with what it wraps: `Vmap(Linear)`."""
    level = level_of(layer)
    if level.keys and level.keys[0] is INNER:
        return f"{layer_name(layer)}({type_name(level.children[0])})"
    return layer_name(layer)


def _from(layer: Any, note: PathNote) -> str:
    """The path of the note from `layer` on: foreign modules hold our containers somewhere inside."""
    alike = []
    pending: list[tuple[tuple, Any]] = [((), layer)]
    while pending:
        keys, node = pending.pop()
        if node is note.root:
            return _below(render(keys), note.path)
        if type(node) is type(note.root):
            alike.append((keys, node))
        level = level_of(node)
        pending.extend(
            ((*keys, key), child) for key, child in zip(level.keys, level.children, strict=True)
        )
    # A transformation inside the foreign module (`filter_jit`, ...) has made a copy of the container.
    structure = jax.tree.structure(note.root)
    copied = [keys for keys, node in alike if jax.tree.structure(node) == structure]
    return _below(render(copied[0]), note.path) if len(copied) == 1 else note.path


def _below(path: str, rest: str) -> str:
    return f"{path}{rest}" if not path or rest.startswith("[") else f"{path}.{rest}"


def _shapes(inputs: tuple) -> str:
    return ", ".join(eqx.tree_pformat(value, width=10_000)[:400] for value in inputs)
