"""GoogLeNet: Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842, as torchvision has it.

With BatchNorm, and 3 x 3 windows where the paper has 5 x 5.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...structure import Chain, Parallel
from ..config import Config
from ..convolution import CONCATENATE, POOL, Conv, Normalize, convolutions, max_pool
from ..family import Checkpoint, Family, Names, Settings, without_classes
from ..keys import CLASSES, FLAG, RATE, SIZE, Key, sizes
from ..measures import outputs

# Of every BatchNorm, as in the Inception networks that came after.
EPS = 1e-3

Widths = tuple[int, int, int, int, int, int]

WIDTHS: dict[str, Widths] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""The published widths of each block, by the paper's name for it: `stage1` is 3a and 3b."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of red, green and blue in ImageNet."""


def googlenet(
    *,
    widths: Sequence[Sequence[Widths]] | None = None,
    stem: tuple[int, int, int] = (64, 64, 192),
    channels: int = 3,
    classes: int | None = 1000,
    transform: bool = False,
    dropout: float = 0.2,
    key: PRNGKeyArray,
) -> Chain:
    """GoogLeNet on one image: `(channels, h, w)` to `(classes,)`, or to the pooled `(width,)`.

    It holds running statistics: `model(x)` in inference mode; for training, `y, state = model(x, state)`
    inside `jax.vmap(..., axis_name="batch")`, with the state that `eqx.nn.make_with_state` separates.
    It has none of the auxiliary heads that the published one was trained with.

    **Arguments:**

    - `widths`: of each block in each of three stages; the published ones if None.
    - `stem`: channels of the three convolutions of the stem.
    - `channels`: of the image.
    - `classes`: of the head; None for no head.
    - `transform`: whether images normalised by ImageNet's colours are brought to -1 to 1 first.
    - `dropout`: before the head.
    - `key`: a random key.
    """
    if widths is None:
        widths = [[WIDTHS[name] for name in WIDTHS if name[0] == stage] for stage in "345"]
    keys = jax.random.split(key, len(widths) + 2)
    pool = max_pool(3, 2, ceil=True)
    first = Conv(stem[0], 7, stride=2)
    parts: dict[str, Any] = {
        "stem": with_transform(
            convolutions(
                channels, first, pool, Conv(stem[1]), Conv(stem[2], 3), pool, eps=EPS, key=keys[-1]
            ),
            transform,
        )
    }
    into = stem[-1]
    for i, stage in enumerate(widths):
        blocks = []
        for each, block_key in zip(stage, jax.random.split(keys[i], len(stage)), strict=True):
            blocks.append(inception_block(into, each, key=block_key))
            into = each[0] + each[2] + each[4] + each[5]
        before: dict[str, Any] = {}
        if i > 0:
            # The last window is smaller than in the paper.
            window = 2 if i == len(widths) - 1 else 3
            before["downsample"] = max_pool(window, 2, ceil=True)
        parts[f"stage{i + 1}"] = Chain({**before, "blocks": Chain(blocks)})
    parts["pool"] = POOL
    if classes is not None:
        parts["dropout"] = eqx.nn.Dropout(dropout)
        parts["head"] = eqx.nn.Linear(into, classes, key=keys[-2])
    return Chain(parts)


def inception_block(into: int, widths: Widths, *, key: PRNGKeyArray) -> Parallel:
    """Four ways of looking at an image, their channels side by side; the image keeps its size.

    **Arguments:**

    - `into`: channels of the image.
    - `widths`: of the 1 x 1 branch; of both convolutions of the second, and of the third branch; of the
        branch with pooling. The output has `widths[0] + widths[2] + widths[4] + widths[5]` channels.
    - `key`: a random key.
    """
    k1, k2, k3, k4 = jax.random.split(key, 4)
    one, reduced2, two, reduced3, three, pooled = widths
    return Parallel(
        branch1=convolutions(into, Conv(one), eps=EPS, key=k1),
        branch2=convolutions(into, Conv(reduced2), Conv(two, 3), eps=EPS, key=k2),
        branch3=convolutions(into, Conv(reduced3), Conv(three, 3), eps=EPS, key=k3),
        branch4=convolutions(into, max_pool(3, 1, 1), Conv(pooled), eps=EPS, key=k4),
        op=CONCATENATE,
    )


def with_transform(stem: Chain, transform: bool) -> Chain:
    """The stem after a layer `normalize`: from images normalised by ImageNet's colours to -1 to 1."""
    if not transform:
        return stem
    colours = list(zip(*IMAGENET, strict=True))
    normalize = Normalize(
        mean=tuple((0.5 - mean) / deviation for mean, deviation in colours),
        deviation=tuple(0.5 / deviation for _, deviation in colours),
    )
    return Chain({"normalize": normalize, **dict(stem.items())})


_BRANCHES = {
    "branch{b}.conv2": "branch{b}.1.conv",
    "branch{b}.norm2": "branch{b}.1.bn",
    "branch1.conv1": "branch1.conv",
    "branch1.norm1": "branch1.bn",
    "branch4.conv1": "branch4.1.conv",
    "branch4.norm1": "branch4.1.bn",
    "branch{b}.conv1": "branch{b}.0.conv",
    "branch{b}.norm1": "branch{b}.0.bn",
}


_KEYS = {
    "stem": Key("stem_sizes", sizes(), (64, 64, 192)),
    "channels": Key("num_channels", SIZE, 3),
    "transform": Key("transform_input", FLAG, False),
    "dropout": Key("dropout", RATE, 0.2),
    "classes": CLASSES,
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    rename = {".stem.conv{i}": "conv{i}.conv", ".stem.norm{i}": "conv{i}.bn", ".head": "fc"}
    for stage, block, name in _blocks():
        rename[f".stage{stage + 1}.blocks.{block}"] = f"inception{name}"
    # Auxiliary heads are there for training alone.
    return Names(rename | _BRANCHES, (".aux1.{p}", ".aux2.{p}"))


def _blocks() -> Iterator[tuple[int, int, str]]:
    """The stage of each published block, its place there, and the paper's name for it."""
    for stage, number in enumerate("345"):
        for block, name in enumerate(name for name in WIDTHS if name[0] == number):
            yield stage, block, name


def _settle(config: Config, settings: Settings) -> Settings:
    if len(settings["stem"]) != 3:
        raise config.error("stem_sizes", ": the stem has 3 widths.")
    given = config.part("block_sizes")
    widths: list[list[Widths]] = [[], [], []]
    for stage, _, name in _blocks():
        widths[stage].append(WIDTHS[name] if given is None else _widths(given, f"inception{name}"))
    return without_classes(config, settings | {"widths": widths})


def _widths(given: Config, name: str) -> Widths:
    found = given.value(Key(name, sizes()))
    if len(found) != 6:
        raise given.error(name, ": a block has 6 widths.")
    return found


FAMILY = Family(
    build=googlenet,
    keys=_KEYS,
    heads={"GoogLeNet": "classifier"},
    names=_names,
    measures={
        "dropout": lambda model: model.dropout.p,
        "classes": outputs,
    },
    body=r"conv\d|inception\w+",
    unused=("library_name", "aux_logits", "init_weights"),
    settle=_settle,
)
