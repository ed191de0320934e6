"""Bottleneck adapters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..structure.skip import SkipConnection
from ..surgery.fields import update


def adapter(width: int, inner: int, *, act: Callable = jax.nn.gelu, key: Any) -> SkipConnection:
    """A small bottleneck with a way round it, to train in a frozen model: the identity at first.

    `adapter(x) == x + expand(act(reduce(x)))`, on a vector; weight and bias of `expand` start at zero.

    **Arguments:**

    - `width`: the size of a vector.
    - `inner`: its size inside the bottleneck.
    - `act`: the activation there.
    - `key`: a random key, for `reduce`.

    **Returns:**

    A `SkipConnection`, `(width,)` to `(width,)`.

    Source: Houlsby et al., Parameter-Efficient Transfer Learning for NLP, arXiv:1902.00751.

    **Example:**

    ```python
    >>> import graftax as gx, jax, jax.numpy as jnp
    >>> gx.adapter(4, 2, key=jax.random.key(0))(jnp.arange(4.0)).tolist()
    [0.0, 1.0, 2.0, 3.0]

    ```
    """
    k1, k2 = jax.random.split(key)
    expand = eqx.nn.Linear(inner, width, key=k2)
    zeros = {name: jnp.zeros_like(getattr(expand, name)) for name in ("weight", "bias")}
    return SkipConnection(
        reduce=eqx.nn.Linear(width, inner, key=k1), act=act, expand=update(expand, **zeros)
    )
