"""The rules of `take_from` for Equinox's layers that are made of others."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..structure.wrapper import unwrap
from ..surgery.fields import update
from .axes import Axis, cut_layer, named_sides, sides, take_from
from .axis_rules import ROWS
from .index import Index
from .lora import LoRA


@take_from.register(eqx.nn.MultiheadAttention)
def _attention(layer: eqx.nn.MultiheadAttention, axis: Axis, index: Index) -> Any:
    chosen = named_sides(axis, ("heads", "in", "out"))
    cuts: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    if "heads" in chosen:
        sizes["num_heads"] = kept_heads(layer.num_heads, index)
        cuts = {f"{name}_proj": ["out"] for name in ("query", "key", "value")}
        cuts["output_proj"] = ["in"]
    if "in" in chosen:
        for name in ("query", "key", "value"):
            cuts.setdefault(f"{name}_proj", []).append("in")
            sizes[f"{name}_size"] = len(index.of(getattr(layer, f"{name}_size")))
    if "out" in chosen:
        cuts.setdefault("output_proj", []).append("out")
        sizes["output_size"] = len(index.of(layer.output_size))
    parts = {name: cut_layer(getattr(layer, name), axes, index) for name, axes in cuts.items()}
    return update(layer, **parts, **sizes)


def kept_heads(heads: int, index: Index) -> int:
    """How many of the heads stay. Raises `ValueError` for an index that does not count heads."""
    if index.kept is None or index.count != heads:
        counts = "single features" if index.count is None else f"blocks of {index.count}"
        raise ValueError(
            f"it has {heads} heads, and the index counts {counts}. Say which heads stay: "
            f"graftax.blocks(..., of={heads})"
        )
    return len(index.kept)


_WITH_ROWS = (eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)


@take_from.register(eqx.nn.WeightNorm)
def _weight_norm(layer: eqx.nn.WeightNorm, axis: Axis, index: Index) -> Any:
    # Its weight is `v * g / norm(v)`. Of fewer columns the norm is another, and `g` makes up for it.
    inner = unwrap(layer.layer)
    if (
        layer.weight_name != "weight"
        or layer.axis not in (0, None)
        or not isinstance(inner, _WITH_ROWS)
    ):
        raise ValueError(
            "only of a WeightNorm over the rows of the weight of a Linear or convolution can be taken"
        )
    cut = cut_layer(layer.layer, axis, index)
    factor = layer.g / _norm(inner.weight, layer.axis)
    if layer.axis == 0 and "out" in sides(axis, ROWS):
        factor = index.cut(factor, 0)
    return update(layer, layer=cut, g=factor * _norm(unwrap(cut).weight, layer.axis))


def _norm(weight: Any, axis: int | None) -> Any:
    over = tuple(i for i in range(weight.ndim) if i != axis)
    return jnp.sqrt(jnp.sum(weight**2, over, keepdims=True))


@take_from.register(eqx.nn.SpectralNorm)
def _spectral_norm(layer: eqx.nn.SpectralNorm, axis: Axis, index: Index) -> Any:
    raise ValueError(
        "the largest singular value that it divides by is another for a part of the weight: the model "
        "would compute something else"
    )


@take_from.register(eqx.nn.GRUCell)
@take_from.register(eqx.nn.LSTMCell)
def _recurrent(layer: Any, axis: Axis, index: Index) -> Any:
    raise ValueError("its gates lie behind each other in one weight, which take does not cut")


@take_from.register(LoRA)
def _lora(layer: LoRA, axis: Axis, index: Index) -> Any:
    inner = unwrap(layer.layer)
    cut = cut_layer(layer.layer, axis, index)
    # B has the first axis of the weight and A the second, whichever of them is the outputs.
    names = ("in", "out") if isinstance(inner, eqx.nn.Embedding) else ROWS
    first, second = (name in sides(axis, names) for name in names)
    windows = layer.lora_a.reshape(layer.lora_a.shape[0], *inner.weight.shape[1:])
    if getattr(inner, "groups", 1) > 1 and second:
        raise ValueError(
            "its groups share the matrix A, and would keep different columns of it; merge it first, with "
            "graftax.merge_lora"
        )
    if second:
        windows = index.cut(windows, 1)
    lora_b = index.cut(layer.lora_b, 0) if first else layer.lora_b
    return update(layer, layer=cut, lora_a=windows.reshape(len(windows), -1), lora_b=lora_b)


def resized(mlp: eqx.nn.MLP) -> eqx.nn.MLP:
    """The MLP with the sizes that its layers have now. Its width is that of all hidden layers."""
    layers = [unwrap(layer) for layer in mlp.layers]
    sizes: dict[str, Any] = {
        "in_size": getattr(layers[0], "in_features", mlp.in_size),
        "out_size": getattr(layers[-1], "out_features", mlp.out_size),
    }
    widths = {getattr(layer, "out_features", mlp.width_size) for layer in layers[:-1]}
    if len(widths) == 1:
        sizes["width_size"] = widths.pop()
    return update(mlp, **sizes)
