"""Low-rank adapters."""

import operator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..structure.call import Call
from ..structure.wrapper import Wrapper, unwrap
from ..surgery.fields import update
from ..surgery.selecting import select
from ..surgery.tied import edited_apart
from .beside import Beside, runs_beside, weight_of
from .inner import rewrapped
from .quantization import QuantizedLinear

M = TypeVar("M")


class LoRA(Wrapper):
    """A layer with a low-rank path beside it: `layer(x) + alpha / rank * B(A(x))`.

    That is the layer with the weight `W + alpha / rank * (B @ A)`, which is never formed: over a linear
    layer, convolution or embedding, whatever wrappers are in between, the path is two small layers.
    `B` starts at zero, so the model computes what it computed before. Over a `QuantizedLinear` this is
    QLoRA; the output keeps the dtype that the layer gives.

    The wrapper is transparent: `model.query.weight` is still the frozen weight, `model.query.lora_a` and
    `.lora_b` are new. Train these alone with `select(model, "{lora_a,lora_b}").partition()`.

    For a variant, override `changed`, which says what the weight becomes. The call and `merge_lora` both
    use it; the call of a variant, and of a layer of your own, forms the weight.

    Source: Hu et al., LoRA, arXiv:2106.09685; Dettmers et al., QLoRA, arXiv:2305.14314.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax, jax.numpy as jnp
    >>> linear = eqx.nn.Linear(6, 4, key=jax.random.key(0))
    >>> adapted = gx.LoRA(linear, rank=2, key=jax.random.key(1))
    >>> bool((adapted(jnp.ones(6)) == linear(jnp.ones(6))).all())
    True
    >>> gx.select(adapted, "{lora_a,lora_b}").size
    20

    ```
    """

    lora_a: Float[Array, "rank in"]
    lora_b: Float[Array, "out rank"]
    alpha: float = eqx.field(static=True)

    def __init__(
        self, layer: Any, rank: int, *, alpha: float | int | None = None, key: PRNGKeyArray
    ):
        """**Arguments:**

        - `layer`: a layer with a `weight` of shape `(out, in, ...)`, e.g. `eqx.nn.Linear`, a convolution,
            an embedding or a `QuantizedLinear`; also inside wrappers. Of stacked ones, each:
            `eqx.filter_vmap(lambda layer, key: graftax.LoRA(layer, rank, key=key))(layer, keys)`.
        - `rank`: the rank of the change, 1 or more.
        - `alpha`: the scale of the change, over `rank`; `rank` itself if None.
        - `key`: a random key, for `A`, drawn uniformly from ±1/sqrt(in).

        **Raises:**

        - `TypeError`: the layer has no floating-point `weight` of at least two axes.
        - `ValueError`: `rank` is less than 1, or the weight is a stack of weights.
        """
        super().__init__(layer)
        if operator.index(rank) < 1:
            raise ValueError(f"The rank of LoRA must be at least 1; got {rank}.")
        weight = weight_of(unwrap(layer))
        out, inner = weight.shape[0], weight.size // max(weight.shape[0], 1)
        bound = max(inner, 1) ** -0.5
        self.lora_a = jax.random.uniform(key, (rank, inner), weight.dtype, -bound, bound)
        self.lora_b = jnp.zeros((out, rank), weight.dtype)
        self.alpha = float(rank if alpha is None else alpha)

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied with."""
        return self.alpha / self.lora_a.shape[0]

    def changed(self, weight: Float[Array, "..."]) -> Float[Array, "..."]:
        """What the weight of the layer becomes: `W + scale * (B @ A)`. A variant overrides this.

        **Arguments:**

        - `weight`: `(out, in, ...)`, in float32 at least; of a quantised layer the dequantised one.

        **Returns:**

        The same shape and dtype.
        """
        change = self.lora_b.astype(weight.dtype) @ self.lora_a.astype(weight.dtype)
        return weight + self.scale * change.reshape(weight.shape)

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the layer gives, and beside it the path; or what it gives with the changed weight."""
        inner = unwrap(self.layer)
        if type(self).changed is not LoRA.changed or not runs_beside(inner):
            return call(self.merged(), *inputs)
        beside = Beside(inner, self.lora_a, self.lora_b, self.scale)
        # In the place of the layer, so that the wrappers do with both what they do with one.
        return call(rewrapped(self.layer, beside), *inputs)

    def merged(self) -> Any:
        """The layer with the changed weight: the same function without the adapter.

        The sum is rounded once, to the dtype of the weight. A `QuantizedLinear` becomes an
        `eqx.nn.Linear`, because the sum is on no grid of 8 bits; `graftax.quantize` rounds it again.
        """
        inner: Any = unwrap(self.layer)
        if isinstance(inner, QuantizedLinear):
            inner = inner.dequantized()
        wide = jnp.promote_types(inner.weight.dtype, jnp.float32)
        weight = self.changed(inner.weight.astype(wide)).astype(inner.weight.dtype)
        return rewrapped(self.layer, update(inner, weight=weight))


def merge_lora(model: M) -> M:
    """The model with every `LoRA` merged into the weight it changes: the same function, no adapters.

    **Arguments:**

    - `model`: any pytree.

    **Returns:**

    The model. What is merged in float16 or bfloat16 is rounded to it, once. Over a `QuantizedLinear` an
    `eqx.nn.Linear` of the dequantised weight is left, which `graftax.quantize` makes small again. A weight
    that is tied to another and changed is tied no more.

    **Raises:**

    - `NoMatchError`: there is no `LoRA` in it.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> linear = eqx.nn.Linear(6, 4, key=jax.random.key(0))
    >>> adapted = gx.Chain(up=gx.LoRA(linear, rank=2, key=jax.random.key(1)))
    >>> type(gx.merge_lora(adapted).up).__name__
    'Linear'

    ```
    """
    return edited_apart(model, lambda base: select(base, LoRA).apply(lambda lora: lora.merged()))
