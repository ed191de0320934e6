"""The parts that the convolutional networks of the zoo are made of. Images are `(channels, h, w)`."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..structure import Call, Chain, Vmap, Wrapper
from .images import Conv2d, Image, MaxPool2d, check_image
from .norms import BatchNorm

POOL = functools.partial(jnp.mean, axis=(1, 2))
"""Global average pooling: `(channels, h, w)` to `(channels,)`."""

CONCATENATE = functools.partial(jnp.concatenate, axis=0)
"""The `op` of a `Parallel` whose branches each give some of the channels."""


class Conv(NamedTuple):
    """A convolution to be: its output channels, window, stride and padding, as `conv` takes them."""

    out: int
    size: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | tuple[int, int] | None = None


def conv(
    into: int,
    out: int,
    size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] | None = None,
    groups: int = 1,
    bias: bool = False,
    key: Any,
) -> Conv2d:
    """A convolution, `(into, h, w)` to `(out, h / stride, w / stride)`, without bias by default.

    **Arguments:**

    - `into`, `out`: channels.
    - `size`, `stride`: of the window, in pixels. An odd window keeps the size of the image.
    - `padding`: on each side, in pixels; half the window if None.
    - `groups`: of channels that do not mix.
    - `bias`: whether it has one.
    - `key`: a random key.
    """
    if padding is None:
        padding = size // 2 if isinstance(size, int) else (size[0] // 2, size[1] // 2)
    return Conv2d(into, out, size, stride, padding=padding, groups=groups, use_bias=bias, key=key)


def convolutions(
    into: int, *layers: Conv | Callable[..., Any], bias: bool = False, eps: float = 1e-5, key: Any
) -> Chain:
    """Convolutions in order, BatchNorm and ReLU after each: `conv1`, `norm1`, `act1`, `conv2`, ...

    **Arguments:**

    - `into`: channels of the image.
    - `layers`: the convolutions; any other layer stands between them as it is: `pool1`, `pool2`, ...
    - `bias`: whether the convolutions have one.
    - `eps`: of each BatchNorm.
    - `key`: a random key.
    """
    parts: dict[str, Any] = {}
    convs = pools = 0
    for layer, own_key in zip(layers, jax.random.split(key, len(layers)), strict=True):
        if not isinstance(layer, Conv):
            pools += 1
            parts[f"pool{pools}"] = layer
            continue
        convs += 1
        out, size, stride, padding = layer
        parts[f"conv{convs}"] = conv(
            into, out, size, stride=stride, padding=padding, bias=bias, key=own_key
        )
        parts[f"norm{convs}"] = batch_norm(out, eps)
        parts[f"act{convs}"] = jax.nn.relu
        into = out
    return Chain(parts)


def batch_norm(channels: int, eps: float = 1e-5) -> BatchNorm:
    """BatchNorm as PyTorch has it: statistics over the axis `"batch"`, kept with momentum 0.9."""
    return BatchNorm(channels, eps=eps)


def max_pool(size: int, stride: int, padding: int = 0, *, ceil: bool = False) -> MaxPool2d:
    """The largest pixel of each window; with `ceil`, also of one that juts out of the image."""
    return MaxPool2d(size, stride, padding, use_ceil=ceil)


class Append(eqx.Module):
    """The `op` of a `SkipConnection` that keeps its input: `Append()(y, x)` is `x`, then `y`.

    Source: Huang et al., Densely Connected Convolutional Networks, arXiv:1608.06993.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> gx.SkipConnection(double=lambda x: 2 * x, op=gx.zoo.Append())(jnp.array([1, 5])).tolist()
    [1, 5, 2, 10]

    ```
    """

    axis: int = eqx.field(static=True, default=0)

    def __call__(self, y: Array, x: Array) -> Array:
        """`x` and, after it along the axis, `y`. Raises `TypeError` if other axes differ."""
        rest = [[n for i, n in enumerate(a.shape) if i != self.axis % a.ndim] for a in (x, y)]
        if rest[0] != rest[1]:
            # As `jnp.concatenate` does, which would not say why.
            raise TypeError(
                f"Append({self.axis}) puts what layers made, of shape {y.shape}, behind what they were "
                f"given, of shape {x.shape}: these must agree but for axis {self.axis}. Where an image is "
                "halved and doubled again, its sides must be even."
            )
        return jnp.concatenate([x, y], self.axis)


class Normalize(eqx.Module):
    """Each channel with a mean and a deviation given in advance: `(x - mean) / deviation`."""

    mean: tuple[float, ...] = eqx.field(static=True)
    deviation: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, x: Image) -> Float[Array, "c h w"]:
        """The shape `(channels, h, w)` stays. Raises `ValueError` for another number of channels."""
        check_image("Normalize", x, len(self.mean))
        x = jnp.asarray(x)
        mean, deviation = (
            jnp.asarray(values, x.dtype)[:, None, None] for values in (self.mean, self.deviation)
        )
        return (x - mean) / deviation


class Scale(eqx.Module):
    """A learnt factor: `x * weight`."""

    weight: Float[Array, "..."]

    def __call__(self, x: Any) -> Any:
        """The shape stays."""
        return x * self.weight


class ToTokens(eqx.Module):
    """An image as a sequence: `(channels, height, width)` to `(height * width, channels)`."""

    def __call__(self, x: Image) -> Float[Array, "t c"]:
        """Row by row. Raises `ValueError` if x has other axes."""
        check_image("ToTokens", x)
        x = jnp.asarray(x)
        return x.reshape(x.shape[0], -1).T


class Upsample(eqx.Module):
    """A larger image, its pixels interpolated from the four around them.

    The corners of the image stay, not the middles of its corner pixels: PyTorch's
    `align_corners=False`.
    """

    factor: int = eqx.field(static=True, default=2)

    def __call__(self, x: Image) -> Float[Array, "c taller wider"]:
        """`(channels, h, w)` to `(channels, factor * h, factor * w)`. Raises `ValueError`."""
        check_image("Upsample", x)
        x = jnp.asarray(x)
        channels, height, width = x.shape
        shape = (channels, self.factor * height, self.factor * width)
        return jax.image.resize(x, shape, "bilinear")


class Pixelwise(Wrapper):
    """A layer of vectors at each pixel: `Pixelwise(a)(x)[:, i, j] == a(x[:, i, j])`.

    It does not show in paths. `Pixelwise(eqx.nn.Linear(...))` is a 1 x 1 convolution.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> gx.zoo.Pixelwise(jnp.cumsum)(jnp.ones((3, 1, 2)))[:, 0, 1].tolist()
    [1.0, 2.0, 3.0]

    ```
    """

    def __init__(self, layer: Callable[..., Any]):
        """**Arguments:**

        - `layer`: maps a vector `(channels,)` to another.
        """
        super().__init__(layer)

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the layer gives at each pixel."""
        (x,) = inputs
        y = call(Vmap(Vmap(self.layer)), jnp.moveaxis(x, 0, -1))
        return jnp.moveaxis(y, -1, 0)
