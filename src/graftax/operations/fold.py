"""BatchNorm folded into the layer before it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ..paths.edit import edited
from ..paths.search import search_all
from ..structure.chain import Chain
from ..structure.skip import SkipConnection
from ..surgery.fields import update
from ..surgery.statistics import running_statistics
from ..surgery.tied import edited_apart


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
    matches = search_all(model, lambda node: isinstance(node, (Chain, SkipConnection)))
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
