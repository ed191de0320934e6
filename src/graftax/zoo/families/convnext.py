"""ConvNeXt: Liu et al., A ConvNet for the 2020s, arXiv:2201.03545."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ...structure import Chain, SkipConnection
from ..config import Config, ConfigError
from ..convolution import POOL, Pixelwise, Scale, conv
from ..family import Checkpoint, Family, Names, Settings, without_classes
from ..keys import ACTIVATION, CLASSES, EPSILON, NUMBER, RATE, SIZE, Key, Kind, sizes
from ..layers import DropPath
from ..measures import outputs, stages

# Of every norm but the last, whatever the configuration says.
_EPS = 1e-6


def convnext(
    *,
    widths: Sequence[int] = (96, 192, 384, 768),
    depths: Sequence[int] = (3, 3, 9, 3),
    patch: int = 4,
    channels: int = 3,
    act: Callable[..., Any],
    eps: float = 1e-12,
    scale: float | None = 1e-6,
    drop_path: float = 0.0,
    classes: int | None = 1000,
    key: PRNGKeyArray,
) -> Chain:
    """ConvNeXt on one image: `(channels, h, w)` to `(classes,)`; to `(widths[-1],)` if there are none.

    `model[:"pool"]` is the body, with `(widths[-1], h', w')`.

    **Arguments:**

    - `widths`, `depths`: channels and blocks of each stage. Each but the first halves the image.
    - `patch`: the side of the patches that the stem makes pixels of.
    - `channels`: of the image.
    - `act`: the activation in each block.
    - `eps`: of the last LayerNorm.
    - `scale`: where the learnt factor at the end of each block starts; None for no such factor.
    - `drop_path`: with which probability the last block is left out in training; those before it in
        proportion to where they stand, the first never.
    - `classes`: of the head; None for no head.
    - `key`: a random key.
    """
    keys = jax.random.split(key, len(widths) + 2)
    parts: dict[str, Any] = {
        "stem": Chain(
            conv=conv(channels, widths[0], patch, stride=patch, padding=0, bias=True, key=keys[-1]),
            norm=_norm(widths[0]),
        )
    }
    rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
    into = widths[0]
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        first, *rest = jax.random.split(keys[i], depth + 1)
        stage: dict[str, Any] = {}
        if i > 0:
            halve = conv(into, width, 2, stride=2, padding=0, bias=True, key=first)
            stage["downsample"] = Chain(norm=_norm(into), conv=halve)
        stage["blocks"] = Chain(
            [convnext_block(width, act, scale=scale, drop_path=next(rates), key=k) for k in rest]
        )
        parts[f"stage{i + 1}"] = Chain(stage)
        into = width
    parts |= {"pool": POOL, "norm": eqx.nn.LayerNorm(into, eps=eps)}
    if classes is not None:
        parts["head"] = eqx.nn.Linear(into, classes, key=keys[-2])
    return Chain(parts)


def convnext_block(
    width: int,
    act: Callable[..., Any],
    *,
    scale: float | None = 1e-6,
    drop_path: float = 0.0,
    key: PRNGKeyArray,
) -> SkipConnection:
    """Each channel by a 7 x 7 window, then each pixel by an MLP; the shape `(width, h, w)` stays."""
    k1, k2, k3 = jax.random.split(key, 3)
    parts: dict[str, Any] = {
        "conv": conv(width, width, 7, groups=width, bias=True, key=k1),
        "norm": _norm(width),
        "mlp": Chain(
            up=Pixelwise(eqx.nn.Linear(width, 4 * width, key=k2)),
            act=act,
            down=Pixelwise(eqx.nn.Linear(4 * width, width, key=k3)),
        ),
    }
    if scale is not None:
        parts["scale"] = Pixelwise(Scale(jnp.full(width, scale)))
    if drop_path > 0:
        parts["drop_path"] = DropPath(drop_path)
    return SkipConnection(parts)


def _norm(width: int) -> Pixelwise:
    return Pixelwise(eqx.nn.LayerNorm(width, eps=_EPS))


def _rename(prefix: str, stages: int) -> dict[str, str]:
    names = {
        ".stem.conv": f"{prefix}embeddings.patch_embeddings",
        ".stem.norm": f"{prefix}embeddings.layernorm",
    }
    for stage in range(stages):
        ours, theirs = f".stage{stage + 1}", f"{prefix}encoder.stages.{stage}"
        names |= {
            f"{ours}.downsample.norm": f"{theirs}.downsampling_layer.0",
            f"{ours}.downsample.conv": f"{theirs}.downsampling_layer.1",
            f"{ours}.blocks.{{b}}.conv": f"{theirs}.layers.{{b}}.dwconv",
            f"{ours}.blocks.{{b}}.norm": f"{theirs}.layers.{{b}}.layernorm",
            f"{ours}.blocks.{{b}}.mlp.up": f"{theirs}.layers.{{b}}.pwconv1",
            f"{ours}.blocks.{{b}}.mlp.down": f"{theirs}.layers.{{b}}.pwconv2",
            f"{ours}.blocks.{{b}}.scale.weight": f"{theirs}.layers.{{b}}.layer_scale_parameter",
        }
    return names | {".norm": f"{prefix}layernorm", ".head": "classifier"}


_SCALE = Kind(lambda value: NUMBER.read(value) if NUMBER.read(value) > 0 else None)
_KEYS = {
    "widths": Key("hidden_sizes", sizes(), (96, 192, 384, 768)),
    "depths": Key(
        "depths",
        sizes(),
        (3, 3, 9, 3),
        blocks={"stage{s}.blocks.{b}": "encoder.stages.{s}.layers.{b}"},
    ),
    "patch": Key("patch_size", SIZE, 4),
    "channels": Key("num_channels", SIZE, 3),
    "act": Key("hidden_act", ACTIVATION, "gelu"),
    "eps": Key("layer_norm_eps", EPSILON, 1e-12),
    "drop_path": Key("drop_path_rate", RATE, 0.0),
    "scale": Key("layer_scale_init_value", _SCALE, 1e-6),
    "classes": CLASSES,
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    return Names(_rename(checkpoint.prefix, len(settings["widths"])))


def _settle(config: Config, settings: Settings) -> Settings:
    widths, depths = settings["widths"], settings["depths"]
    stages = config.value(Key("num_stages", SIZE, len(widths)))
    if not stages == len(widths) == len(depths):
        raise ConfigError(
            f"{config.name!r} has num_stages={stages}, {len(widths)} hidden_sizes and {len(depths)} "
            "depths: these must be as many."
        )
    return without_classes(config, settings)


FAMILY = Family(
    build=convnext,
    keys=_KEYS,
    heads={"ConvNextForImageClassification": "classifier", "ConvNextModel": None},
    names=_names,
    measures={
        "widths": lambda model: tuple(stage.blocks[0].conv.out_channels for stage in stages(model)),
        "depths": lambda model: tuple(len(stage.blocks) for stage in stages(model)),
        "patch": lambda model: model.stem.conv.kernel_size[0],
        "channels": lambda model: model.stem.conv.in_channels,
        "act": lambda model: model.stage1.blocks[0].mlp.act,
        "eps": lambda model: model.norm.eps,
        "classes": outputs,
    },
    body="embeddings|encoder|layernorm",
    prefixes={None: "convnext."},
    # Images of any size will do; the others name the outputs of a backbone, which are all there.
    unused=("image_size", "out_features", "out_indices", "stage_names"),
    settle=_settle,
)
