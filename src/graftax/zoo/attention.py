"""Attention itself: what stands between the projections of its inputs and that of its output."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, PRNGKeyArray, Shaped


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

    rotary: Callable[..., Any] | None
    heads: int = eqx.field(static=True)
    kv_heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)
    # Files of before there were these have neither.
    # Not `dropout`: that label is the last layer of a branch, where adapters are put.
    drop: Callable[..., Any] | None = None
    head_size: int | None = eqx.field(static=True, default=None)

    def __init__(
        self,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_size: int | None = None,
        causal: bool = False,
        scale: float | None = None,
        rotary: Callable[..., Any] | None = None,
        dropout: float = 0.0,
    ):
        """**Arguments:**

        - `heads`: the number of query heads.
        - `kv_heads`: the number of key and value heads, a divisor of `heads`; `heads` if None.
        - `head_size`: the features of each head. If None, it is what each call makes of it, and heads
            that were pruned without a word of it here are heads of another size.
        - `causal`: whether a position sees only itself and what stands before it. Of fewer queries
            than keys, the last query stands at the last key.
        - `scale`: what scores are multiplied with; 1 / sqrt(head size) if None.
        - `rotary`: a layer for queries and keys of shape `(length, heads, head size)`, e.g.
            `RotaryEmbedding`.
        - `dropout`: the probability with which a query does not see a key, in training.

        **Raises:**

        - `ValueError`: `kv_heads` does not divide `heads`.
        """
        self.heads, self.kv_heads = heads, heads if kv_heads is None else kv_heads
        self.causal, self.scale, self.head_size = causal, scale, head_size
        self.rotary = rotary
        self.drop = eqx.nn.Dropout(dropout) if dropout else None

    def __check_init__(self) -> None:
        if self.kv_heads < 1 or self.heads < 1 or self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads; got {self.kv_heads} and {self.heads}.")

    def __call__(
        self,
        inputs: tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]],
        *,
        mask: Shaped[ArrayLike, "..."] | None = None,
        positions: Integer[ArrayLike, "..."] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "t out"]:
        """**Arguments:**

        - `inputs`: query `(t, heads * size)`, key and value `(s, kv_heads * size)`.
        - `mask`: True (or 1) where a key may be seen, False (or 0) where not: `(s,)`, `(t, s)` or
            `(heads, t, s)`. Other integers have no meaning here, and give NaN.
        - `positions`: the position of each key, `(s,)`, for rotary embeddings; 0, 1, ... if None. The
            queries are the last t of them.
        - `key`: a random key, for dropout in training.

        **Returns:**

        `(t, heads * size)`.

        **Raises:**

        - `ValueError`: inputs that are no such heads, an empty sequence, a mask or positions of
            another length, or with `causal` more queries than keys.
        - `TypeError`: a mask of floats.
        """
        self._check_inputs(*inputs)
        queries, keys, values = (
            x.reshape(x.shape[0], heads, -1)
            for x, heads in zip(inputs, (self.heads, self.kv_heads, self.kv_heads), strict=True)
        )
        if self.rotary is not None:
            queries, keys = self._turned(self.rotary, queries, keys, positions)
        shape = (self.heads, queries.shape[0], keys.shape[0])
        seen, is_mask = (None, None) if mask is None else _seen(jnp.asarray(mask), shape)
        if self.causal:
            seen = _before(seen, *shape[1:])
        y = self._attended(queries, keys, values, seen, key)
        y = y if is_mask is None else jnp.where(is_mask, y, jnp.nan)
        return y.reshape(y.shape[0], -1)

    def _check_inputs(self, query: Array, key: Array, value: Array) -> None:
        for name, x in {"query": query, "key": key, "value": value}.items():
            if x.ndim != 2 or x.shape[0] == 0:
                raise ValueError(
                    f"Attention takes a sequence of one token or more, (t, features); its {name} has "
                    f"shape {x.shape}. A batch goes through jax.vmap."
                )
            heads = self.heads if name == "query" else self.kv_heads
            size = self.head_size or query.shape[1] // self.heads
            if x.shape[1] != heads * size:
                raise ValueError(
                    f"The {name} has {x.shape[1]} features, which are not {heads} heads of {size}. "
                    "Where heads were taken away, say so here: update(heads=..., kv_heads=...)."
                )
        if key.shape[0] != value.shape[0]:
            raise ValueError(f"There are {key.shape[0]} keys, but {value.shape[0]} values.")
        if self.causal and query.shape[0] > key.shape[0]:
            raise ValueError(
                f"{query.shape[0]} queries and {key.shape[0]} keys: the first queries would see none."
            )

    def _turned(
        self, rotary: Callable[..., Any], queries: Array, keys: Array, positions: ArrayLike | None
    ) -> tuple[Array, Array]:
        t, s = queries.shape[0], keys.shape[0]
        if positions is None and not self.causal:
            return rotary(queries), rotary(keys)
        positions = jnp.arange(s) if positions is None else jnp.asarray(positions)
        if positions.shape != (s,) or t > s:
            raise ValueError(
                f"positions has shape {positions.shape} for {s} keys and {t} queries, which are the "
                f"last of them: it must be {(s,)}. A batch goes through jax.vmap."
            )
        # Some turn by the length of the whole, so the queries stand where they do in it.
        queries = jnp.pad(queries, ((s - t, 0), (0, 0), (0, 0)))
        return rotary(queries, positions)[s - t :], rotary(keys, positions)

    def _attended(
        self, queries: Array, keys: Array, values: Array, seen: Array | None, key: Array | None
    ) -> Float[Array, "t heads size"]:
        drop = self.drop
        if drop is None or (isinstance(drop, eqx.nn.Dropout) and drop.inference):
            return jax.nn.dot_product_attention(queries, keys, values, mask=seen, scale=self.scale)
        t, _, size = queries.shape
        queries = queries.reshape(t, self.kv_heads, -1, size)
        scores = jnp.einsum("tkgd,skd->kgts", queries, keys, preferred_element_type=jnp.float32)
        scores = scores * (size**-0.5 if self.scale is None else self.scale)
        if seen is not None:
            seen = jnp.broadcast_to(seen[0], (self.heads, *scores.shape[2:])).reshape(scores.shape)
            scores = jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
        weights = drop(jax.nn.softmax(scores), key=key).astype(values.dtype)
        y = jnp.einsum("kgts,skd->tkgd", weights, values)
        return y.reshape(t, self.heads, -1)


def _seen(mask: Array, shape: tuple[int, int, int]) -> tuple[Bool[Array, "1 h t s"], Array | None]:
    """A mask as four axes, and whether it is one: None where its type says so already."""
    heads, t, s = shape
    # An axis of one stands for all, except that of the keys.
    sizes = [{1, heads}, {1, t}, {s}][-mask.ndim :]
    if not 1 <= mask.ndim <= 3 or any(
        n not in allowed for n, allowed in zip(mask.shape, sizes, strict=True)
    ):
        raise ValueError(
            f"mask has shape {mask.shape}; for {t} queries and {s} keys it must be {(s,)}, {(t, s)} or "
            f"{shape}. A batch goes through jax.vmap."
        )
    is_mask = None
    if jnp.issubdtype(mask.dtype, jnp.integer):
        is_mask = ((mask == 0) | (mask == 1)).all()
    elif mask.dtype != bool:
        raise TypeError(
            f"mask must be booleans, or a tokenizer's 0 and 1; got {mask.dtype}. Of a mask that is added "
            "to the scores, take mask == 0."
        )
    return (mask != 0).reshape((1,) * (4 - mask.ndim) + mask.shape), is_mask


def _before(seen: Array | None, t: int, s: int) -> Bool[Array, "1 h t s"]:
    """What is seen, without the keys that stand after a query; the last query stands at the last key."""
    causal = jnp.tri(t, s, s - t, dtype=bool)[None, None]
    return causal if seen is None else causal & seen
