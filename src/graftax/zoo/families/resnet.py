"""ResNet: He et al., arXiv:1512.03385; the stride of a bottleneck in its 3 x 3 convolution (v1.5)."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...structure import Chain, SkipConnection
from ..config import Config
from ..convolution import POOL, batch_norm, conv, max_pool
from ..family import Checkpoint, Family, Names, Settings, without_classes
from ..keys import ACTIVATION, CLASSES, FLAG, SIZE, Key, one_of_named, sizes
from ..measures import outputs, stages

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""The published sizes: blocks in each stage, by the number of layers."""


def resnet(
    *,
    widths: Sequence[int] = (256, 512, 1024, 2048),
    depths: Sequence[int] = (3, 4, 6, 3),
    stem: int = 64,
    channels: int = 3,
    bottlenecks: bool = True,
    act: Callable[..., Any] = jax.nn.relu,
    classes: int | None = 1000,
    stride_first: bool = False,
    stride_in_reduction: bool = False,
    key: PRNGKeyArray,
) -> Chain:
    """ResNet on one image: `(channels, h, w)` to `(classes,)`; to `(widths[-1],)` if there are none.

    It holds running statistics: `model(x)` in inference mode; for training, `y, state = model(x, state)`
    inside `jax.vmap(..., axis_name="batch")`, with the state that `eqx.nn.make_with_state` separates.

    **Arguments:**

    - `widths`, `depths`: channels and blocks of each stage.
    - `stem`: channels of the stem.
    - `channels`: of the image.
    - `bottlenecks`: whether blocks have three convolutions (50 layers and more) or two.
    - `act`: after the stem and after each sum; inside the blocks it is ReLU.
    - `classes`: of the head; None for no head.
    - `stride_first`: whether the first stage halves the image too.
    - `stride_in_reduction`: whether a bottleneck strides in its first convolution (as in the paper).
    - `key`: a random key.
    """
    keys = jax.random.split(key, len(widths) + 2)
    parts: dict[str, Any] = {
        "stem": Chain(
            conv=conv(channels, stem, 7, stride=2, key=keys[-1]),
            norm=batch_norm(stem),
            act=act,
            pool=max_pool(3, 2, 1),
        )
    }
    make = bottleneck if bottlenecks else basic_block
    into = stem
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks = []
        for j, block_key in enumerate(jax.random.split(keys[i], depth)):
            stride = 2 if j == 0 and (i > 0 or stride_first) else 1
            options = {"stride_in_reduction": stride_in_reduction} if bottlenecks else {}
            blocks.append(make(into, width, stride=stride, act=act, key=block_key, **options))
            into = width
        parts[f"stage{i + 1}"] = Chain(blocks)
    parts["pool"] = POOL
    if classes is not None:
        parts["head"] = eqx.nn.Linear(into, classes, key=keys[-2])
    return Chain(parts)


def basic_block(
    into: int,
    out: int,
    *,
    stride: int = 1,
    act: Callable[..., Any] = jax.nn.relu,
    key: PRNGKeyArray,
) -> SkipConnection:
    """Two 3 x 3 convolutions: `(into, h, w)` to `(out, h / stride, w / stride)`."""
    k1, k2, k3 = jax.random.split(key, 3)
    return SkipConnection(
        conv1=conv(into, out, 3, stride=stride, key=k1),
        norm1=batch_norm(out),
        act1=jax.nn.relu,
        conv2=conv(out, out, 3, key=k2),
        norm2=batch_norm(out),
        op=Chain(add=sum, act=act),
        shortcut=_shortcut(into, out, stride, k3),
    )


def bottleneck(
    into: int,
    out: int,
    *,
    stride: int = 1,
    act: Callable[..., Any] = jax.nn.relu,
    stride_in_reduction: bool = False,
    key: PRNGKeyArray,
) -> SkipConnection:
    """1 x 1 to a quarter of the channels, 3 x 3, 1 x 1; shapes as of `basic_block`."""
    k1, k2, k3, k4 = jax.random.split(key, 4)
    inner = out // 4
    strides = (stride, 1) if stride_in_reduction else (1, stride)
    return SkipConnection(
        conv1=conv(into, inner, 1, stride=strides[0], key=k1),
        norm1=batch_norm(inner),
        act1=jax.nn.relu,
        conv2=conv(inner, inner, 3, stride=strides[1], key=k2),
        norm2=batch_norm(inner),
        act2=jax.nn.relu,
        conv3=conv(inner, out, 1, key=k3),
        norm3=batch_norm(out),
        op=Chain(add=sum, act=act),
        shortcut=_shortcut(into, out, stride, k4),
    )


def _shortcut(into: int, out: int, stride: int, key: PRNGKeyArray) -> Chain | None:
    if into == out and stride == 1:
        return None
    return Chain(conv=conv(into, out, 1, stride=stride, key=key), norm=batch_norm(out))


def _hugging_face_names(prefix: str, stages: int) -> dict[str, str]:
    names = {
        ".stem.conv": f"{prefix}embedder.embedder.convolution",
        ".stem.norm": f"{prefix}embedder.embedder.normalization",
        ".head": "classifier.1",
    }
    for stage in range(stages):
        ours, theirs = f".stage{stage + 1}.{{b}}", f"{prefix}encoder.stages.{stage}.layers.{{b}}"
        for k in range(3):
            names[f"{ours}.conv{k + 1}"] = f"{theirs}.layer.{k}.convolution"
            names[f"{ours}.norm{k + 1}"] = f"{theirs}.layer.{k}.normalization"
        names[f"{ours}.shortcut.conv"] = f"{theirs}.shortcut.convolution"
        names[f"{ours}.shortcut.norm"] = f"{theirs}.shortcut.normalization"
    return names


_TORCHVISION_NAMES = {
    ".stem.conv": "conv1",
    ".stem.norm": "bn1",
    ".head": "fc",
    ".stage{s}.{b}.norm{k}": "layer{s}.{b}.bn{k}",
    ".stage{s}.{b}.conv{k}": "layer{s}.{b}.conv{k}",
    ".stage{s}.{b}.shortcut.conv": "layer{s}.{b}.downsample.0",
    ".stage{s}.{b}.shortcut.norm": "layer{s}.{b}.downsample.1",
}


_STAGES = {
    "stage{s}.{b}": "encoder.stages.{s}.layers.{b}",
    ".stage{s}.{b}": ".layer{s}.{b}",
}
_KEYS = {
    "widths": Key("hidden_sizes", sizes(), (256, 512, 1024, 2048)),
    "depths": Key("depths", sizes(), (3, 4, 6, 3), blocks=_STAGES),
    "stem": Key("embedding_size", SIZE, 64),
    "channels": Key("num_channels", SIZE, 3),
    "bottlenecks": Key("layer_type", one_of_named(bottleneck=True, basic=False), "bottleneck"),
    "act": Key("hidden_act", ACTIVATION, "relu"),
    "stride_first": Key("downsample_in_first_stage", FLAG, False),
    "stride_in_reduction": Key("downsample_in_bottleneck", FLAG, False),
    "classes": CLASSES,
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    if any(name.startswith("layer1.") for name in checkpoint.names):
        return Names(_TORCHVISION_NAMES)
    return Names(_hugging_face_names(checkpoint.prefix, len(settings["widths"])))


def _settle(config: Config, settings: Settings) -> Settings:
    widths, depths = settings["widths"], settings["depths"]
    if len(widths) != len(depths):
        raise config.error(
            "hidden_sizes",
            f", {len(widths)} of them, and {len(depths)} depths: as many are needed.",
        )
    if settings["bottlenecks"] and min(widths) < 4:
        raise config.error("hidden_sizes", "; a bottleneck has a quarter of them inside.")
    return without_classes(config, settings)


def _width(block: Any) -> int:
    last = block.conv3 if "conv3" in block else block.conv2
    return last.out_channels


FAMILY = Family(
    build=resnet,
    keys=_KEYS,
    heads={
        "ResNetForImageClassification": "classifier",
        "ResNetModel": None,
        "ResNet": "classifier",
    },
    names=_names,
    measures={
        "widths": lambda model: tuple(_width(stage[0]) for stage in stages(model)),
        "depths": lambda model: tuple(map(len, stages(model))),
        "stem": lambda model: model.stem.conv.out_channels,
        "channels": lambda model: model.stem.conv.in_channels,
        "act": lambda model: model.stem.act,
        "classes": outputs,
    },
    body=r"embedder|encoder|conv1|bn1|layer\d+",
    prefixes={None: "resnet."},
    # They name the outputs of a backbone, which are all there: `activations(model, x)`.
    unused=("out_features", "out_indices", "stage_names", "library_name"),
    settle=_settle,
)
