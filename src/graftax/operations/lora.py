"""Low-rank adapters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..structure.call import Call
from ..structure.labels import layer_name
from ..structure.wrapper import Wrapper, unwrap
from ..surgery.fields import update
from ..surgery.selecting import select
from ..surgery.tied import edited_apart


class LoRA(Wrapper):
    """A layer plus a low-rank change of its weight: the layer with `W + alpha / rank * (B @ A)`.

    `B` starts at zero, so the model computes what it computed before. The wrapper is transparent:
    `model.query.weight` is still the frozen weight, `model.query.lora_a` and `.lora_b` are new.
    Train these alone with `select(model, "{lora_a,lora_b}").mask()`.

    Source: Hu et al., LoRA, arXiv:2106.09685.

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

    def __init__(self, layer: Any, rank: int, *, alpha: float | int | None = None, key: Any):
        """**Arguments:**

        - `layer`: a layer with a `weight` of shape `(out, in, ...)`, e.g. `eqx.nn.Linear`, a convolution
            or an embedding; also inside wrappers.
        - `rank`: the rank of the change, 1 or more.
        - `alpha`: the scale of the change, over `rank`; `rank` itself if None.
        - `key`: a random key, for `A`, drawn uniformly from ±1/sqrt(in).

        **Raises:**

        - `TypeError`: the layer has no floating-point `weight` of at least two axes.
        - `ValueError`: `rank` is less than 1.
        """
        super().__init__(layer)
        weight: Any = getattr(unwrap(layer), "weight", None)
        if not eqx.is_inexact_array(weight) or weight.ndim < 2:
            raise TypeError(
                "LoRA needs a layer with a floating-point weight of at least two axes; "
                f"{layer_name(unwrap(layer))} has none."
            )
        if rank < 1:
            raise ValueError(f"The rank of LoRA must be at least 1; got {rank}.")
        out, inner = weight.shape[0], weight[0].size
        bound = inner**-0.5
        self.lora_a = jax.random.uniform(key, (rank, inner), weight.dtype, -bound, bound)
        self.lora_b = jnp.zeros((out, rank), weight.dtype)
        self.alpha = float(rank if alpha is None else alpha)

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied with."""
        return self.alpha / self.lora_a.shape[0]

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the layer gives with the changed weight."""
        if type(self.layer) is eqx.nn.Linear and "scalar" not in (
            self.layer.in_features,
            self.layer.out_features,
        ):
            (x,) = inputs
            return call(self.layer, x) + self.scale * (self.lora_b @ (self.lora_a @ x))
        return call(self.merged(), *inputs)

    def merged(self) -> Any:
        """The layer with the change added to its weight: the same function without the adapter."""
        inner = unwrap(self.layer)
        change = self.scale * (self.lora_b @ self.lora_a)
        weight = inner.weight + change.reshape(inner.weight.shape).astype(inner.weight.dtype)
        return update(self.layer, weight=weight)


def merge_lora(model: Any) -> Any:
    """The model with every `LoRA` merged into the weight it changes: the same function, no adapters.

    **Arguments:**

    - `model`: any pytree.

    **Returns:**

    The model. What is merged in float16 or bfloat16 is rounded to it. A weight that is tied to another
    and changed is tied no more.

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
    return edited_apart(model, _without_adapters)


def _without_adapters(model: Any) -> Any:
    model = select(model, LoRA).apply(LoRA.merged)
    while around_others := select(model, LoRA):
        model = around_others.apply(LoRA.merged)
    return model
