"""BatchNorm's running statistics, as PyTorch has them and as Equinox has them."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .state import StateValues, value_of

# Equinox starts its running statistics from zeros, and divides what it holds by `1 - momentum ** count`
# when it reads it. PyTorch does not, so for statistics of PyTorch's the count starts here: what is divided
# by is 1 then, and what is above is PyTorch's own count.
_FROM_PYTORCH = 2**30


def statistics_index(layer: eqx.nn.BatchNorm) -> Any:
    """Where a state holds the running mean and variance."""
    index = layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index
    assert index is not None
    return index


def check_count(count: Any) -> None:
    """Raise `ValueError` for a number of batches that Equinox's counter cannot hold."""
    if not 0 <= int(count) < _FROM_PYTORCH:
        raise ValueError(f"counts {int(count)} batches, where 0 to {_FROM_PYTORCH - 1} can be kept")


def state_values(layer: eqx.nn.BatchNorm, mean: Any, variance: Any, count: Any = 0) -> StateValues:
    """What Equinox's state holds for running statistics, and a number of batches, of PyTorch's.

    In mode "ema", which does not count, the number is not kept.
    """
    pair = (jnp.asarray(mean), jnp.asarray(variance))
    if layer.mode == "ema":
        progress, value = layer.ema_first_time_index, jnp.array(False)
    else:
        progress, value = layer.batch_counter, jnp.array(_FROM_PYTORCH + int(count))
    assert progress is not None
    return [(progress, value), (statistics_index(layer), pair)]


def running_statistics(
    layer: eqx.nn.BatchNorm, state: eqx.nn.State | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """(mean, variance, number of batches) as PyTorch holds them, the first two of shape `(channels,)`.

    The number is 0 in mode "ema", which does not count.
    """
    mean, variance = value_of(statistics_index(layer), state)
    if layer.mode == "ema":
        return np.asarray(mean), np.asarray(variance), 0
    count = int(value_of(layer.batch_counter, state))
    if count >= _FROM_PYTORCH:
        return np.asarray(mean), np.asarray(variance), count - _FROM_PYTORCH
    scale = 1.0 if count == 0 else 1.0 - layer.momentum**count
    return np.asarray(mean / scale), np.asarray(variance / scale), count
