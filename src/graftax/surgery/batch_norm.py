"""BatchNorm's running statistics, between PyTorch's buffers and Equinox's state."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..paths.search import search
from ..paths.tree import shallow_copy
from ..structure.chain import Chain
from ..structure.skip import SkipConnection
from .edit import edited
from .tie import edited_apart
from .update import update

# BatchNorm divides by `1 - momentum ** count`; after so many steps that is 1, as in PyTorch.
_MANY_STEPS = 1_000_000

StateValues = list[tuple[eqx.nn.StateIndex, Any]]


def statistics_index(layer: eqx.nn.BatchNorm) -> eqx.nn.StateIndex:
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


def is_taken(index: eqx.nn.StateIndex) -> bool:
    """Whether `make_with_state` has taken the initial state out of the model."""
    return isinstance(index.init, eqx.Module) and not jax.tree.leaves(index.init)


def value_of(index: Any, state: eqx.nn.State | None) -> Any:
    """What a state holds, or the model if it was not separated from its state.

    Raises `ValueError` if the state is needed, or is another model's.
    """
    if state is not None:
        try:
            return state.get(index)
        except KeyError:
            raise ValueError(
                f"The state given is not that of this model: it knows nothing of {index.marker!r}. For a "
                "model that was edited, take graftax.extend_state(state, model)."
            ) from None
    if is_taken(index):
        raise ValueError(
            "The running statistics of this model are in its state, which eqx.nn.make_with_state took "
            "out of it: give state=..."
        )
    return index.init


def with_state_values(
    model: Any, values: StateValues, state: eqx.nn.State | None
) -> tuple[Any, eqx.nn.State | None]:
    """`(model, state)` with new running statistics: in the state if there is one, else in the model."""
    if state is not None:
        # Of a copy, because Equinox makes the state that it updates unusable.
        copy = jax.tree.map(lambda leaf: leaf, state)
        return model, copy.update(
            eqx.nn.State([shallow_copy(index, init=value) for index, value in values])
        )
    new = {index.marker: value for index, value in values}
    wanted = [lambda node: isinstance(node, eqx.nn.StateIndex) and node.marker in new]
    edits = {
        match.address: lambda index: shallow_copy(index, init=new[index.marker])
        for match in search(model, None, wanted)
    }
    return edited(model, edits), None


def fold_batch_norm(model: Any, state: eqx.nn.State | None = None) -> Any:
    """The same function, in inference, without the BatchNorms that directly follow a convolution.

    `norm(conv(x)) == folded(x)` where `norm` uses running statistics: its scale goes into the weight of
    the convolution (or linear layer) before it, its shift into the bias.

    **Arguments:**

    - `model`: any pytree; a layer and its norm are neighbours in a `Chain` or `SkipConnection`.
    - `state`: the state with the running statistics, if it was taken out of the model.

    **Returns:**

    The model. `graftax.extend_state(state, model)` is the state of what is left. A weight that is tied
    to another and changed is tied no more.

    **Raises:**

    - `ValueError`: no BatchNorm follows a convolution, or its statistics are in a state that was not
        given.

    Source: Jacob et al., Quantization and Training of Neural Networks, arXiv:1712.05877, section 3.2.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> conv = eqx.nn.Conv2d(3, 8, 3, use_bias=False, key=jax.random.key(0))
    >>> model = gx.Chain(conv=conv, norm=eqx.nn.BatchNorm(8, axis_name="batch", mode="batch"))
    >>> gx.fold_batch_norm(model).labels
    ('conv',)

    ```
    """
    return edited_apart(model, lambda base: _all_folded(base, state))


def _all_folded(model: Any, state: eqx.nn.State | None) -> Any:
    matches = search(model, None, [lambda node: isinstance(node, (Chain, SkipConnection))])
    edits = {match.address: (lambda node: _folded(node, state)) for match in matches}
    new = edited(model, edits)
    if new is model:
        raise ValueError(
            "No BatchNorm directly follows a convolution or linear layer: nothing to fold."
        )
    return new


def _folded(container: Any, state: eqx.nn.State | None) -> Any:
    kept: list[tuple[Any, Any]] = []
    for key, layer in container.items():
        before = kept[-1][1] if kept else None
        if isinstance(layer, eqx.nn.BatchNorm) and isinstance(before, _FOLDABLE):
            kept[-1] = (kept[-1][0], _absorbing(before, layer, state))
        else:
            kept.append((key, layer))
    return container if len(kept) == len(container) else container._with_items(kept)


_FOLDABLE = (eqx.nn.Conv, eqx.nn.ConvTranspose, eqx.nn.Linear)


def _absorbing(layer: Any, norm: eqx.nn.BatchNorm, state: eqx.nn.State | None) -> Any:
    mean, variance, _ = running_statistics(norm, state)
    scale = 1 / jnp.sqrt(variance + norm.eps) * (1 if norm.weight is None else norm.weight)
    shift = (0 if norm.bias is None else norm.bias) - mean * scale
    channels = (-1, *(1,) * (layer.weight.ndim - 1))
    as_bias = channels[:-1] if layer.weight.ndim > 2 else (-1,)
    bias = shift.reshape(as_bias)
    if layer.bias is not None:
        bias = bias + layer.bias * scale.reshape(as_bias)
    dtype = layer.weight.dtype
    weight = layer.weight * scale.reshape(channels)
    return update(layer, weight=weight.astype(dtype), bias=bias.astype(dtype), use_bias=True)
