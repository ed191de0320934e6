"""The few layers that the zoo's families share and Equinox lacks. All work on one example, unbatched."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray


class Take(eqx.Module):
    """One element along the first axis: `Take(0)(x) == x[0]`."""

    index: int = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        """`(t, ...)` to `(...)`. Raises `ValueError` if there is no such element."""
        # JAX would take the one nearest to it.
        if not -x.shape[0] <= self.index < x.shape[0]:
            raise ValueError(f"Take({self.index}) was given a sequence of {x.shape[0]}.")
        return x[self.index]


class DropPath(eqx.nn.Dropout):
    """Stochastic depth: in training all of its input or, with probability `p`, nothing.

    What is left is divided by `1 - p`, so that the mean stays. The last layer inside a residual: the
    block is then left out for this example.

    Source: Huang et al., Deep Networks with Stochastic Depth, arXiv:1603.09382.

    **Example:**

    ```python
    >>> import graftax as gx, jax, jax.numpy as jnp
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> [gx.zoo.DropPath(0.5)(jnp.ones(2), key=key).tolist() for key in keys]
    [[0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]

    ```
    """

    def __init__(self, p: float = 0.5, inference: bool = False):
        """**Arguments:**

        - `p`: the probability of nothing.
        - `inference`: whether all of the input goes through.
        """
        super().__init__(p, inference)

    def __call__(
        self,
        x: Array,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
    ) -> Array:
        """**Arguments:**

        - `x`: any array.
        - `key`: a random key.
        - `inference`: instead of the mode of the layer.
        - `deterministic`: Equinox's older name of it.

        **Returns:**

        `x / (1 - p)`, or zeros; in inference `x`.

        **Raises:**

        - `RuntimeError`: no key in training.
        """
        one = jnp.ones((), x.dtype)
        return x * super().__call__(one, key=key, inference=inference, deterministic=deterministic)


class QuickGELU(eqx.Module):
    """CLIP's and ViT's cheap GELU: `x * sigmoid(1.702 * x)`.

    Source: Hendrycks and Gimpel, arXiv:1606.08415, section 2.
    """

    def __call__(self, x: Array) -> Array:
        """The shape stays."""
        return x * jax.nn.sigmoid(1.702 * x)
