"""Inception v3: Szegedy et al., Rethinking the Inception Architecture, arXiv:1512.00567.

As torchvision has it, whose names A to E the kinds of block have here too.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...structure import Chain, Parallel
from ..convolution import CONCATENATE, POOL, Conv, convolutions, max_pool
from ..family import Checkpoint, Family, Names, Settings, without_classes
from ..images import AvgPool2d
from ..keys import CLASSES, FLAG, RATE, SIZE, Key, whole
from ..measures import outputs
from .googlenet import EPS, with_transform

_WIDE, _TALL = (1, 7), (7, 1)


def inception(
    *,
    channels: int = 3,
    classes: int | None = 1000,
    transform: bool = False,
    dropout: float = 0.5,
    divisor: int = 1,
    key: PRNGKeyArray,
) -> Chain:
    """Inception v3 on one image, `(channels, h, w)` of 75 pixels or more, to `(classes,)`.

    Without a head, to the pooled `(width,)`. It has no auxiliary head.

    It holds running statistics: `model(x)` in inference mode; for training, `y, state = model(x, state)`
    inside `jax.vmap(..., axis_name="batch")`, with the state that `eqx.nn.make_with_state` separates.

    **Arguments:**

    - `channels`: of the image.
    - `classes`: of the head; None for no head.
    - `transform`: whether images normalised by ImageNet's colours are brought to -1 to 1 first.
    - `dropout`: before the head.
    - `divisor`: what all published widths are divided by.
    - `key`: a random key.
    """
    n = divisor
    keys = iter(jax.random.split(key, 13))
    stem = convolutions(
        channels,
        *(Conv(32 // n, 3, 2, 0), Conv(32 // n, 3, 1, 0), Conv(64 // n, 3), max_pool(3, 2)),
        *(Conv(80 // n), Conv(192 // n, 3, 1, 0), max_pool(3, 2)),
        eps=EPS,
        key=next(keys),
    )
    parts: dict[str, Any] = {"stem": with_transform(stem, transform)}
    into, blocks = 192 // n, []
    for pooled in (32 // n, 64 // n, 64 // n):
        blocks.append(inception_a(into, pooled, divisor=n, key=next(keys)))
        into = 2 * (64 // n) + 96 // n + pooled
    parts["stage1"] = Chain(blocks=Chain(blocks))
    reduction = inception_b(into, divisor=n, key=next(keys))
    into += 384 // n + 96 // n
    blocks = [
        inception_c(into, inner // n, divisor=n, key=next(keys)) for inner in (128, 160, 160, 192)
    ]
    parts["stage2"] = Chain(downsample=reduction, blocks=Chain(blocks))
    into = 4 * (192 // n)
    reduction = inception_d(into, divisor=n, key=next(keys))
    into += 320 // n + 192 // n
    blocks = [inception_e(into, divisor=n, key=next(keys))]
    into = 320 // n + 4 * (384 // n) + 192 // n
    blocks.append(inception_e(into, divisor=n, key=next(keys)))
    parts["stage3"] = Chain(downsample=reduction, blocks=Chain(blocks))
    parts["pool"] = POOL
    if classes is not None:
        parts["dropout"] = eqx.nn.Dropout(dropout)
        parts["head"] = eqx.nn.Linear(into, classes, key=next(keys))
    return Chain(parts)


def inception_a(into: int, pooled: int, *, divisor: int = 1, key: PRNGKeyArray) -> Parallel:
    """1 x 1, 5 x 5 and twice 3 x 3 beside a mean with `pooled` channels; the image keeps its size."""
    n = divisor
    return _side_by_side(
        into,
        [
            [Conv(64 // n)],
            [Conv(48 // n), Conv(64 // n, 5)],
            [Conv(64 // n), Conv(96 // n, 3), Conv(96 // n, 3)],
            [_mean(), Conv(pooled)],
        ],
        key,
    )


def inception_b(into: int, *, divisor: int = 1, key: PRNGKeyArray) -> Parallel:
    """Halves the image: 3 x 3, twice 3 x 3, and the largest pixel of each window."""
    n = divisor
    return _side_by_side(
        into,
        [
            [Conv(384 // n, 3, 2, 0)],
            [Conv(64 // n), Conv(96 // n, 3), Conv(96 // n, 3, 2, 0)],
            [max_pool(3, 2)],
        ],
        key,
    )


def inception_c(into: int, inner: int, *, divisor: int = 1, key: PRNGKeyArray) -> Parallel:
    """1 x 1, and 7 x 7 once and twice as 1 x 7 and 7 x 1 with `inner` channels, beside a mean."""
    out = 192 // divisor
    return _side_by_side(
        into,
        [
            [Conv(out)],
            [Conv(inner), Conv(inner, _WIDE), Conv(out, _TALL)],
            [Conv(inner), *(Conv(inner, w) for w in (_TALL, _WIDE, _TALL)), Conv(out, _WIDE)],
            [_mean(), Conv(out)],
        ],
        key,
    )


def inception_d(into: int, *, divisor: int = 1, key: PRNGKeyArray) -> Parallel:
    """Halves the image: 3 x 3, 7 x 7 then 3 x 3, and the largest pixel of each window."""
    inner = 192 // divisor
    return _side_by_side(
        into,
        [
            [Conv(inner), Conv(320 // divisor, 3, 2, 0)],
            [Conv(inner), Conv(inner, _WIDE), Conv(inner, _TALL), Conv(inner, 3, 2, 0)],
            [max_pool(3, 2)],
        ],
        key,
    )


def inception_e(into: int, *, divisor: int = 1, key: PRNGKeyArray) -> Parallel:
    """1 x 1, and two branches that end in 1 x 3 and 3 x 1 side by side, beside a mean."""
    n = divisor
    k1, k2, k3 = jax.random.split(key, 3)
    branches = [
        [Conv(320 // n)],
        [Conv(384 // n)],
        [Conv(448 // n), Conv(384 // n, 3)],
        [_mean(), Conv(192 // n)],
    ]
    parts: dict[Any, Any] = dict(_side_by_side(into, branches, k1).items())
    for label, own_key in (("branch2", k2), ("branch3", k3)):
        ends = [[Conv(384 // n, (1, 3))], [Conv(384 // n, (3, 1))]]
        split = _side_by_side(384 // n, ends, own_key)
        parts[label] = Chain({**dict(parts[label].items()), "split": split})
    return Parallel(parts, op=CONCATENATE)


def _mean() -> AvgPool2d:
    return AvgPool2d(3, 1, 1)


def _side_by_side(into: int, branches: Sequence[Sequence[Any]], key: PRNGKeyArray) -> Parallel:
    keys = jax.random.split(key, len(branches))
    parts = {
        f"branch{i + 1}": convolutions(into, *layers, eps=EPS, key=keys[i])
        for i, layers in enumerate(branches)
    }
    return Parallel(parts, op=CONCATENATE)


_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_BLOCKS = {
    ".stage1.blocks.0": "Mixed_5b",
    ".stage1.blocks.1": "Mixed_5c",
    ".stage1.blocks.2": "Mixed_5d",
    ".stage2.downsample": "Mixed_6a",
    ".stage2.blocks.0": "Mixed_6b",
    ".stage2.blocks.1": "Mixed_6c",
    ".stage2.blocks.2": "Mixed_6d",
    ".stage2.blocks.3": "Mixed_6e",
    ".stage3.downsample": "Mixed_7a",
    ".stage3.blocks.0": "Mixed_7b",
    ".stage3.blocks.1": "Mixed_7c",
}
_KINDS = dict(zip(_BLOCKS, "aaabccccdee", strict=True))
_BRANCHES = {
    "a": {
        "branch1": "branch1x1",
        "branch2": "branch5x5_{k}",
        "branch3": "branch3x3dbl_{k}",
        "branch4": "branch_pool",
    },
    "b": {"branch1": "branch3x3", "branch2": "branch3x3dbl_{k}"},
    "c": {
        "branch1": "branch1x1",
        "branch2": "branch7x7_{k}",
        "branch3": "branch7x7dbl_{k}",
        "branch4": "branch_pool",
    },
    "d": {"branch1": "branch3x3_{k}", "branch2": "branch7x7x3_{k}"},
    "e": {
        "branch1": "branch1x1",
        "branch2": "branch3x3_{k}",
        "branch2.split.branch1": "branch3x3_2a",
        "branch2.split.branch2": "branch3x3_2b",
        "branch3": "branch3x3dbl_{k}",
        "branch3.split.branch1": "branch3x3dbl_3a",
        "branch3.split.branch2": "branch3x3dbl_3b",
        "branch4": "branch_pool",
    },
}


def block_names(path: str, name: str, kind: str) -> dict[str, str]:
    """The rename rules of one block of kind `"a"` to `"e"`: its path here, and its name in torchvision."""
    rules = {}
    for ours, theirs in _BRANCHES[kind].items():
        rules[f"{path}.{ours}.conv{{k}}"] = f"{name}.{theirs}.conv"
        rules[f"{path}.{ours}.norm{{k}}"] = f"{name}.{theirs}.bn"
    return rules


_KEYS = {
    "channels": Key("num_channels", SIZE, 3),
    "transform": Key("transform_input", FLAG, False),
    "dropout": Key("dropout", RATE, 0.5),
    # Not torchvision's, but ours: what all widths are divided by, the smallest of which is 32.
    "divisor": Key("width_divisor", whole(1, 32), 1),
    "classes": CLASSES,
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    rename = {".head": "fc"}
    for i, name in enumerate(_STEM):
        rename |= {f".stem.conv{i + 1}": f"{name}.conv", f".stem.norm{i + 1}": f"{name}.bn"}
    for path, name in _BLOCKS.items():
        rename |= block_names(path, name, _KINDS[path])
    # The auxiliary head is there for training alone.
    return Names(rename, (".AuxLogits.{p}",))


FAMILY = Family(
    build=inception,
    keys=_KEYS,
    heads={"Inception3": "classifier"},
    names=_names,
    measures={
        "dropout": lambda model: model.dropout.p,
        "classes": outputs,
    },
    body=r"(?:Conv2d|Mixed)_\w+",
    unused=("library_name", "aux_logits", "init_weights"),
    settle=without_classes,
)
