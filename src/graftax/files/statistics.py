"""BatchNorm's running statistics, between PyTorch's buffers and Equinox's state."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..paths.search import search
from ..paths.tree import shallow_copy
from ..surgery.edit import edited

# BatchNorm divides by `1 - momentum ** count`; after so many steps that is 1, as in PyTorch.
_MANY_STEPS = 1_000_000

StateValues = list[tuple[eqx.nn.StateIndex, Any]]


def state_values(layer: eqx.nn.BatchNorm, mean: Any, variance: Any) -> StateValues:
    """What Equinox's state holds for these running statistics."""
    pair = (jnp.asarray(mean), jnp.asarray(variance))
    if layer.mode == "ema":
        assert layer.ema_first_time_index is not None and layer.ema_state_index is not None
        return [(layer.ema_first_time_index, jnp.array(False)), (layer.ema_state_index, pair)]
    assert layer.batch_counter is not None and layer.batch_state_index is not None
    return [(layer.batch_counter, jnp.array(_MANY_STEPS)), (layer.batch_state_index, pair)]


def running_statistics(
    layer: eqx.nn.BatchNorm, state: eqx.nn.State | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """(mean, variance, number of batches) as PyTorch holds them, each of shape `(channels,)`."""
    if layer.mode == "ema":
        mean, variance = _value(layer.ema_state_index, state)
        return np.asarray(mean), np.asarray(variance), 0
    mean, variance = _value(layer.batch_state_index, state)
    count = int(_value(layer.batch_counter, state))
    scale = 1.0 if count == 0 else 1.0 - layer.momentum**count
    return np.asarray(mean / scale), np.asarray(variance / scale), count


def is_taken(index: eqx.nn.StateIndex) -> bool:
    """Whether `make_with_state` has taken the initial state out of the model."""
    return isinstance(index.init, eqx.Module) and not jax.tree.leaves(index.init)


def _value(index: Any, state: eqx.nn.State | None) -> Any:
    if state is not None:
        return state.get(index)
    if is_taken(index):
        raise ValueError("The running statistics of this model are in its state: give state=...")
    return index.init


def with_state_values(
    model: Any, values: StateValues, state: eqx.nn.State | None
) -> tuple[Any, eqx.nn.State | None]:
    """`(model, state)` with new running statistics: in the state if there is one, else in the model."""
    if state is not None:
        for index, value in values:
            state = state.set(index, value)
        return model, state
    new = {}
    for index, value in values:
        if is_taken(index):
            raise ValueError(
                "The checkpoint has running statistics, and the model was separated from its state by "
                "eqx.nn.make_with_state: give state=..., and (model, state) is returned."
            )
        new[index.marker] = value
    wanted = [lambda node: isinstance(node, eqx.nn.StateIndex) and node.marker in new]
    edits = {
        match.address: lambda index: shallow_copy(index, init=new[index.marker])
        for match in search(model, None, wanted)
    }
    return edited(model, edits), None
