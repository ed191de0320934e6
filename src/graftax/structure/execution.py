"""Branches of one structure, run as one program."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .calling import call_layer, fold_key
from .labels import layer_name
from .notes import annotate

EXECUTIONS = ("sequential", "vmap", "scan")


def run_alike(
    parent: Any,
    calls: list[tuple[Any, Any, Any]],
    state: Any,
    keys: Sequence[Any],
    context: Mapping[str, Any],
) -> tuple:
    """The outputs of `(label, layer, input)` calls whose layers have the same structure.

    `keys` are the parent's, one a call. Raises `ValueError` for layers that differ or keep a state.
    """
    if _keeps_state([layer for _, layer, _ in calls]):
        raise ValueError(
            f"execution={parent.execution!r} runs all branches of {type(parent).__name__} as one "
            "program, which cannot thread a state through them. Use 'sequential'."
        )
    labels = [label for label, _, _ in calls]
    layers, fixed_layer = _stacked(parent, labels, [layer for _, layer, _ in calls])
    inputs, fixed_input = _stacked(parent, labels, [x for _, _, x in calls])
    own_keys = None if keys[0] is None else jnp.stack(list(map(fold_key, keys, labels)))

    def run(each: tuple) -> Any:
        _, layer_arrays, x_arrays, own_key = each
        layer = eqx.combine(layer_arrays, fixed_layer)
        x = eqx.combine(x_arrays, fixed_input)
        try:
            return call_layer(layer, (x,), state, own_key, context)[0]
        except Exception as error:
            # The program is that of every branch: what one raises, the first does.
            annotate(error, parent, labels[0], layer, (x,))
            raise

    # Numbered, because there may be no array that differs, and so none that tells how many they are.
    every = (jnp.arange(len(calls)), layers, inputs, own_keys)
    outputs = jax.vmap(run)(every) if parent.execution == "vmap" else jax.lax.map(run, every)
    return tuple(jax.tree.map(lambda y, i=i: y[i], outputs) for i in range(len(calls)))


def _keeps_state(layers: Any) -> bool:
    # Not `is_stateful`: Equinox's norms pass a state on, but keep none.
    is_index = lambda node: isinstance(node, eqx.nn.StateIndex)
    return any(map(is_index, jax.tree.leaves(layers, is_leaf=is_index)))


def _stacked(parent: Any, labels: Sequence[Any], trees: Sequence[Any]) -> tuple[Any, Any]:
    """What differs between like trees, stacked along a new leading axis, and what they share."""
    treedef = jax.tree.structure(trees[0])
    leaves = [jax.tree.leaves(tree) for tree in trees]
    for label, tree, own in zip(labels, trees, leaves, strict=True):
        if jax.tree.structure(tree) != treedef or not all(map(_alike, own, leaves[0])):
            raise ValueError(
                f"execution={parent.execution!r} of {type(parent).__name__} needs branches and inputs "
                f"of one structure, shape and dtype: {label!r} with {layer_name(tree)} differs from "
                f"{labels[0]!r} with {layer_name(trees[0])}. Use 'sequential'."
            )
    columns = list(zip(*leaves, strict=True))
    stacked = [None if _shared(column) else jnp.stack(column) for column in columns]
    fixed = [column[0] if _shared(column) else None for column in columns]
    return jax.tree.unflatten(treedef, stacked), jax.tree.unflatten(treedef, fixed)


def _shared(column: Sequence[Any]) -> bool:
    """Whether a leaf is the same in all trees. A flag such as `inference` must then stay a bool."""
    return all(_same(leaf, column[0]) for leaf in column)


def _same(leaf: Any, first: Any) -> bool:
    if leaf is first:
        return True
    is_array = isinstance(leaf, (jax.Array, np.ndarray, np.generic))
    return not is_array and type(leaf) is type(first) and bool(leaf == first)


def _alike(leaf: Any, first: Any) -> bool:
    """Whether two leaves are the same, or numbers that can be stacked without losing a dtype."""
    if _same(leaf, first):
        return True
    if not (eqx.is_array_like(leaf) and eqx.is_array_like(first)) or isinstance(leaf, bool):
        return False
    kinds = [getattr(each, "dtype", type(each)) for each in (leaf, first)]
    return jnp.shape(leaf) == jnp.shape(first) and kinds[0] == kinds[1]
