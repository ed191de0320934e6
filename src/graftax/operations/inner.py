"""Layers as operations meet them: in wrappers, and as subclasses that may compute something else."""

import functools
from typing import Any

import equinox as eqx
import jax

from ..paths.edit import edited
from ..paths.tree import INNER, level_of
from ..structure.wrapper import Wrapper


@functools.singledispatch
def computed_as(layer: Any) -> type:
    """The class whose computation the layer does: a base of its class that this adds nothing to.

    A subclass with a call or a field of its own may give its weights another meaning, and stands for
    itself, unless it is registered here: one that only refuses more inputs, for example.
    """
    cls = type(layer)
    caller = next((base for base in cls.__mro__ if "__call__" in vars(base)), cls)
    return caller if _fields(cls) == _fields(caller) else cls


def stands_for(cls: type, base: type) -> None:
    """Say that layers of exactly this class compute as the base does, whatever they refuse besides."""
    computed_as.register(cls, lambda layer: base if type(layer) is cls else type(layer))


def _fields(cls: Any) -> frozenset[str]:
    return frozenset(getattr(cls, "__dataclass_fields__", ()))


def rewrapped(layer: Any, inner: Any) -> Any:
    """The layer with another one inside all its wrappers: `rewrapped(a, unwrap(a)) == a`."""
    depth, node = 0, layer
    while isinstance(node, Wrapper):
        depth, node = depth + 1, node.layer
    return edited(layer, {(0,) * depth: lambda _: inner}) if depth else inner


def has_own_arrays(wrapper: Wrapper) -> bool:
    """Whether the wrapper has arrays of its own, beside those of the layer it holds."""
    level = level_of(wrapper)
    own = [child for key, child in zip(level.keys, level.children, strict=True) if key is not INNER]
    return any(eqx.is_array(leaf) for leaf in jax.tree.leaves(own))
