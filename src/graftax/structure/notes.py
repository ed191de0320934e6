"""The one note that an exception carries out of a model: where, which layer, which shapes."""

from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax

from ..paths.path import render
from ..paths.tree import INNER, level_of
from .labels import layer_name


class PathNote(str):
    """A note on an exception, with the model that its path starts from."""

    path: str
    details: str
    root: Any

    @classmethod
    def make(cls, path: str, details: str, root: Any) -> "PathNote":
        note = cls(f"In {path}: {details}")
        note.path, note.details, note.root = path, details, root
        return note

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception that is sent to another process takes the words along, not the model.
        return str, (str(self),)


def annotate(
    error: Exception, call: Any, label: Hashable, layer: Any, inputs: tuple[Any, ...]
) -> None:
    """Note on `error` that it left the child `label` of the node that `call` is the record of.

    The innermost child that has a label notes it, with its whole path. Above, there is something to add
    only where a foreign module called a model of its own: that one's path starts from itself.
    """
    notes = getattr(error, "__notes__", [])
    place = render(call.path if label is INNER else (*call.path, label))
    for i, note in enumerate(notes):
        if isinstance(note, PathNote):
            if note.root is not call.root:
                notes[i] = PathNote.make(_below(place, _from(layer, note)), note.details, call.root)
            return
    if label is not INNER:
        details = f"{type_name(layer)} was given {_shapes(inputs)}{_remedy(error, layer, inputs)}"
        error.add_note(PathNote.make(place, details, call.root))


def _remedy(error: Exception, layer: Any, inputs: tuple[Any, ...]) -> str:
    """What to do about an error of JAX's that does not say it, as the end of a note."""
    if isinstance(error, NameError) and "axis name" in str(error) and "jax.vmap" not in str(error):
        return (
            ". Call the model in jax.vmap(..., axis_name=...), or take eqx.nn.inference_mode(model)"
        )
    *around, name = type_name(layer).rstrip(")").split("(")
    axes = 1 + around.count("Vmap")
    if name == "Linear" and any(getattr(x, "ndim", 0) > axes for x in inputs):
        return ". That is an axis too many: a batch goes through jax.vmap"
    return ""


def type_name(layer: Any) -> str:
    """The type of a layer, with what it wraps: `Vmap(Linear)`."""
    level = level_of(layer)
    if level.keys and level.keys[0] is INNER:
        return f"{layer_name(layer)}({type_name(level.children[0])})"
    return layer_name(layer)


def _from(layer: Any, note: PathNote) -> str:
    """The path of the note from `layer` on: foreign modules hold our containers somewhere inside."""
    alike = []
    pending: list[tuple[tuple[Any, ...], Any]] = [((), layer)]
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
    return f"{path}{rest}" if not path or not rest or rest.startswith("[") else f"{path}.{rest}"


def _shapes(inputs: tuple[Any, ...]) -> str:
    return ", ".join(eqx.tree_pformat(value, width=10_000)[:400] for value in inputs)
