"""The rules of `take_from` for layers with weights, and for norms."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import equinox as eqx
import numpy as np

from ..surgery.fields import update
from ..surgery.state import init_of, is_taken, with_state_values
from ..surgery.statistics import statistics_index
from .axes import Axis, sides, take_from
from .index import Index
from .inner import check_one_weight
from .quantization import QuantizedLinear

ROWS = ("out", "in")
"""The axes of a weight that is multiplied with: what is given are its rows, what it is given columns."""


_EACH = "lambda layer: graftax.take(layer, ...)"


def _check_norm(shape: tuple[int, ...], *arrays: Any) -> None:
    """Raise `ValueError` unless the arrays of a norm have this shape: they may be a stack."""
    for array in arrays:
        if array is not None and array.shape != shape:
            raise ValueError(
                f"an array of it has the shape {array.shape}, and its sizes say {shape}. Of stacked "
                f"layers do it to each: eqx.filter_vmap({_EACH})"
            )


@take_from.register(eqx.nn.Linear)
def _linear(layer: eqx.nn.Linear, axis: Axis, index: Index) -> Any:
    chosen = sides(axis, ROWS)
    sizes = {"out": layer.out_features, "in": layer.in_features}
    if scalars := [side for side in chosen if sizes[side] == "scalar"]:
        raise ValueError(f"its {scalars[0]!r} is a scalar, of which nothing can be taken")
    check_one_weight(layer, _EACH)
    arrays = _cut_rows(layer, ("weight", "bias"), chosen, index)
    counts = dict(zip(ROWS, arrays["weight"].shape, strict=True))
    fields = {f"{side}_features": counts[side] for side in chosen}
    return update(layer, **arrays, **fields)


@take_from.register(QuantizedLinear)
def _quantized(layer: QuantizedLinear, axis: Axis, index: Index) -> Any:
    chosen = sides(axis, ROWS)
    check_one_weight(layer, _EACH)
    return update(layer, **_cut_rows(layer, ("weight", "scale", "bias"), chosen, index))


def _cut_rows(
    layer: Any, names: Sequence[str], chosen: Sequence[str], index: Index
) -> dict[str, Any]:
    """The arrays of a layer cut: rows of all of them, columns of the weight."""
    arrays = {name: getattr(layer, name) for name in names}
    if "out" in chosen:
        arrays = {name: index.cut(array, 0) for name, array in arrays.items()}
    if "in" in chosen:
        arrays["weight"] = index.cut(arrays["weight"], 1)
    return arrays


@take_from.register(eqx.nn.Embedding)
def _embedding(layer: eqx.nn.Embedding, axis: Axis, index: Index) -> Any:
    # It is given the number of a row: here the rows are "in".
    chosen = sides(axis, ("in", "out"))
    check_one_weight(layer, _EACH)
    weight = layer.weight
    for i, side in enumerate(("in", "out")):
        weight = index.cut(weight, i) if side in chosen else weight
    rows, columns = weight.shape
    return update(layer, weight=weight, num_embeddings=rows, embedding_size=columns)


# Equinox holds the weight of a transposed convolution as (out, in / groups, ...) too.
@take_from.register(eqx.nn.Conv)
@take_from.register(eqx.nn.ConvTranspose)
def _convolution(layer: Any, axis: Axis, index: Index) -> Any:
    chosen = sides(axis, ROWS)
    check_one_weight(layer, _EACH)
    if layer.groups > 1:
        return _grouped(layer, chosen, index)
    arrays = _cut_rows(layer, ("weight", "bias"), chosen, index)
    outputs, inputs = arrays["weight"].shape[:2]
    return update(layer, **arrays, out_channels=outputs, in_channels=inputs)


def _grouped(layer: Any, chosen: Sequence[str], index: Index) -> Any:
    inputs, outputs, groups = layer.in_channels, layer.out_channels, layer.groups
    rows = index.of(outputs) if "out" in chosen else range(outputs)
    columns = index.of(inputs) if "in" in chosen else range(inputs)
    row_groups, rows = whole_groups(rows, outputs // groups)
    column_groups, columns = whole_groups(columns, inputs // groups)
    if row_groups != column_groups:
        raise ValueError(
            f"of its {groups} groups, inputs of {list(column_groups)} and outputs of "
            f"{list(row_groups)} would stay. Take of both, with the axis ('in', 'out'), whole groups: "
            f"graftax.blocks(..., of={groups})"
        )
    # A column of the weight is numbered within its group.
    within = columns % (inputs // groups)
    weight = layer.weight[rows[:, :, None], within[:, None, :]]
    return update(
        layer,
        weight=weight.reshape(rows.size, *weight.shape[2:]),
        bias=index.cut(layer.bias, 0) if "out" in chosen else layer.bias,
        out_channels=rows.size,
        in_channels=columns.size,
        groups=len(rows),
    )


def whole_groups(kept: Sequence[int], size: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Of groups of `size` neighbours those that are kept, and `(groups, members)`: who of each.

    Raises `ValueError` unless groups stay together and keep equally many.
    """
    runs = [(group, list(run)) for group, run in groupby(kept, lambda i: i // size)]
    groups = tuple(group for group, _ in runs)
    if len(set(groups)) < len(groups) or len({len(run) for _, run in runs}) > 1:
        raise ValueError(
            f"its channels are groups of {size}. Those that stay must stand group by group, equally "
            "many of each, or they would fall into other groups"
        )
    return groups, np.array([run for _, run in runs])


def _only_axis(axis: Axis) -> None:
    # What a norm is given and what it gives are one axis, and all these words mean it.
    for each in axis if isinstance(axis, list | tuple) else (axis,):
        sides("out" if each == "in" else each, ("out",))


@take_from.register(eqx.nn.LayerNorm)
@take_from.register(eqx.nn.RMSNorm)
def _norm(layer: Any, axis: Axis, index: Index) -> Any:
    if len(layer.shape) == 1:
        _only_axis(axis)
        chosen: tuple[int, ...] = (0,)
    else:
        chosen = sides(axis, range(len(layer.shape)))
    arrays, shape = {"weight": layer.weight, "bias": layer.bias}, list(layer.shape)
    _check_norm(layer.shape, layer.weight, layer.bias)
    for i in chosen:
        arrays = {name: index.cut(array, i) for name, array in arrays.items()}
        shape[i] = len(index.of(shape[i]))
    return update(layer, shape=tuple(shape), **arrays)


@take_from.register(eqx.nn.GroupNorm)
def _group_norm(layer: eqx.nn.GroupNorm, axis: Axis, index: Index) -> Any:
    _only_axis(axis)
    if layer.channels is None:
        raise ValueError("it was not told how many channels it has: give it `channels` first")
    _check_norm((layer.channels,), layer.weight, layer.bias)
    groups, kept = whole_groups(index.of(layer.channels), layer.channels // layer.groups)
    arrays = {name: index.cut(getattr(layer, name), 0) for name in ("weight", "bias")}
    return update(layer, groups=len(groups), channels=kept.size, **arrays)


@take_from.register(eqx.nn.BatchNorm)
def _batch_norm(layer: eqx.nn.BatchNorm, axis: Axis, index: Index) -> Any:
    _only_axis(axis)
    statistics = statistics_index(layer)
    if is_taken(statistics):
        raise ValueError(
            "its running statistics are in the state that eqx.nn.make_with_state took out of the model. "
            "Put them back with graftax.with_state(model, state), take, and separate them again"
        )
    held = init_of(statistics)
    _check_norm((layer.input_size,), layer.weight, layer.bias, *held)
    cut = tuple(index.cut(array, 0) for array in held)
    layer, _ = with_state_values(layer, [(statistics, cut)], None)
    arrays = {name: index.cut(getattr(layer, name), 0) for name in ("weight", "bias")}
    return update(layer, input_size=len(index.of(layer.input_size)), **arrays)
