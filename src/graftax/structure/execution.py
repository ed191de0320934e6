"""Branches of one structure, run as one program."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .above import Above
from .call import Call, again_key, fold_key
from .labels import layer_name

EXECUTIONS = ("sequential", "vmap", "scan")


def check_execution(execution: Any) -> None:
    """Raise `ValueError` for an execution that there is not."""
    if execution not in EXECUTIONS:
        raise ValueError(f"execution must be one of {', '.join(EXECUTIONS)}; got {execution!r}.")


class Run(NamedTuple):
    """One run of a branch."""

    label: Hashable
    layer: Any
    input: Any
    again: int = 0
    """How often the branch was run before."""


def run_alike(call: Call, execution: str, runs: Sequence[Run]) -> tuple[Any, ...]:
    """The outputs of runs whose layers have the same structure.

    Raises `ValueError` for layers that differ or keep a state.
    """
    parent = call.node
    # Equinox's norms pass a state on, but keep none.
    if Above.has_state([run.layer for run in runs]):
        raise ValueError(
            f"execution={execution!r} runs all branches of {type(parent).__name__} as one "
            "program, which cannot thread a state through them. Use 'sequential'."
        )
    if not runs:
        return ()
    labels = [run.label for run in runs]
    layers, fixed_layer = _stacked(parent, labels, [run.layer for run in runs])
    inputs, fixed_input = _stacked(parent, labels, [run.input for run in runs])
    keys = None
    if call.key is not None:
        own = [fold_key(again_key(call.key, run.label, run.again), run.label) for run in runs]
        keys = jnp.stack(own)
    # The program is that of every branch: what one raises, the first does.
    pure = call.pure(labels[0])

    def run_one(each: tuple[Any, ...]) -> Any:
        _, layer_arrays, x_arrays, key = each
        layer = eqx.combine(layer_arrays, fixed_layer)
        x = eqx.combine(x_arrays, fixed_input)
        return pure(layer, (x,), call.state, key)[0]

    # Numbered, because there may be no array that differs, and so none that tells how many they are.
    every = (jnp.arange(len(runs)), layers, inputs, keys)
    outputs = jax.vmap(run_one)(every) if execution == "vmap" else jax.lax.map(run_one, every)
    return tuple(jax.tree.map(lambda y, i=i: y[i], outputs) for i in range(len(runs)))


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
