"""The sizes that the arrays of Equinox's layers say: a question with an arm for each class.

A weight may be stacked, as `eqx.filter_vmap` of a constructor stacks it: then it has more axes in front,
which no size speaks of.
"""

import functools
from typing import Any

import equinox as eqx

Sizes = dict[str, Any]


@functools.singledispatch
def sizes_of(layer: Any) -> Sizes:
    """From static field to the value that the arrays of the layer say. Nothing for classes unknown."""
    return {}


@sizes_of.register
def _(layer: eqx.nn.Linear) -> Sizes:
    sizes: Sizes = {"use_bias": layer.bias is not None}
    if (shape := _shape(layer, 2)) is not None:
        for name, size in zip(("out_features", "in_features"), shape, strict=True):
            # A scalar is stored as a vector of one.
            if not (getattr(layer, name) == "scalar" and size == 1):
                sizes[name] = size
    return sizes


@sizes_of.register(eqx.nn.Conv)
@sizes_of.register(eqx.nn.ConvTranspose)
def _(layer: Any) -> Sizes:
    sizes: Sizes = {"use_bias": layer.bias is not None}
    if (shape := _shape(layer, 2 + layer.num_spatial_dims)) is not None:
        out, grouped, *kernel = shape
        sizes |= {"out_channels": out, "in_channels": grouped * layer.groups}
        sizes["kernel_size"] = tuple(kernel)
    return sizes


@sizes_of.register
def _(layer: eqx.nn.Embedding) -> Sizes:
    shape = _shape(layer, 2)
    return {} if shape is None else {"num_embeddings": shape[0], "embedding_size": shape[1]}


@sizes_of.register(eqx.nn.LayerNorm)
@sizes_of.register(eqx.nn.RMSNorm)
def _(layer: Any) -> Sizes:
    sizes: Sizes = {"use_weight": layer.weight is not None, "use_bias": layer.bias is not None}
    held = layer.weight if layer.weight is not None else layer.bias
    shape = getattr(held, "shape", None)
    # Whether there are axes in front of a shape of any length cannot be seen.
    return sizes if shape is None or shape[1:] == layer.shape else sizes | {"shape": shape}


@sizes_of.register
def _(layer: eqx.nn.GroupNorm) -> Sizes:
    return _affine(layer, "channels")


@sizes_of.register
def _(layer: eqx.nn.BatchNorm) -> Sizes:
    return _affine(layer, "input_size")


def _affine(layer: Any, name: str) -> Sizes:
    shape = _shape(layer, 1)
    affine = layer.weight is not None or layer.bias is not None
    return {"channelwise_affine": affine} | ({} if shape is None else {name: shape[0]})


@sizes_of.register(eqx.nn.GRUCell)
@sizes_of.register(eqx.nn.LSTMCell)
def _(layer: Any) -> Sizes:
    sizes: Sizes = {"use_bias": layer.bias is not None}
    if (shape := _shape(layer, 2, "weight_ih")) is not None:
        sizes["input_size"] = shape[1]
    if (shape := _shape(layer, 2, "weight_hh")) is not None:
        sizes["hidden_size"] = shape[1]
    return sizes


@sizes_of.register
def _(layer: eqx.nn.MultiheadAttention) -> Sizes:
    # Not the number of heads and their size: a projection says only their product.
    sizes: Sizes = {}
    for role, axis in (("query", 1), ("key", 1), ("value", 1), ("output", 0)):
        projection = getattr(layer, f"{role}_proj")
        if (shape := _shape(projection, 2)) is not None:
            sizes[f"{role}_size"] = shape[axis]
            sizes[f"use_{role}_bias"] = getattr(projection, "bias", None) is not None
    return sizes


@sizes_of.register
def _(layer: eqx.nn.MLP) -> Sizes:
    shapes = [_shape(each, 2) for each in layer.layers]
    if not shapes or shapes[0] is None or shapes[-1] is None:
        return {}
    sizes: Sizes = {"use_final_bias": layer.layers[-1].bias is not None}
    if layer.in_size != "scalar":
        sizes["in_size"] = shapes[0][1]
    if layer.out_size != "scalar":
        sizes["out_size"] = shapes[-1][0]
    if len(shapes) > 1:
        sizes |= {"width_size": shapes[0][0], "use_bias": layer.layers[0].bias is not None}
    return sizes if layer.scan else sizes | {"depth": len(shapes) - 1}


def _shape(layer: Any, axes: int, name: str = "weight") -> tuple[int, ...] | None:
    """The last axes of the shape of a weight; None if there is none of so many axes."""
    shape = getattr(getattr(layer, name, None), "shape", ())
    return shape[-axes:] if len(shape) >= axes else None
