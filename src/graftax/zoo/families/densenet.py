"""DenseNet: Huang et al., Densely Connected Convolutional Networks, arXiv:1608.06993."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...structure import Chain, SkipConnection
from ..convolution import POOL, Append, batch_norm, conv, max_pool
from ..family import Checkpoint, Family, Names, Settings, without_classes
from ..images import AvgPool2d
from ..keys import CLASSES, RATE, SIZE, Key, sizes
from ..measures import outputs, stages

DEPTHS = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
}
"""The published sizes: layers in each stage, by their number. 161 has `growth=48`, `stem=96`."""


def densenet(
    *,
    depths: Sequence[int] = DEPTHS[121],
    growth: int = 32,
    stem: int = 64,
    inner: int = 4,
    channels: int = 3,
    dropout: float = 0.0,
    classes: int | None = 1000,
    key: PRNGKeyArray,
) -> Chain:
    """DenseNet on one image: `(channels, h, w)` to `(classes,)`, or to the pooled `(width,)`.

    It holds running statistics: `model(x)` in inference mode; for training, `y, state = model(x, state)`
    inside `jax.vmap(..., axis_name="batch")`, with the state that `eqx.nn.make_with_state` separates.

    **Arguments:**

    - `depths`: dense layers in each stage. Each stage but the first halves the image and its channels.
    - `growth`: channels that each dense layer adds.
    - `stem`: channels of the stem.
    - `inner`: channels between the two convolutions of a dense layer, over `growth`.
    - `channels`: of the image.
    - `dropout`: of what a dense layer adds.
    - `classes`: of the head; None for no head.
    - `key`: a random key.
    """
    keys = jax.random.split(key, len(depths) + 2)
    parts: dict[str, Any] = {
        "stem": Chain(
            conv=conv(channels, stem, 7, stride=2, key=keys[-1]),
            norm=batch_norm(stem),
            act=jax.nn.relu,
            pool=max_pool(3, 2, 1),
        )
    }
    width = stem
    for i, depth in enumerate(depths):
        first, *rest = jax.random.split(keys[i], depth + 1)
        stage: dict[str, Any] = {}
        if i > 0:
            stage["downsample"] = transition(width, width // 2, key=first)
            width = width // 2
        layers = [
            dense_layer(width + j * growth, growth, inner * growth, dropout=dropout, key=k)
            for j, k in enumerate(rest)
        ]
        stage["blocks"] = Chain(layers)
        parts[f"stage{i + 1}"] = Chain(stage)
        width += depth * growth
    parts |= {"norm": batch_norm(width), "act": jax.nn.relu, "pool": POOL}
    if classes is not None:
        parts["head"] = eqx.nn.Linear(width, classes, key=keys[-2])
    return Chain(parts)


def dense_layer(
    into: int, growth: int, inner: int, *, dropout: float = 0.0, key: PRNGKeyArray
) -> SkipConnection:
    """The image, and after its channels `growth` new ones: `(into, h, w)` to `(into + growth, h, w)`."""
    k1, k2 = jax.random.split(key)
    return SkipConnection(
        norm1=batch_norm(into),
        act1=jax.nn.relu,
        conv1=conv(into, inner, 1, key=k1),
        norm2=batch_norm(inner),
        act2=jax.nn.relu,
        conv2=conv(inner, growth, 3, key=k2),
        dropout=eqx.nn.Dropout(dropout),
        op=Append(),
    )


def transition(into: int, out: int, *, key: PRNGKeyArray) -> Chain:
    """Between two stages: `(into, h, w)` to `(out, h / 2, w / 2)`."""
    return Chain(
        norm=batch_norm(into),
        act=jax.nn.relu,
        conv=conv(into, out, 1, key=key),
        pool=AvgPool2d(2, 2),
    )


def _rename(depths: Sequence[int], dotted: bool) -> dict[str, str]:
    names = {
        ".stem.{part}": "features.{part}0",
        ".norm": "features.norm5",
        ".head": "classifier",
    }
    for i, depth in enumerate(depths):
        names[f".stage{i + 1}.downsample"] = f"features.transition{i}"
        for j in range(depth):
            layer = f"features.denseblock{i + 1}.denselayer{j + 1}"
            names[f".stage{i + 1}.blocks.{j}"] = layer
    if dotted:
        names |= {
            f"denselayer{{j}}.{p}{{k}}": f"denselayer{{j}}.{p}.{{k}}" for p in ("norm", "conv")
        }
    return names


_BLOCKS = {"stage{s}.blocks.{j}": "features.denseblock{s}.denselayer{j}"}
_KEYS = {
    "depths": Key("block_config", sizes(), DEPTHS[121], blocks=_BLOCKS),
    "growth": Key("growth_rate", SIZE, 32),
    "stem": Key("num_init_features", SIZE, 64),
    "inner": Key("bn_size", SIZE, 4),
    "channels": Key("num_channels", SIZE, 3),
    "dropout": Key("drop_rate", RATE, 0.0),
    "classes": CLASSES,
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    # The published files are older than the names that torchvision has now.
    return Names(_rename(settings["depths"], any(".norm.1." in name for name in checkpoint.names)))


FAMILY = Family(
    build=densenet,
    keys=_KEYS,
    heads={"DenseNet": "classifier"},
    names=_names,
    measures={
        "depths": lambda model: tuple(len(stage.blocks) for stage in stages(model)),
        "dropout": lambda model: model.stage1.blocks[0].dropout.p,
        "classes": outputs,
    },
    body="features",
    unused=("library_name", "memory_efficient"),
    settle=without_classes,
)
