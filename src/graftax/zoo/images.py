"""Layers that refuse the images which PyTorch refuses, and JAX does not: too small, or of another size.

JAX gives an empty array where a window is larger than the image, and the mean of it is NaN.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray


def check_image(layer: str, x: Any, channels: int | None = None) -> None:
    """Raise `ValueError` unless x is `(channels, h, w)`, with so many channels if they are given."""
    shape = jnp.shape(x)
    if len(shape) != 3:
        raise ValueError(
            f"{layer} takes one image, (channels, h, w); got shape {shape}. A batch goes through jax.vmap."
        )
    if channels is not None and shape[0] != channels:
        last = " Here they seem to stand last: jnp.moveaxis(image, -1, 0)." * (shape[2] == channels)
        raise ValueError(
            f"{layer} takes images of {channels} channels, (channels, h, w); got shape {shape}.{last}"
        )


def check_window(
    layer: str, x: Any, window: tuple[int, ...], padding: Any, *, ceil: tuple[int, ...] = (0, 0)
) -> None:
    """Raise `ValueError` unless a window fits into the padded image.

    With `ceil`, as many pixels of it may jut out at the end.
    """
    sides = [(0, 0)] * len(window) if isinstance(padding, str) else padding
    if padding in ("SAME", "SAME_LOWER"):
        # As much padding as it takes: any image but an empty one will do.
        window = (1,) * len(window)
    sizes = [n + sum(p) for n, p in zip(x.shape[1:], sides, strict=True)]
    if any(n < 1 or n + c < w for n, c, w in zip(sizes, ceil, window, strict=True)):
        raise ValueError(
            f"The image is too small: {layer} has a window of {' x '.join(map(str, window))}, and was "
            f"given {' x '.join(map(str, x.shape[1:]))} pixels, {' x '.join(map(str, sizes))} if padded."
        )


class Conv2d(eqx.nn.Conv2d):
    """A convolution of images that refuses one smaller than its window, or with other channels.

    Source: `torch.nn.Conv2d`, which does.

    **Example:**

    ```python
    >>> import graftax as gx, jax, jax.numpy as jnp
    >>> conv = gx.zoo.Conv2d(3, 8, 2, 2, key=jax.random.key(0))
    >>> conv(jnp.ones((3, 5, 5))).shape
    (8, 2, 2)
    >>> conv(jnp.ones((3, 1, 5)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: The image is too small: Conv2d has a window of 2 x 2, and was given 1 x 5 pixels...

    ```
    """

    def __call__(
        self, x: Float[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """`(channels, h, w)` to `(channels', h', w')`.

        **Raises:**

        - `ValueError`: x is no image of `in_channels` channels, or too small.
        """
        check_image(type(self).__name__, x, self.in_channels)
        window = tuple(
            d * (n - 1) + 1 for d, n in zip(self.dilation, self.kernel_size, strict=True)
        )
        check_window(type(self).__name__, x, window, self.padding)
        return super().__call__(x, key=key)


class MaxPool2d(eqx.nn.MaxPool2d):
    """The largest pixel of each window; an image smaller than the window is refused.

    Source: `torch.nn.MaxPool2d`, which does.
    """

    def __call__(
        self, x: Float[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """`(channels, h, w)` to `(channels, h', w')`. Raises `ValueError`."""
        _check_pool(self, x)
        return super().__call__(x, key=key)


class AvgPool2d(eqx.nn.AvgPool2d):
    """The mean pixel of each window; an image smaller than the window is refused.

    Source: `torch.nn.AvgPool2d`, which does.
    """

    def __call__(
        self, x: Float[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """`(channels, h, w)` to `(channels, h', w')`. Raises `ValueError`."""
        _check_pool(self, x)
        return super().__call__(x, key=key)


def _check_pool(layer: eqx.nn.Pool, x: Any) -> None:
    name = type(layer).__name__
    check_image(name, x)
    # A window juts out by less than a stride: the next would start outside.
    ceil = tuple(n - 1 for n in layer.stride) if layer.use_ceil else (0, 0)
    check_window(name, x, layer.kernel_size, layer.padding, ceil=ceil)
