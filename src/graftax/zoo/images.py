"""Layers that refuse the images which PyTorch refuses, and JAX does not: too small, or of another size.

JAX gives an empty array where a window is larger than the image, and the mean of it is NaN.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..structure import Call, Wrapper
from ..surgery import select
from .embeddings import ClassToken, PositionEmbedding

Image = Float[Array | np.ndarray, "..."]
"""What should be `(channels, h, w)`, and is checked with words of our own where it is not."""


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
    sizes = tuple(n + sum(p) for n, p in zip(x.shape[1:], sides, strict=True))
    if any(n < 1 or n + c < w for n, c, w in zip(sizes, ceil, window, strict=True)):
        raise ValueError(
            f"The image is too small: {layer} has a window of {_pixels(window)}, and was "
            f"given {_pixels(x.shape[1:])} pixels, {_pixels(sizes)} if padded."
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

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] | Sequence[tuple[int, int]] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        dtype: Any = None,
        *,
        key: PRNGKeyArray,
    ):
        """As of `eqx.nn.Conv2d`.

        **Arguments:**

        - `in_channels`, `out_channels`: of the image, and of what comes out.
        - `kernel_size`, `stride`, `dilation`: of the window, in pixels.
        - `padding`, `padding_mode`: how much stands around the image, and what.
        - `groups`: of channels that do not mix.
        - `use_bias`: whether a number is added to each channel.
        - `dtype`: of the parameters.
        - `key`: a random key.
        """
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            use_bias,
            padding_mode,
            dtype,
            key=key,
        )

    def __call__(self, x: Image, *, key: PRNGKeyArray | None = None) -> Float[Array, "..."]:
        """`(channels, h, w)` to `(channels', h', w')`.

        **Raises:**

        - `ValueError`: x is no image of `in_channels` channels, or too small.
        - `TypeError`: its pixels are integers.
        """
        check_image(type(self).__name__, x, self.in_channels)
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(
                f"Conv2d takes images of floats; got {x.dtype}. Bring pixels from 0 to 255 to the range "
                "that the network was trained with."
            )
        window = tuple(
            d * (n - 1) + 1 for d, n in zip(self.dilation, self.kernel_size, strict=True)
        )
        check_window(type(self).__name__, x, window, self.padding)
        return super().__call__(jnp.asarray(x), key=key)


class MaxPool2d(eqx.nn.MaxPool2d):
    """The largest pixel of each window; an image smaller than the window is refused.

    Source: `torch.nn.MaxPool2d`, which does.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
        use_ceil: bool = False,
    ):
        """As of `eqx.nn.MaxPool2d`.

        **Arguments:**

        - `kernel_size`, `stride`: of the window, in pixels.
        - `padding`: how much stands around the image.
        - `use_ceil`: whether a window may jut out at the end.
        """
        super().__init__(kernel_size, stride, padding, use_ceil)

    def __call__(self, x: Image, *, key: PRNGKeyArray | None = None) -> Float[Array, "..."]:
        """`(channels, h, w)` to `(channels, h', w')`. Raises `ValueError`."""
        _check_pool(self, x)
        return super().__call__(jnp.asarray(x), key=key)


class AvgPool2d(eqx.nn.AvgPool2d):
    """The mean pixel of each window; an image smaller than the window is refused.

    Source: `torch.nn.AvgPool2d`, which does.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Sequence[tuple[int, int]] = 0,
        use_ceil: bool = False,
    ):
        """As of `eqx.nn.AvgPool2d`.

        **Arguments:**

        - `kernel_size`, `stride`: of the window, in pixels.
        - `padding`: how much stands around the image.
        - `use_ceil`: whether a window may jut out at the end.
        """
        super().__init__(kernel_size, stride, padding, use_ceil)

    def __call__(self, x: Image, *, key: PRNGKeyArray | None = None) -> Float[Array, "..."]:
        """`(channels, h, w)` to `(channels, h', w')`. Raises `ValueError`."""
        _check_pool(self, x)
        return super().__call__(jnp.asarray(x), key=key)


def _check_pool(layer: eqx.nn.Pool, x: Any) -> None:
    name = type(layer).__name__
    check_image(name, x)
    # A window juts out by less than a stride: the next would start outside.
    ceil = tuple(n - 1 for n in layer.stride) if layer.use_ceil else (0, 0)
    check_window(name, x, layer.kernel_size, layer.padding, ceil=ceil)


class ImageSize(Wrapper):
    """The layer for images of one size, for which its positions are made; it does not show in paths.

    Positions lie row by row, so an image with as many patches in other rows would get wrong ones. Where
    the positions were replaced by another number of them, as by `resize_positions`, the size is no more
    known: then any image with as many patches is taken, until `update(image=...)` says which.

    Source: `transformers.ViTPatchEmbeddings`, which refuses other sizes too.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> gx.zoo.ImageSize(gx.zoo.ToTokens(), (4, 6))(jnp.ones((3, 6, 4)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: These positions are for images of 4 x 6 pixels; got 6 x 4, shape (3, 6, 4)...

    ```
    """

    same_function: ClassVar[bool] = True
    image: tuple[int, int] = eqx.field(static=True)

    def __init__(self, layer: Callable[..., Any], image: tuple[int, int]):
        """**Arguments:**

        - `layer`: takes an image `(channels, h, w)`.
        - `image`: its height and width, in pixels.

        **Raises:**

        - `TypeError`: `layer` is not callable.
        - `ValueError`: when called, on an image of another size.
        """
        super().__init__(layer)
        self.image = image

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the layer gives for an image of this size."""
        self._check(inputs[0])
        return call(self.layer, *inputs)

    def _check(self, x: Any) -> None:
        patches = select(self.layer, eqx.nn.Conv2d).nodes
        check_image(type(self).__name__, x, patches[0].in_channels if patches else None)
        if x.shape[1:] == self.image or (patches and self._were_positions_replaced(patches[0])):
            return
        raise ValueError(
            f"These positions are for images of {_pixels(self.image)} pixels; got {_pixels(x.shape[1:])}, "
            f"shape {x.shape}. Resize the image, or the positions: graftax.resize_positions."
        )

    def _were_positions_replaced(self, patches: eqx.nn.Conv2d) -> bool:
        """Whether they are not as many as an image of this size has patches, and tokens before them."""
        positions = select(self.layer, PositionEmbedding).nodes
        rows, columns = (
            (side - window) // stride + 1
            for side, window, stride in zip(
                self.image, patches.kernel_size, patches.stride, strict=True
            )
        )
        before = sum(token.weight.shape[0] for token in select(self.layer, ClassToken).nodes)
        return any(layer.weight.shape[0] != before + rows * columns for layer in positions)


def _pixels(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
