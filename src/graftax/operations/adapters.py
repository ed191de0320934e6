"""Bottleneck adapters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

from ..structure.skip import SkipConnection
from ..surgery.fields import update


def adapter(
    width: int,
    inner: int,
    *,
    act: Callable[..., Any] = jax.nn.gelu,
    dtype: DTypeLike | None = None,
    key: PRNGKeyArray,
) -> SkipConnection:
    """A small bottleneck with a way round it, to train in a frozen model: the identity at first.

    `adapter(x) == x + expand(act(reduce(x)))`, on a vector; weight and bias of `expand` start at zero.

    **Arguments:**

    - `width`: the size of a vector.
    - `inner`: its size inside the bottleneck.
    - `act`: the activation there.
    - `dtype`: of the parameters, that of the vectors it will be given; JAX's default if None.
    - `key`: a random key, for `reduce`.

    **Returns:**

    A `SkipConnection`, `(width,)` to `(width,)`.

    **Raises:**

    - `ValueError`: a size is not positive.

    Source: Houlsby et al., Parameter-Efficient Transfer Learning for NLP, arXiv:1902.00751.

    **Example:**

    ```python
    >>> import graftax as gx, jax, jax.numpy as jnp
    >>> gx.adapter(4, 2, key=jax.random.key(0))(jnp.arange(4.0)).tolist()
    [0.0, 1.0, 2.0, 3.0]

    ```
    """
    if width < 1 or inner < 1:
        raise ValueError(f"The sizes of an adapter must be positive; got {width} and {inner}.")
    k1, k2 = jax.random.split(key)
    expand = eqx.nn.Linear(inner, width, dtype=dtype, key=k2)
    zeros = {name: jnp.zeros_like(getattr(expand, name)) for name in ("weight", "bias")}
    return SkipConnection(
        reduce=eqx.nn.Linear(width, inner, dtype=dtype, key=k1),
        act=act,
        expand=update(expand, **zeros),
    )
