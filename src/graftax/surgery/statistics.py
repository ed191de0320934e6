"""BatchNorm's running statistics, as PyTorch has them and as Equinox has them."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .state import StateValues, value_of

# BatchNorm divides by `1 - momentum ** count`; after so many steps that is 1, as in PyTorch.
_MANY_STEPS = 1_000_000


def statistics_index(layer: eqx.nn.BatchNorm) -> Any:
    """Where a state holds the running mean and variance."""
    index = layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index
    assert index is not None
    return index


def state_values(layer: eqx.nn.BatchNorm, mean: Any, variance: Any) -> StateValues:
    """What Equinox's state holds for these running statistics."""
    pair = (jnp.asarray(mean), jnp.asarray(variance))
    if layer.mode == "ema":
        progress, value = layer.ema_first_time_index, jnp.array(False)
    else:
        progress, value = layer.batch_counter, jnp.array(_MANY_STEPS)
    assert progress is not None
    return [(progress, value), (statistics_index(layer), pair)]


def running_statistics(
    layer: eqx.nn.BatchNorm, state: eqx.nn.State | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """(mean, variance, number of batches) as PyTorch holds them, each of shape `(channels,)`."""
    mean, variance = value_of(statistics_index(layer), state)
    if layer.mode == "ema":
        return np.asarray(mean), np.asarray(variance), 0
    count = int(value_of(layer.batch_counter, state))
    scale = 1.0 if count == 0 else 1.0 - layer.momentum**count
    return np.asarray(mean / scale), np.asarray(variance / scale), count
