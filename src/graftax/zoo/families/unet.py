"""U-Net: Ronneberger et al., arXiv:1505.04597, with padded convolutions and BatchNorm."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...structure import Chain, SkipConnection
from ..config import Config
from ..convolution import Append, Conv, Upsample, conv, convolutions, max_pool
from ..family import Checkpoint, Family, Names, Settings, without_classes
from ..keys import CLASSES, FLAG, SIZE, Key, one_of, sizes
from ..measures import outputs

UPSAMPLE = ("transposed", "bilinear")


def unet(
    *,
    widths: Sequence[int] = (64, 128, 256, 512, 1024),
    channels: int = 3,
    classes: int | None = 2,
    upsample: str = "transposed",
    bias: bool = False,
    key: PRNGKeyArray,
) -> Chain:
    """U-Net on one image: `(channels, h, w)` to a score for each pixel, `(classes, h, w)`.

    A level inside the other: `Chain(encoder, skip, decoder, head)`, where `skip` is a `SkipConnection`
    of `downsample`, the next level, and `upsample`; `skip.skip.encoder` is the third encoder, and the
    deepest level is the `bottleneck`. Each of them halves the image, whose sides must divide by that.

    It holds running statistics: `model(x)` in inference mode; for training, `y, state = model(x, state)`
    inside `jax.vmap(..., axis_name="batch")`, with the state that `eqx.nn.make_with_state` separates.

    **Arguments:**

    - `widths`: channels of each level; the last are those of the bottleneck.
    - `channels`: of the image.
    - `classes`: the outputs at each pixel; None for `(widths[0], h, w)`, without a head.
    - `upsample`: `"transposed"`, by a learnt transposed convolution, or `"bilinear"`.
    - `bias`: whether the convolutions before a BatchNorm have one.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: another `upsample`, or fewer than two levels.
    """
    if upsample not in UPSAMPLE:
        raise ValueError(f"upsample must be one of {', '.join(UPSAMPLE)}; got {upsample!r}.")
    if len(widths) < 2:
        raise ValueError(f"A U-Net has two levels or more; got widths={tuple(widths)}.")
    head_key, deepest_key, *keys = jax.random.split(key, len(widths) + 1)
    level: dict[str, Any] = {
        "bottleneck": double_convolution(widths[-2], widths[-1], bias=bias, key=deepest_key)
    }
    for i in reversed(range(len(widths) - 1)):
        k1, k2, k3 = jax.random.split(keys[i], 3)
        width, below = widths[i], widths[i + 1]
        is_learnt = upsample == "transposed"
        larger = eqx.nn.ConvTranspose2d(below, width, 2, 2, key=k2) if is_learnt else Upsample(2)
        level = {
            "encoder": double_convolution(
                widths[i - 1] if i else channels, width, bias=bias, key=k1
            ),
            "skip": SkipConnection(
                {"downsample": max_pool(2, 2), **level, "upsample": larger}, op=Append()
            ),
            "decoder": double_convolution(
                width + (width if is_learnt else below), width, bias=bias, key=k3
            ),
        }
    if classes is None:
        return Chain(level)
    return Chain({**level, "head": conv(widths[0], classes, 1, bias=True, key=head_key)})


def double_convolution(into: int, out: int, *, bias: bool = False, key: PRNGKeyArray) -> Chain:
    """3 x 3, BatchNorm and ReLU, twice: `(into, h, w)` to `(out, h, w)`."""
    return convolutions(into, Conv(out, 3), Conv(out, 3), bias=bias, key=key)


def _rename(levels: int) -> dict[str, str]:
    names = {f".{'skip.' * levels}bottleneck": "bottleneck"}
    for i in range(levels):
        here, decoder = "." + "skip." * i, f"decoder.{levels - 1 - i}"
        names |= {
            f"{here}encoder": f"encoder.{i}",
            # Rules follow each other: this one must not meet what the next makes a `decoder`.
            f"{here}decoder": f"{decoder}.block",
            f"{here}skip.upsample": f"{decoder}.up",
        }
    return names


_KEYS = {
    "widths": Key(
        "hidden_sizes",
        sizes(),
        blocks={"encoder": "encoder.{i}"},
        # The last is that of the bottleneck.
        depth=lambda widths: len(widths) - 1,
    ),
    "channels": Key("num_channels", SIZE, 3),
    "upsample": Key("upsample", one_of(*UPSAMPLE), UPSAMPLE[0]),
    "bias": Key("conv_bias", FLAG, False),
    "classes": CLASSES,
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    return Names(_rename(len(settings["widths"]) - 1))


def _settle(config: Config, settings: Settings) -> Settings:
    if len(settings["widths"]) < 2:
        raise config.error("hidden_sizes", ": it takes two or more.")
    return without_classes(config, settings)


FAMILY = Family(
    build=unet,
    keys=_KEYS,
    heads={"UNet": "classifier"},
    names=_names,
    measures={
        "classes": outputs,
    },
    body="encoder|decoder|bottleneck",
    settle=_settle,
)
