"""Linear layers whose weights are stored as small integers."""

from typing import Any, TypeVar, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int8, Num, PRNGKeyArray

from ..structure.labels import layer_name
from ..structure.wrapper import Wrapper, unwrap
from .inner import check_one_weight, computed_as, rewrapped

W = TypeVar("W", bound=Wrapper)


class QuantizedLinear(eqx.Module):
    """A linear layer with int8 weights: `y = scale * (weight @ x) + bias`, one scale an output.

    Made by `graftax.quantize`. The weights take a quarter of the bytes of float32. The output has
    the dtype of the input; the product is summed, scaled and shifted in float32 at least.

    Source: Dettmers et al., LLM.int8(), arXiv:2208.07339, section 2 (absmax quantisation by row).
    """

    weight: Int8[Array, "out in"]
    scale: Float[Array, " out"]
    bias: Float[Array, " out"] | None

    @property
    def in_features(self) -> int:
        """The size of the input."""
        return self.weight.shape[-1]

    @property
    def out_features(self) -> int:
        """The size of the output."""
        return self.weight.shape[-2]

    def __call__(
        self, x: Num[Array | np.ndarray, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " out"]:
        """`(in,)` to `(out,)`. `key` is ignored, as by `eqx.nn.Linear`.

        Raises `ValueError` for another shape, and `TypeError` if the weight is no longer int8: what
        changes weights, as `eqx.nn.WeightNorm` does, would be scaled twice.
        """
        del key
        if jnp.shape(x) != (self.in_features,):
            raise ValueError(
                f"QuantizedLinear takes a vector of shape {(self.in_features,)}; got {jnp.shape(x)}. "
                "Several go through jax.vmap."
            )
        if self.weight.dtype != jnp.int8:
            raise TypeError(
                f"The weight of a QuantizedLinear is int8; this one has become {self.weight.dtype}. What "
                "changes or casts weights cannot stand around it: quantise last, or dequantise first."
            )
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else self.scale.dtype
        # In float16 a sum of 127 times the input overflows early.
        summed = jnp.promote_types(dtype, jnp.float32)
        y = jnp.matmul(self.weight.astype(dtype), x.astype(dtype), preferred_element_type=summed)
        y = y * self.scale.astype(summed)
        return (y if self.bias is None else y + self.bias.astype(summed)).astype(dtype)

    def dequantized(self) -> eqx.nn.Linear:
        """The `eqx.nn.Linear` with the same, rounded weights as floating-point numbers."""
        out, inner = self.weight.shape
        like = eqx.filter_eval_shape(
            eqx.nn.Linear, inner, out, use_bias=self.bias is not None, key=jax.random.key(0)
        )
        weight = self.weight.astype(self.scale.dtype) * self.scale[:, None]
        linear = eqx.tree_at(lambda layer: layer.weight, like, weight)
        if self.bias is None:
            return linear
        return eqx.tree_at(lambda layer: layer.bias, linear, self.bias)


@overload
def quantize(layer: eqx.nn.Linear) -> QuantizedLinear: ...
@overload
def quantize(layer: W) -> W: ...
def quantize(layer: eqx.nn.Linear | Wrapper) -> QuantizedLinear | Wrapper:
    """The linear layer with its weight rounded to int8: off by at most half a step of each row.

    A step is the largest weight of the row, over 127. Wrappers stay around the layer, a `LoRA` with
    its matrices as they are (QLoRA, arXiv:2305.14314).

    **Arguments:**

    - `layer`: an `eqx.nn.Linear` with a weight of shape `(out, in)`, in wrappers or not. Of stacked
        ones, `eqx.filter_vmap(graftax.quantize)(layer)`.

    **Returns:**

    A `QuantizedLinear`, its scales in float32 at least; in the wrappers.

    **Raises:**

    - `TypeError`: the layer is no `eqx.nn.Linear` of numbers of features, or a subclass that computes
        something else.
    - `ValueError`: the weight is a stack of weights, or not finite. Where that is not known, because
        a function is traced, rows that are not finite give NaN.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> model = gx.Chain(up=eqx.nn.Linear(64, 64, key=jax.random.key(0)), head=abs)
    >>> small = gx.select(model, eqx.nn.Linear).apply(gx.quantize)
    >>> gx.select(model, "up").nbytes, gx.select(small, "up").nbytes
    (16640, 4608)

    ```
    """
    return rewrapped(layer, _quantized(unwrap(layer)))


def _quantized(layer: Any) -> QuantizedLinear:
    if computed_as(layer) is not eqx.nn.Linear or "scalar" in (
        layer.in_features,
        layer.out_features,
    ):
        raise TypeError(
            f"quantize takes an eqx.nn.Linear between vectors; got {layer_name(layer)}. Select them "
            "by type: select(model, eqx.nn.Linear)."
        )
    _check_weight(layer)
    wide = jnp.promote_types(layer.weight.dtype, jnp.float32)
    weight = layer.weight.astype(wide)
    step = jnp.max(jnp.abs(weight), axis=1, initial=0) / 127
    # A row of zeros has no step, and one of numbers near 1e-37 none that is kept; any will do. The
    # scale stays wide: rounded to bfloat16, it would be off by more than the weights are.
    scale = jnp.where(step < jnp.finfo(wide).tiny, 1, step)
    return QuantizedLinear(jnp.round(weight / scale[:, None]).astype(jnp.int8), scale, layer.bias)


def _check_weight(layer: eqx.nn.Linear) -> None:
    weight = layer.weight
    if not eqx.is_array(weight) or not jnp.issubdtype(weight.dtype, jnp.floating):
        raise TypeError(f"quantize takes a floating-point weight; got {weight!r}.")
    check_one_weight(layer, "graftax.quantize")
    if not isinstance(weight, Tracer) and not jnp.isfinite(weight).all():
        rows = jnp.flatnonzero(~jnp.isfinite(weight).all(axis=1)).tolist()
        raise ValueError(f"Weights must be finite to be quantised; those of row {rows[0]} are not.")
