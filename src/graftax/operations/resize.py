"""Embeddings for more tokens or longer inputs than they were trained for."""

import operator
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..structure.labels import layer_name
from ..structure.wrapper import Wrapper
from ..surgery.fields import update
from .inner import check_one_weight, computed_as, has_own_arrays, rewrapped

M = TypeVar("M")


def resize_positions(
    weight: Float[Array, "old width"],
    size: int | tuple[int, int],
    *,
    prefix: int = 0,
    method: str = "cubic",
    old: tuple[int, int] | None = None,
) -> Float[Array, "new width"]:
    """Position embeddings for another length, interpolated between the old ones.

    Numbers are those of PyTorch's `interpolate(mode=..., align_corners=False)`, which vision
    transformers are published with: half-pixel centres, cubic coefficient -0.75, ends repeated.

    **Arguments:**

    - `weight`: `(positions, width)`.
    - `size`: how many positions; or (rows, columns) for an image.
    - `prefix`: how many positions at the front (class tokens) are kept as they are.
    - `method`: `"cubic"` or `"linear"`.
    - `old`: (rows, columns) of the image before; a square if None.

    **Returns:**

    `(prefix + size, width)`, or `(prefix + rows * columns, width)`. Interpolated in float32 at least, in
    the dtype of `weight`.

    **Raises:**

    - `TypeError`: the weight is no matrix of floating-point numbers.
    - `ValueError`: `size` is not positive, the old positions make no such image or square, `prefix` is
        not a part of them, or the method is unknown.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv:2010.11929, section 3.2.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> gx.resize_positions(jnp.array([[0.0], [1.0]]), 4, method="linear")[:, 0].tolist()
    [0.0, 0.25, 0.75, 1.0]

    ```
    """
    _check_positions(weight, prefix)
    new = (size,) if isinstance(size, int) else tuple(size)
    if len(new) > 2 or min(new) < 1:
        raise ValueError(
            f"The number of positions must be positive, or rows and columns; got {size}."
        )
    if method not in _KERNELS:
        raise ValueError(f"method must be one of {', '.join(_KERNELS)}; got {method!r}.")
    grid = weight[prefix:]
    before = _old_shape(len(grid), prefix, old) if len(new) == 2 else (len(grid),)
    wide = jnp.promote_types(weight.dtype, jnp.float32)
    resized = grid.astype(wide).reshape(*before, -1)
    for axis, (count, after) in enumerate(zip(before, new, strict=True)):
        taps = jnp.asarray(_taps(count, after, method), wide)
        resized = jnp.moveaxis(jnp.tensordot(taps, resized, (1, axis)), 0, axis)
    resized = resized.reshape(-1, grid.shape[1]).astype(weight.dtype)
    return jnp.concatenate([weight[:prefix], resized])


def _check_positions(weight: Any, prefix: int) -> None:
    if (
        not eqx.is_array(weight)
        or weight.ndim != 2
        or not jnp.issubdtype(weight.dtype, jnp.floating)
    ):
        raise TypeError(
            "resize_positions takes a matrix (positions, width) of floating-point numbers; got "
            f"{eqx.tree_pformat(weight)}."
        )
    if not 0 <= prefix < len(weight):
        raise ValueError(
            f"prefix must leave some of the {len(weight)} positions to resize; got {prefix}."
        )


def _old_shape(count: int, prefix: int, old: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of the image before."""
    rows, columns = (round(count**0.5),) * 2 if old is None else old
    if rows * columns != count:
        image = "no square image" if old is None else f"no image of {rows} x {columns}"
        raise ValueError(
            f"{count} positions make {image}. If {prefix} is not the number of class tokens, give it as "
            "prefix=...; if the image was no square, give its rows and columns as old=..."
        )
    return rows, columns


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


def expand_vocabulary(layer: M, size: int, *, key: PRNGKeyArray | None = None) -> M:
    """The embedding, or the linear layer over a vocabulary, with rows for more tokens.

    The old tokens keep their rows; a new row is the mean of the old ones, and if a key is given a tenth
    of their standard deviation of noise. Where an embedding and a head are tied, apply it to both:
    `select(model, ["word", "head"]).apply(lambda layer: graftax.expand_vocabulary(layer, size))`.

    **Arguments:**

    - `layer`: an `eqx.nn.Embedding`, or an `eqx.nn.Linear` whose outputs are tokens; in wrappers or not.
    - `size`: how many tokens there shall be.
    - `key`: a random key.

    **Returns:**

    A layer of the same type.

    **Raises:**

    - `TypeError`: the layer is neither of the two; or a `LoRA` is around it, or it is quantised.
    - `ValueError`: there would be fewer tokens than now, or the weight is a stack of weights.

    Source: Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> gx.expand_vocabulary(eqx.nn.Embedding(5, 4, key=jax.random.key(0)), 7).weight.shape
    (7, 4)

    ```
    """
    inner: Any = _table(layer)
    more = operator.index(size) - inner.weight.shape[0]
    if more < 0:
        raise ValueError(f"There are {inner.weight.shape[0]} tokens already; got size={size}.")
    fields: dict[str, Any] = {"weight": _with_rows(inner.weight, more, key)}
    if isinstance(inner, eqx.nn.Embedding):
        return rewrapped(layer, update(inner, **fields, num_embeddings=size))
    if inner.bias is not None:
        fields["bias"] = _with_rows(inner.bias, more, None)
    return rewrapped(layer, update(inner, **fields, out_features=size))


def _table(layer: Any) -> Any:
    """The layer, out of its wrappers, whose rows are tokens. Raises `TypeError`, `ValueError`."""
    node = layer
    while isinstance(node, Wrapper):
        if has_own_arrays(node):
            raise TypeError(
                f"expand_vocabulary knows nothing of the arrays of a {type(node).__name__}: merge them "
                "into the layer first, as graftax.merge_lora does."
            )
        node = node.layer
    is_table = computed_as(node) is eqx.nn.Embedding
    if not is_table and not (computed_as(node) is eqx.nn.Linear and node.out_features != "scalar"):
        raise TypeError(
            f"expand_vocabulary takes an eqx.nn.Embedding or eqx.nn.Linear; got {layer_name(node)}."
        )
    check_one_weight(node, "lambda layer: graftax.expand_vocabulary(layer, size)")
    return node


def _with_rows(old: Array, more: int, key: PRNGKeyArray | None) -> Array:
    new = jnp.broadcast_to(old.mean(axis=0), (more, *old.shape[1:]))
    if key is not None:
        noise = jax.random.normal(key, new.shape, old.dtype)
        new = new + 0.1 * old.std(axis=0, keepdims=True) * noise
    return jnp.concatenate([old, new.astype(old.dtype)])
