"""A low-rank path beside a layer: what `LoRA` runs."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..structure.labels import layer_name
from ..surgery.fields import update
from .inner import CONVOLUTIONS, check_one_weight, computed_as
from .quantization import QuantizedLinear

_EACH = "lambda layer, key: graftax.LoRA(layer, rank, key=key)"


class Beside(eqx.Module):
    """`layer(x) + scale * B(A(x))`, where A and B are small layers of the layer's own kind."""

    layer: Any
    lora_a: Float[Array, "rank in"]
    lora_b: Float[Array, "out rank"]
    scale: float = eqx.field(static=True)

    def __call__(self, x: Any, *, key: PRNGKeyArray | None = None) -> Array:
        """What the layer gives, with the path added, in the dtype that the layer gives."""
        y = self.layer(x, key=key)
        return (y + self.scale * self._path(x)).astype(y.dtype)

    def _path(self, x: Any) -> Array:
        layer, rank = self.layer, self.lora_a.shape[0]
        cls = computed_as(layer)
        if cls in CONVOLUTIONS:
            return _path_of_convolution(layer, self.lora_a, self.lora_b, x)
        if cls is eqx.nn.Embedding:
            # The layer itself looks B up, so that it does with odd ids what it does without.
            return update(layer, weight=self.lora_b, embedding_size=rank)(x) @ self.lora_a
        return self.lora_b @ (self.lora_a @ x)


def _path_of_convolution(layer: Any, a: Array, b: Array, x: Array) -> Array:
    """A convolution to `rank` channels of each group, and one of a single pixel from there."""
    rank, groups = a.shape[0], layer.groups
    # Every group has the same A, as in the sum of the weights; B has a row for each output.
    window = jnp.tile(
        a.reshape(rank, -1, *layer.kernel_size), (groups, *(1,) * (1 + len(layer.kernel_size)))
    )
    reduce = update(layer, weight=window, bias=None, use_bias=False, out_channels=groups * rank)
    low = reduce(x)
    low = low.reshape(groups, rank, *low.shape[1:])
    y = jnp.einsum("gor,gr...->go...", b.reshape(groups, -1, rank), low)
    return y.reshape(b.shape[0], *y.shape[2:])


def runs_beside(layer: Any) -> bool:
    """Whether a path beside the layer is the same as a change of its weight, and cheaper."""
    cls = computed_as(layer)
    if cls is eqx.nn.Linear:
        return "scalar" not in (layer.in_features, layer.out_features)
    return cls in (*CONVOLUTIONS, eqx.nn.Embedding, QuantizedLinear)


def weight_of(layer: Any) -> Any:
    """Something of the shape and dtype of the weight that LoRA changes.

    Raises `TypeError` if the layer has none, `ValueError` if it is a stack of several.
    """
    if isinstance(layer, QuantizedLinear):
        check_one_weight(layer, _EACH)
        return layer.weight.astype(layer.scale.dtype)
    weight: Any = getattr(layer, "weight", None)
    if (
        not eqx.is_array(weight)
        or not jnp.issubdtype(weight.dtype, jnp.floating)
        or weight.ndim < 2
    ):
        raise TypeError(
            "LoRA needs a layer with a floating-point weight of at least two axes; "
            f"{layer_name(layer)} has none."
        )
    check_one_weight(layer, _EACH)
    return weight
