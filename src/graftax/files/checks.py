"""What a node must be, whoever made it: asked before it is written, and again when it was read.

A module in a file is made without its constructor, which would want to draw weights anew. What the
constructor would refuse is refused here, by the checks that the constructors of graftax use themselves.
"""

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import AbstractArray

from ..paths.tree import shallow_copy, values_of
from ..structure.base import StructuralLayer
from ..structure.beside import Beside
from ..structure.labels import check_labels
from ..structure.wrapper import Wrapper
from .names import is_own

# A class for each set of labels takes a quarter of a millisecond to make, whatever it weighs in a file.
MOST_LABELS = 2000
# What is asked of a tied model looks through its ties: of ties around ties, through all of them anew at
# each of them, which is exponential.
MOST_TIES = 4

# JAX flattens by recursion, and what is nested deeper breaks it for the rest of the process.
MOST_LEVELS = 750


def levels(container: bool) -> int:
    """How many levels a node is to JAX: a container is one, and the tuple of its layers another."""
    return 2 if container else 1


def fault(node: Any) -> str | None:
    """What is wrong with a module, in words; None if nothing is.

    `None` is a hole, as `eqx.partition` leaves it, and may stand anywhere.
    """
    try:
        if isinstance(node, StructuralLayer):
            _check_container(node)
        if isinstance(node, Wrapper):
            _check_wrapper(node)
        _check_texts(node)
        _check_init(node)
    except (TypeError, ValueError) as error:
        return str(error).rstrip(".")
    return None


def _check_container(node: StructuralLayer) -> None:
    """Raise what the constructor would, but for holes."""
    values = values_of(node)
    layers = values["layers"]
    keys = getattr(layers, "_fields", None) or range(len(layers))
    for key, layer in zip(keys, layers, strict=True):
        _check_layer(type(node), key, layer)
    hole = "op" in values and values["op"] is None
    type(node)._check(shallow_copy(node, op=operator.add) if hole else node)


def _check_wrapper(node: Wrapper) -> None:
    _check_layer(type(node), "layer", node.layer)
    if isinstance(node, Beside):
        _check_beside(node)
    cls: Any = type(node)
    cls._check_names(node, cls._own_names(node))


def _check_beside(node: Beside) -> None:
    layers: Any = getattr(node, node.beside)
    labels = getattr(layers, "_fields", ())
    if not isinstance(layers, tuple) or len(layers) != len(labels):
        raise TypeError(f"{node.beside} of {type(node).__name__} must hold layers by label")
    check_labels(type(node), labels)
    for label, layer in zip(labels, layers, strict=True):
        _check_layer(type(node), label, layer)


def _check_init(node: Any) -> None:
    # Of graftax's own classes, which ask for no array: what others ask for may hold of whole models
    # alone, and not of the two halves of a partition.
    for cls in type(node).__mro__:
        if "__check_init__" in vars(cls) and is_own(cls):
            vars(cls)["__check_init__"](node)


def _check_layer(cls: type, key: Any, layer: Any) -> None:
    if layer is not None and not callable(layer):
        raise TypeError(
            f"layer {key!r} of {cls.__name__} must be callable; got {layer!r} of type "
            f"{type(layer).__name__}"
        )


def _check_texts(node: Any) -> None:
    values = values_of(node)
    for name in _numbers_only(type(node)):
        if isinstance(values.get(name), str | bytes):
            raise TypeError(f"{name} of {type(node).__name__} is the text {values[name]!r}")


@functools.lru_cache(maxsize=1024)
def _numbers_only(cls: type) -> tuple[str, ...]:
    """The fields that are declared to hold arrays and numbers, so that no text can stand there."""
    fields = dataclasses.fields(cls)
    try:
        declared = typing.get_type_hints(cls)
    except Exception:
        # Annotations of anybody's may name what is not there; then they say nothing.
        declared = {field.name: field.type for field in fields}
    return tuple(f.name for f in fields if all(map(_is_numeric, _members(declared.get(f.name)))))


def _members(declared: Any) -> Iterator[Any]:
    origin = typing.get_origin(declared)
    if origin in (typing.Union, types.UnionType, tuple):
        for member in typing.get_args(declared):
            yield from _members(member)
    elif declared is not ...:
        yield declared


_NUMERIC = (bool, int, float, complex, jax.Array, np.ndarray, np.generic, AbstractArray, type(None))


def _is_numeric(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, _NUMERIC)
