"""Embeddings for more tokens or longer inputs than they were trained for."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..structure.labels import layer_name
from ..surgery.fields import update


def resize_positions(
    weight: Float[Array, "old width"],
    size: int | tuple[int, int],
    *,
    prefix: int = 0,
    method: str = "cubic",
) -> Float[Array, "new width"]:
    """Position embeddings for another length, interpolated between the old ones.

    Numbers are those of PyTorch's `interpolate(mode=..., align_corners=False)`, which vision
    transformers are published with: half-pixel centres, cubic coefficient -0.75, ends repeated.

    **Arguments:**

    - `weight`: `(positions, width)`.
    - `size`: how many positions; or (rows, columns) for an image that was a square before.
    - `prefix`: how many positions at the front (class tokens) are kept as they are.
    - `method`: `"cubic"` or `"linear"`.

    **Returns:**

    `(prefix + size, width)`, or `(prefix + rows * columns, width)`.

    **Raises:**

    - `ValueError`: `size` is not positive, the old positions make no square, or the method is unknown.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv:2010.11929, section 3.2.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> gx.resize_positions(jnp.array([[0.0], [1.0]]), 4, method="linear")[:, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]

    ```
    """
    kept, grid = weight[:prefix], weight[prefix:]
    shape = (size,) if isinstance(size, int) else tuple(size)
    if min(shape) < 1:
        raise ValueError(f"The number of positions must be positive; got {size}.")
    old = (grid.shape[0],)
    if len(shape) == 2:
        side = round(grid.shape[0] ** 0.5)
        if side * side != grid.shape[0]:
            raise ValueError(
                f"{grid.shape[0]} positions make no square image. If {prefix} is not the number of class "
                "tokens, give it as prefix=..."
            )
        old = (side, side)
    if method not in _KERNELS:
        raise ValueError(f"method must be one of {', '.join(_KERNELS)}; got {method!r}.")
    resized = grid.reshape(*old, -1)
    for axis, (before, after) in enumerate(zip(old, shape, strict=True)):
        taps = jnp.asarray(_taps(before, after, method), weight.dtype)
        resized = jnp.moveaxis(jnp.tensordot(taps, resized, (1, axis)), 0, axis)
    return jnp.concatenate([kept, resized.reshape(-1, grid.shape[1])])


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - distance)


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


_KERNELS = {"cubic": (_cubic, 2), "linear": (_linear, 1)}
"""From a method to the weight of a neighbour by its distance, and how far neighbours are counted."""


def _taps(before: int, after: int, method: str) -> np.ndarray:
    """`(after, before)`: how much each old position counts for each new one."""
    kernel, reach = _KERNELS[method]
    centre = (np.arange(after) + 0.5) * before / after - 0.5
    taps = np.zeros((after, before))
    for offset in range(1 - reach, reach + 1):
        neighbour = np.floor(centre).astype(int) + offset
        inside = np.clip(neighbour, 0, before - 1)
        np.add.at(taps, (np.arange(after), inside), kernel(np.abs(centre - neighbour)))
    return taps


def expand_vocabulary(layer: Any, size: int, *, key: Any = None) -> Any:
    """The embedding, or the linear layer over a vocabulary, with rows for more tokens.

    The old tokens keep their rows; a new row is the mean of the old ones, plus a little noise of the
    size of their spread if a key is given.

    **Arguments:**

    - `layer`: an `eqx.nn.Embedding`, or an `eqx.nn.Linear` whose outputs are tokens.
    - `size`: how many tokens there shall be.
    - `key`: a random key.

    **Returns:**

    A layer of the same type.

    **Raises:**

    - `TypeError`: the layer is neither of the two.
    - `ValueError`: there would be fewer tokens than now.

    Source: Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> gx.expand_vocabulary(eqx.nn.Embedding(5, 4, key=jax.random.key(0)), 7).weight.shape
    (7, 4)

    ```
    """
    if not isinstance(layer, eqx.nn.Embedding | eqx.nn.Linear):
        raise TypeError(
            f"expand_vocabulary takes an eqx.nn.Embedding or eqx.nn.Linear; got {layer_name(layer)}."
        )
    more = size - layer.weight.shape[0]
    if more < 0:
        raise ValueError(f"There are {layer.weight.shape[0]} tokens already; got size={size}.")
    fields: dict[str, Any] = {"weight": _with_rows(layer.weight, more, key)}
    if isinstance(layer, eqx.nn.Embedding):
        return update(layer, **fields, num_embeddings=size)
    if layer.bias is not None:
        fields["bias"] = _with_rows(layer.bias, more, None)
    return update(layer, **fields, out_features=size)


def _with_rows(old: Array, more: int, key: Any) -> Array:
    new = jnp.broadcast_to(old.mean(axis=0), (more, *old.shape[1:]))
    if key is not None:
        new = new + 0.1 * old.std(axis=0, keepdims=True) * jax.random.normal(
            key, new.shape, old.dtype
        )
    return jnp.concatenate([old, new.astype(old.dtype)])
