"""What `graftax.take` and its like need to know of the zoo's own layers."""

from typing import Any

import equinox as eqx

from ..operations.axes import Axis, named_sides, sides, take_from
from ..operations.axis_compound import kept_heads
from ..operations.axis_rules import whole_groups
from ..operations.index import Index
from ..operations.inner import stands_for
from ..surgery.fields import update
from .attention import DotProductAttention
from .embeddings import ClassToken, Embedding, PositionEmbedding, TokenTypeEmbedding
from .images import Conv2d
from .norms import BatchNorm

# They refuse more inputs, or train otherwise; what they make of a weight is the same.
stands_for(Conv2d, eqx.nn.Conv)
stands_for(BatchNorm, eqx.nn.BatchNorm)
stands_for(Embedding, eqx.nn.Embedding)

_TABLE = ("in", "out")


@take_from.register(DotProductAttention)
def _attention(layer: DotProductAttention, axis: Axis, index: Index) -> Any:
    named_sides(axis, ("heads",))
    each = layer.heads // layer.kv_heads
    if each == 1 or index.count != layer.heads:
        kept = kept_heads(layer.kv_heads, index)
        return update(layer, heads=kept * each, kv_heads=kept)
    # Queries alone: those that share a key must go on to share it.
    groups, heads = whole_groups(index.kept or (), each)
    if groups != tuple(range(layer.kv_heads)):
        raise ValueError(
            f"its {layer.heads} heads share {layer.kv_heads} keys, of which some would have no queries. "
            f"Count the keys: graftax.blocks(..., of={layer.kv_heads})"
        )
    return update(layer, heads=heads.size)


@take_from.register(Embedding)
def _embedding(layer: Embedding, axis: Axis, index: Index) -> Any:
    padding = layer.padding
    rule = take_from.dispatch(eqx.nn.Embedding)
    cut = rule(update(layer, padding=None), axis, index)
    if padding is not None and "in" in sides(axis, _TABLE):
        kept = index.of(layer.num_embeddings)
        if padding not in kept:
            raise ValueError(
                f"its padding token, {padding}, would be left out. If there shall be none, "
                "update(padding=None) first"
            )
        padding = kept.index(padding)
    return update(cut, padding=padding)


@take_from.register(PositionEmbedding)
@take_from.register(TokenTypeEmbedding)
@take_from.register(ClassToken)
def _table(layer: Any, axis: Axis, index: Index) -> Any:
    weight = layer.weight
    for i, side in enumerate(_TABLE):
        weight = index.cut(weight, i) if side in sides(axis, _TABLE) else weight
    return update(layer, weight=weight)
