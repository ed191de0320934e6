"""BatchNorm folded into the layer before it."""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..paths.edit import edited
from ..paths.search import search_all
from ..structure.chain import Chain
from ..structure.skip import SkipConnection
from ..structure.wrapper import unwrap
from ..structure.wrappers import Remat
from ..surgery.fields import update
from ..surgery.statistics import running_statistics
from ..surgery.tied import edited_apart
from .inner import computed_as, declared_shape, rewrapped

M = TypeVar("M")


def fold_batch_norm(model: M, state: eqx.nn.State | None = None) -> M:
    """The same function, in inference, without the BatchNorms that directly follow a convolution.

    `norm(conv(x)) == folded(x)` where `norm` uses running statistics: its scale goes into the weight of
    the convolution (or linear layer) before it, its shift into the bias.

    **Arguments:**

    - `model`: any pytree; a layer and its norm are neighbours in a `Chain` or `SkipConnection`. What
        may compute something else stays as it is: subclasses with a call of their own, layers in
        wrappers other than `Remat`, weights that a `LoRA` or `eqx.nn.WeightNorm` changes.
    - `state`: the state with the running statistics, if it was taken out of the model.

    **Returns:**

    The model. `graftax.extend_state(state, model)` is the state of what is left. A weight that is tied
    to another and changed is tied no more.

    **Raises:**

    - `TypeError`: the statistics are not known, because a function is traced.
    - `ValueError`: no BatchNorm follows a convolution, its statistics are in a state that was not
        given, or, with the path, the two differ in the number of channels or are stacked.

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
    matches = search_all(model, _runs_in_order)
    edits = {
        match.address: (lambda node, path=match.path: _folded(node, path, state))
        for match in matches
    }
    new = edited(model, edits)
    if new is model:
        raise ValueError(
            "No BatchNorm directly follows a convolution or linear layer: nothing to fold."
        )
    return new


def _runs_in_order(node: Any) -> bool:
    """Whether the children of a node run one after the other, as its class and no other says."""
    if not isinstance(node, Chain | SkipConnection):
        return False
    forward = type(node).forward
    return node.runs_by_record and forward in (Chain.forward, SkipConnection.forward)


def _folded(container: Any, path: str, state: eqx.nn.State | None) -> Any:
    kept: list[tuple[Any, Any]] = []
    for key, layer in container.items():
        before = kept[-1][1] if kept else None
        if _is_foldable(before) and computed_as(_bare(layer)) is eqx.nn.BatchNorm:
            where = f"{path}.{kept[-1][0]}".removeprefix(".")
            kept[-1] = (kept[-1][0], _absorbing(before, _bare(layer), where, state))
        else:
            kept.append((key, layer))
    return container if len(kept) == len(container) else container._with_items(kept)


def _bare(layer: Any) -> Any:
    """The layer inside wrappers that leave alone what it computes."""
    while type(layer) is Remat:
        layer = layer.layer
    return layer


def _is_foldable(layer: Any) -> bool:
    return computed_as(_bare(layer)) in (eqx.nn.Conv, eqx.nn.ConvTranspose, eqx.nn.Linear)


def _absorbing(layer: Any, norm: eqx.nn.BatchNorm, path: str, state: eqx.nn.State | None) -> Any:
    """The layer, perhaps in wrappers, that computes what it and the norm did."""
    inner = unwrap(layer)
    _check_channels(inner, norm, path)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((norm, state))):
        raise TypeError(
            f"fold_batch_norm reads the running statistics behind {path!r}, which are not known while a "
            "function is traced: fold outside of jit, and give the folded model to it."
        )
    mean, variance, _ = running_statistics(norm, state)
    scale = 1 / jnp.sqrt(variance + norm.eps) * (1 if norm.weight is None else norm.weight)
    shift = (0 if norm.bias is None else norm.bias) - mean * scale
    # Equinox holds the outputs of every convolution, a transposed one too, in the first axis.
    channels = (-1, *(1,) * (inner.weight.ndim - 1))
    as_bias = channels[:-1] if inner.weight.ndim > 2 else (-1,)
    bias = shift.reshape(as_bias)
    if inner.bias is not None:
        bias = bias + inner.bias * scale.reshape(as_bias)
    dtype = inner.weight.dtype
    weight = inner.weight * scale.reshape(channels)
    folded = update(inner, weight=weight.astype(dtype), bias=bias.astype(dtype), use_bias=True)
    return rewrapped(layer, folded)


def _check_channels(layer: Any, norm: eqx.nn.BatchNorm, path: str) -> None:
    shape = layer.weight.shape
    if shape != declared_shape(layer) or shape[0] != norm.input_size:
        raise ValueError(
            f"BatchNorm of {norm.input_size} channels cannot be folded into {path!r}, whose weight has the "
            f"shape {shape}: it must be one weight, not a stack of them, with as many outputs."
        )
