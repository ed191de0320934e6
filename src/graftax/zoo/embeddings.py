"""What turns ids, positions and types of tokens into vectors.

One rule for all of them: a number that has no row gives NaN, compiled or not. JAX would take a row near
it, or count a negative one from the end; PyTorch refuses it, which a compiled program cannot.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, PRNGKeyArray


def rows(weight: Array, index: Any, name: str) -> Array:
    """`weight[index]`, NaN for an index that has no row. `name` says in errors what the index is.

    Raises `TypeError` if these are no integers.
    """
    dtype = jnp.result_type(index)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(
            f"{name} must be integers; got {dtype}. Rows of a table have whole numbers."
        )
    return weight.at[index].get(mode="fill", wrap_negative_indices=False)


def _rows_of_sequence(weight: Array, x: Any, index: Any, name: str) -> Array:
    """`rows`, one for each element of the sequence x."""
    if jnp.shape(index) != (x.shape[0],):
        raise ValueError(
            f"{name} must have shape {(x.shape[0],)}, one for each element of the sequence; got "
            f"{jnp.shape(index)}. A batch goes through jax.vmap."
        )
    return rows(weight, jnp.asarray(index), name)


class Embedding(eqx.nn.Embedding):
    """A learnt vector for each token: `Embedding(...)(id) == weight[id]`, NaN for an id out of range.

    Source: `torch.nn.Embedding`, which refuses such an id.

    **Example:**

    ```python
    >>> import graftax as gx, jax
    >>> layer = gx.zoo.Embedding(9, 4, key=jax.random.key(0))
    >>> [bool(jax.numpy.isnan(layer(id)).any()) for id in (0, 8, 9, -1)]
    [False, False, True, True]

    ```
    """

    padding: int | None = eqx.field(static=True, default=None)

    def __init__(
        self,
        num_embeddings: int | None = None,
        embedding_size: int | None = None,
        weight: Float[Array, "tokens width"] | None = None,
        dtype: Any = None,
        *,
        padding: int | None = None,
        key: PRNGKeyArray | None = None,
    ):
        """**Arguments:**

        - `num_embeddings`, `embedding_size`: the number of tokens, and the size of each vector.
        - `weight`: the table `(tokens, width)` itself, instead of these and a key.
        - `dtype`: of the table.
        - `padding`: the id of the padding token, whose vector gets no gradient here; None if all do.
        - `key`: a random key.

        **Raises:**

        - `ValueError`: `padding` is no id, or neither sizes and key nor a weight were given.
        """
        super().__init__(num_embeddings, embedding_size, weight, dtype, key=key)
        self.padding = padding

    def __check_init__(self) -> None:
        if self.padding is not None and not 0 <= self.padding < self.num_embeddings:
            raise ValueError(
                f"padding must be an id from 0 to {self.num_embeddings - 1}; got {self.padding}."
            )

    def __call__(
        self, x: Integer[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, " width"]:
        """**Arguments:**

        - `x`: one id.
        - `key`: not used.

        **Returns:**

        `(width,)`; NaN if the id is below 0, or not below the number of tokens.

        **Raises:**

        - `ValueError`: several ids.
        - `TypeError`: the id is no integer.
        """
        del key
        if jnp.shape(x) != ():
            raise ValueError(
                f"Embedding takes one id; got shape {jnp.shape(x)}. The ids of one example have shape "
                "(t,); a batch of them goes through jax.vmap."
            )
        row = rows(self.weight, x, "Token ids")
        if self.padding is None:
            return row
        return jnp.where(jnp.equal(x, self.padding), jax.lax.stop_gradient(row), row)


class PositionEmbedding(eqx.Module):
    """A learnt vector for each position: of an input of length t, the first t rows of `weight`."""

    weight: Float[Array, "length width"]
    exact: bool = eqx.field(static=True, default=False)

    def __init__(self, length: int, width: int, *, exact: bool = False, key: PRNGKeyArray):
        """**Arguments:**

        - `length`: the largest number of positions.
        - `width`: the size of each vector.
        - `exact`: whether a shorter sequence is refused as well, as by positions in an image.
        - `key`: a random key.
        """
        self.weight = 0.02 * jax.random.normal(key, (length, width))
        self.exact = exact

    def __call__(self, x: Any, *, positions: Integer[ArrayLike, "..."] | None = None) -> Any:
        """**Arguments:**

        - `x`: any array whose first axis is the sequence.
        - `positions`: the position of each element, `(t,)`; 0, 1, ... if None.

        **Returns:**

        `(t, width)`; NaN where there is no such position.

        **Raises:**

        - `ValueError`: the sequence is longer than there are positions, or `positions` is of another
            length.
        - `TypeError`: the positions are no integers.
        """
        length = self.weight.shape[0]
        if positions is not None:
            return _rows_of_sequence(self.weight, x, positions, "positions")
        if x.shape[0] > length:
            raise ValueError(f"A sequence of {x.shape[0]} is longer than the {length} positions.")
        if self.exact and x.shape[0] < length:
            raise ValueError(
                f"A sequence of {x.shape[0]} has fewer elements than there are positions, {length}."
            )
        return self.weight[: x.shape[0]]


class TokenTypeEmbedding(eqx.Module):
    """A learnt vector for each token by its type (first or second sentence): row 0 if none is given."""

    weight: Float[Array, "types width"]

    def __init__(self, types: int, width: int, *, key: PRNGKeyArray):
        """**Arguments:**

        - `types`: how many types there are.
        - `width`: the size of each vector.
        - `key`: a random key.
        """
        self.weight = 0.02 * jax.random.normal(key, (types, width))

    def __call__(self, x: Any, *, token_types: Integer[ArrayLike, "..."] | None = None) -> Any:
        """**Arguments:**

        - `x`: any array whose first axis is the sequence.
        - `token_types`: the type of each token, `(t,)`.

        **Returns:**

        `(t, width)`; NaN where there is no such type.

        **Raises:**

        - `ValueError`: `token_types` is of another length.
        - `TypeError`: the types are no integers.
        """
        token_types = jnp.zeros(x.shape[0], int) if token_types is None else token_types
        return _rows_of_sequence(self.weight, x, token_types, "token_types")


class ClassToken(eqx.Module):
    """Learnt tokens put before the sequence."""

    weight: Float[Array, "tokens width"]

    def __init__(self, width: int, tokens: int = 1, *, key: PRNGKeyArray):
        """**Arguments:**

        - `width`: the size of a token.
        - `tokens`: how many there are.
        - `key`: a random key.
        """
        self.weight = 0.02 * jax.random.normal(key, (tokens, width))

    def __call__(self, x: Float[Array, "t width"]) -> Float[Array, "longer width"]:
        """`(t, width)` to `(tokens + t, width)`."""
        return jnp.concatenate([self.weight.astype(x.dtype), x])
