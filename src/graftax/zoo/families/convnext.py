"""ConvNeXt: Liu et al., A ConvNet for the 2020s, arXiv:2201.03545."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ...structure import Chain, SkipConnection
from ..config import Config, ConfigError, Recipe
from ..convolution import POOL, Pixelwise, Scale, conv
from ..trunk import activation

# Of every norm but the last, whatever the configuration says.
_EPS = 1e-6


def convnext(
    *,
    widths: Sequence[int] = (96, 192, 384, 768),
    depths: Sequence[int] = (3, 3, 9, 3),
    patch: int = 4,
    channels: int = 3,
    act: Callable,
    eps: float = 1e-12,
    scale: float | None = 1e-6,
    classes: int | None = 1000,
    key: Any,
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
    into = widths[0]
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        first, *rest = jax.random.split(keys[i], depth + 1)
        stage: dict[str, Any] = {}
        if i > 0:
            halve = conv(into, width, 2, stride=2, padding=0, bias=True, key=first)
            stage["downsample"] = Chain(norm=_norm(into), conv=halve)
        stage["blocks"] = Chain([convnext_block(width, act, scale=scale, key=k) for k in rest])
        parts[f"stage{i + 1}"] = Chain(stage)
        into = width
    parts |= {"pool": POOL, "norm": eqx.nn.LayerNorm(into, eps=eps)}
    if classes is not None:
        parts["head"] = eqx.nn.Linear(into, classes, key=keys[-2])
    return Chain(parts)


def convnext_block(
    width: int, act: Callable, *, scale: float | None = 1e-6, key: Any
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
    return SkipConnection(parts)


def _norm(width: int) -> Pixelwise:
    return Pixelwise(eqx.nn.LayerNorm(width, eps=_EPS))


def _names(prefix: str, stages: int) -> dict[str, str]:
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


def recipe(config: Config, names: Collection[str]) -> Recipe:
    """ConvNeXt as `config.json` of Hugging Face describes it. Raises `ConfigError`."""
    architecture = config.architecture(["ConvNextForImageClassification", "ConvNextModel"])
    widths = tuple(config.get("hidden_sizes", (96, 192, 384, 768)))
    depths = tuple(config.get("depths", (3, 3, 9, 3)))
    stages = config.get("num_stages", len(widths))
    if not stages == len(widths) == len(depths):
        raise ConfigError(
            f"{config.name!r} has num_stages={stages}, {len(widths)} hidden_sizes and {len(depths)} "
            "depths: these must be as many."
        )
    config.only("drop_path_rate", [0.0])
    scale = config.get("layer_scale_init_value", 1e-6)
    settings: dict[str, Any] = {
        "widths": widths,
        "depths": depths,
        "patch": config.get("patch_size", 4),
        "channels": config.get("num_channels", 3),
        "act": activation(config.get("hidden_act", "gelu")),
        "eps": config.get("layer_norm_eps", 1e-12),
        "scale": scale if scale > 0 else None,
        "classes": None if architecture == "ConvNextModel" else config.labels(),
    }
    # Images of any size will do; the others name the outputs of a backbone, which are all there.
    for key in ("image_size", "out_features", "out_indices", "stage_names"):
        config.get(key, None)
    prefix = "convnext." if any(name.startswith("convnext.") for name in names) else ""
    return Recipe(lambda key: convnext(**settings, key=key), _names(prefix, len(widths)))
