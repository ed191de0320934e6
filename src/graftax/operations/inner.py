"""Layers as operations meet them: in wrappers, and as subclasses that may compute something else."""

import functools
from typing import Any

import equinox as eqx
import jax

from ..paths.edit import edited
from ..paths.tree import INNER, level_of
from ..structure.labels import layer_name
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


CONVOLUTIONS = (eqx.nn.Conv, eqx.nn.ConvTranspose)


def declared_shape(layer: Any) -> tuple[int, ...] | None:
    """The shape that the sizes of a layer give its weight; None for a layer that is not known."""
    if isinstance(layer, eqx.nn.Embedding):
        return (layer.num_embeddings, layer.embedding_size)
    if isinstance(layer, CONVOLUTIONS):
        return (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    sizes = [getattr(layer, name, None) for name in ("out_features", "in_features")]
    return None if None in sizes else tuple(1 if n == "scalar" else int(n or 0) for n in sizes)


def check_one_weight(layer: Any, doing: str) -> None:
    """Raise `ValueError` if the weight is not what the sizes of the layer say: a stack of weights.

    `doing` is the call that does it to one layer, for `eqx.filter_vmap`.
    """
    if layer.weight is None:
        raise ValueError(
            f"{layer_name(layer)} has no weight here: in a mask, or the rest of a partition, there is None"
        )
    expected, shape = declared_shape(layer), layer.weight.shape
    if expected is not None and shape != expected:
        raise ValueError(
            f"the weight of {layer_name(layer)} has the shape {shape}, and its sizes say {expected}. Of "
            f"stacked layers do it to each: eqx.filter_vmap({doing})"
        )


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
