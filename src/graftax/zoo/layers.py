"""The few layers that the zoo's families share and Equinox lacks. All work on one example, unbatched."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..paths.tree import INNER, Level, shallow_copy
from ..structure.calling import call_child, call_layer, declared_by_any, is_stateful
from ..structure.labels import as_layers
from ..structure.wrappers import Wrapper


class DotProductAttention(eqx.Module):
    """Scaled dot-product attention as an `op`: of the tuple (query, key, value).

    `Parallel(query=..., key=..., value=..., op=DotProductAttention(heads))` is attention. It has no
    parameters; with `kv_heads` fewer than `heads`, each key and value serves several queries.

    Source: Vaswani et al., arXiv:1706.03762; grouped queries: Ainslie et al., arXiv:2305.13245.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> q = k = v = jnp.ones((5, 8))
    >>> gx.zoo.DotProductAttention(heads=2)((q, k, v)).shape
    (5, 8)

    ```
    """

    rotary: Callable | None
    heads: int = eqx.field(static=True)
    kv_heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)

    def __init__(
        self,
        heads: int,
        *,
        kv_heads: int | None = None,
        causal: bool = False,
        scale: float | None = None,
        rotary: Callable | None = None,
    ):
        """**Arguments:**

        - `heads`: the number of query heads.
        - `kv_heads`: the number of key and value heads, a divisor of `heads`; `heads` if None.
        - `causal`: whether a position sees only itself and what stands before it.
        - `scale`: what scores are multiplied with; 1 / sqrt(head size) if None.
        - `rotary`: a layer for queries and keys of shape `(length, heads, head size)`, e.g.
            `RotaryEmbedding`.

        **Raises:**

        - `ValueError`: `kv_heads` does not divide `heads`.
        """
        kv_heads = heads if kv_heads is None else kv_heads
        if heads % kv_heads:
            raise ValueError(f"kv_heads must divide heads; got {kv_heads} and {heads}.")
        self.heads, self.kv_heads, self.causal, self.scale = heads, kv_heads, causal, scale
        self.rotary = rotary

    def __call__(
        self,
        inputs: tuple[Float[Array, "t q"], Float[Array, "s k"], Float[Array, "s v"]],
        *,
        mask: Bool[Array, "..."] | None = None,
        positions: Int[Array, " t"] | None = None,
    ) -> Float[Array, "t out"]:
        """**Arguments:**

        - `inputs`: query `(t, heads * size)`, key and value `(s, kv_heads * size)`.
        - `mask`: True where a key may be seen: `(s,)`, `(t, s)` or `(heads, t, s)`.
        - `positions`: the position of each token, for rotary embeddings; 0, 1, ... if None.

        **Returns:**

        `(t, heads * size)`.
        """
        query, key, value = inputs
        query = query.reshape(query.shape[0], self.heads, -1)
        key, value = (x.reshape(x.shape[0], self.kv_heads, -1) for x in (key, value))
        if self.rotary is not None:
            query, key = self.rotary(query, positions), self.rotary(key, positions)
        if mask is not None:
            mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        y = jax.nn.dot_product_attention(
            query, key, value, mask=mask, is_causal=self.causal, scale=self.scale
        )
        return y.reshape(y.shape[0], -1)


class PositionEmbedding(eqx.Module):
    """A learnt vector for each position: of an input of length t, the first t rows of `weight`."""

    weight: Float[Array, "length width"]

    def __init__(self, length: int, width: int, *, key: Any):
        """**Arguments:**

        - `length`: the largest number of positions.
        - `width`: the size of each vector.
        - `key`: a random key.
        """
        self.weight = 0.02 * jax.random.normal(key, (length, width))

    def __call__(self, x: Any, *, positions: Int[Array, " t"] | None = None) -> Any:
        """**Arguments:**

        - `x`: any array whose first axis is the sequence.
        - `positions`: the position of each element; 0, 1, ... if None.

        **Raises:**

        - `ValueError`: the sequence is longer than there are positions.
        """
        if x.shape[0] > self.weight.shape[0]:
            raise ValueError(
                f"A sequence of {x.shape[0]} is longer than the {self.weight.shape[0]} positions."
            )
        return self.weight[: x.shape[0]] if positions is None else self.weight[positions]


class TokenTypeEmbedding(eqx.Module):
    """A learnt vector for each token by its type (first or second sentence): row 0 if none is given."""

    weight: Float[Array, "types width"]

    def __init__(self, types: int, width: int, *, key: Any):
        """**Arguments:**

        - `types`: how many types there are.
        - `width`: the size of each vector.
        - `key`: a random key.
        """
        self.weight = 0.02 * jax.random.normal(key, (types, width))

    def __call__(self, x: Any, *, token_types: Int[Array, " t"] | None = None) -> Any:
        """**Arguments:**

        - `x`: any array whose first axis is the sequence.
        - `token_types`: the type of each token.
        """
        token_types = jnp.zeros(x.shape[0], int) if token_types is None else token_types
        return self.weight[token_types]


class ClassToken(eqx.Module):
    """Learnt tokens put before the sequence."""

    weight: Float[Array, "tokens width"]

    def __init__(self, width: int, tokens: int = 1, *, key: Any):
        """**Arguments:**

        - `width`: the size of a token.
        - `tokens`: how many there are.
        - `key`: a random key.
        """
        self.weight = 0.02 * jax.random.normal(key, (tokens, width))

    def __call__(self, x: Float[Array, "t width"]) -> Float[Array, "longer width"]:
        """`(t, width)` to `(tokens + t, width)`."""
        return jnp.concatenate([self.weight.astype(x.dtype), x])


class Take(eqx.Module):
    """One element along the first axis: `Take(0)(x) == x[0]`."""

    index: int = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        """`(t, ...)` to `(...)`."""
        return x[self.index]


class QuickGELU(eqx.Module):
    """CLIP's and ViT's cheap GELU: `x * sigmoid(1.702 * x)`.

    Source: Hendrycks and Gimpel, arXiv:1606.08415, section 2.
    """

    def __call__(self, x: Array) -> Array:
        """The shape stays."""
        return x * jax.nn.sigmoid(1.702 * x)


class Residual(Wrapper):
    """A `SkipConnection` around one layer that does not show in paths: `x + layer(before(x))`.

    So the parts of a block's attention are `encoder.3.attention.query` whether the block has a norm
    before it or not. What runs before has its own label at the same place: `attention.norm1`.

    Source: Xiong et al., On Layer Normalization in the Transformer Architecture, arXiv:2002.04745.
    """

    before: tuple

    def __init__(self, layer: Callable, /, **before: Callable):
        """**Arguments:**

        - `layer`: what the input is added to.
        - `before`: labelled layers that run before it, e.g. `norm1=...`, inside the residual.
        """
        super().__init__(layer)
        self.before = as_layers(type(self), (), before)
        type(self)._check_names(self, before)

    def _run(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        y = x
        for label, each in zip(self._labels(), self.before, strict=True):
            y, state = call_child(self, label, each, (y,), state, key, context)
        y, state = call_layer(self.layer, (y,), state, key, context)
        return x + y, state

    def is_stateful(self) -> bool:
        """Whether any layer inside keeps an Equinox state."""
        return any(is_stateful(layer) for layer in (*self.before, self.layer))

    def _gx_declared(self) -> frozenset[str] | None:
        return declared_by_any((*self.before, self.layer))

    def _labels(self) -> tuple[str, ...]:
        return getattr(self.before, "_fields", ())

    def __getattr__(self, name: str) -> Any:
        before = self.__dict__.get("before", ())
        if name in getattr(before, "_fields", ()):
            return getattr(before, name)
        return super().__getattr__(name)

    def _gx_level(self) -> Level:
        keys: tuple[Hashable, ...] = (INNER, *self._labels())
        return Level(keys, (self.__dict__.get("layer"), *self.before), 0)

    def _gx_replace(self, new: Mapping[int, Any]) -> Any:
        children = [self.layer, *self.before]
        for i, child in new.items():
            children[i] = child
        layer, *rest = children
        before = type(self.before)(*rest) if rest else ()
        return shallow_copy(self, layer=layer, before=before)
