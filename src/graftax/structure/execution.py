"""Branches of one structure, run as one program."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .calling import call_layer, fold_key
from .labels import layer_name

EXECUTIONS = ("sequential", "vmap", "scan")


def run_alike(
    parent: Any, calls: list[tuple[Any, Any, Any]], state: Any, key: Any, context: Mapping[str, Any]
) -> tuple:
    """The outputs of `(label, layer, input)` calls whose layers have the same structure.

    Raises `ValueError` if they do not, or if they keep a state.
    """
    if parent.is_stateful():
        raise ValueError(
            f"execution={parent.execution!r} runs all branches of {type(parent).__name__} as one "
            "program, which cannot thread a state through them. Use 'sequential'."
        )
    arrays, static = _stacked(parent, [layer for _, layer, _ in calls])
    inputs, fixed = _stacked(parent, [x for _, _, x in calls])
    keys = None if key is None else jnp.stack([fold_key(key, label) for label, _, _ in calls])

    def run(each: tuple) -> Any:
        layer_arrays, x_arrays, own_key = each
        layer = eqx.combine(layer_arrays, static)
        x = eqx.combine(x_arrays, fixed)
        return call_layer(layer, (x,), state, own_key, context)[0]

    mapped = jax.vmap(run) if parent.execution == "vmap" else lambda every: jax.lax.map(run, every)
    outputs = mapped((arrays, inputs, keys))
    return tuple(jax.tree.map(lambda y, i=i: y[i], outputs) for i in range(len(calls)))


def _stacked(parent: Any, trees: list[Any]) -> tuple[Any, Any]:
    """The arrays of several like trees stacked along a new leading axis, and what is no array."""
    parts = [eqx.partition(tree, eqx.is_array_like) for tree in trees]
    first = jax.tree.structure(parts[0]), jax.tree.map(jnp.shape, parts[0][0])
    for tree, part in zip(trees, parts, strict=True):
        alike = (jax.tree.structure(part), jax.tree.map(jnp.shape, part[0])) == first
        if not alike or not eqx.tree_equal(part[1], parts[0][1]):
            raise ValueError(
                f"execution={parent.execution!r} of {type(parent).__name__} needs branches and inputs "
                f"of one structure: {layer_name(tree)} differs from {layer_name(trees[0])}. "
                "Use 'sequential'."
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(p[0] for p in parts)), parts[0][1]
