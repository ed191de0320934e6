"""Linear layers whose weights are stored as small integers."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from ..structure.labels import layer_name


class QuantizedLinear(eqx.Module):
    """A linear layer with int8 weights: `y = scale * (weight @ x) + bias`, one scale an output.

    Made by `graftax.quantize`. The weights take a quarter of the bytes of float32; the product is
    computed in the dtype of the input.

    Source: Dettmers et al., LLM.int8(), arXiv:2208.07339, section 2 (absmax quantisation by row).
    """

    weight: Int8[Array, "out in"]
    scale: Float[Array, " out"]
    bias: Float[Array, " out"] | None

    def __call__(self, x: Float[Array, " in"], *, key: Any = None) -> Float[Array, " out"]:
        """`(in,)` to `(out,)`. `key` is ignored, as by `eqx.nn.Linear`."""
        del key
        y = (self.weight.astype(x.dtype) @ x) * self.scale.astype(x.dtype)
        return y if self.bias is None else y + self.bias.astype(x.dtype)


def quantize(layer: eqx.nn.Linear) -> QuantizedLinear:
    """The linear layer with its weight rounded to int8: off by at most half a step of each row.

    A step is the largest weight of the row, over 127.

    **Arguments:**

    - `layer`: an `eqx.nn.Linear` with a weight of shape `(out, in)`.

    **Returns:**

    A `QuantizedLinear`.

    **Raises:**

    - `TypeError`: the layer is no `eqx.nn.Linear` of numbers of features.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> model = gx.Chain(up=eqx.nn.Linear(64, 64, key=jax.random.key(0)), head=abs)
    >>> small = gx.select(model, eqx.nn.Linear).apply(gx.quantize)
    >>> gx.select(model, "up").nbytes, gx.select(small, "up").nbytes
    (16640, 4608)

    ```
    """
    if not isinstance(layer, eqx.nn.Linear) or "scalar" in (layer.in_features, layer.out_features):
        raise TypeError(
            f"quantize takes an eqx.nn.Linear between vectors; got {layer_name(layer)}. Select them "
            "by type: select(model, eqx.nn.Linear)."
        )
    largest = jnp.max(jnp.abs(layer.weight), axis=1)
    # A row of zeros has no scale; any will do.
    scale = jnp.where(largest == 0, 1, largest) / 127
    weight = jnp.round(layer.weight / scale[:, None]).astype(jnp.int8)
    return QuantizedLinear(weight, scale.astype(layer.weight.dtype), layer.bias)
