"""Vision transformer: Dosovitskiy et al., arXiv:2010.11929."""

from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax

from ...files import Layout
from ...structure import Chain
from ..config import Config, Recipe
from ..convolution import ToTokens
from ..layers import ClassToken, PositionEmbedding, Residual, Take
from ..trunk import activation, attention, layer_norm, mlp


def vit(
    *,
    image: tuple[int, int] = (224, 224),
    patch: tuple[int, int] = (16, 16),
    channels: int = 3,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    inner: int = 3072,
    act: Callable,
    eps: float = 1e-12,
    bias: bool = True,
    dropout: float = 0.0,
    head: str | None = "classifier",
    classes: int = 1000,
    pooler_act: Callable = jax.numpy.tanh,
    key: Any,
) -> Chain:
    """ViT on one image: `(channels, h, w)` to what the head gives.

    `model[:"pool"]`, or `model[:"pooler"]`, is the body, with `(1 + patches, width)`.

    **Arguments:**

    - `image`, `patch`: height and width, in pixels.
    - `channels`: of the image.
    - `width`, `depth`, `heads`, `inner`: of a token, the encoder, each attention, each MLP.
    - `act`: the activation in each MLP.
    - `eps`: of each LayerNorm.
    - `bias`: whether query, key and value have one.
    - `dropout`: after the embeddings and before each residual.
    - `head`: None for the tokens; `"pooler"` or `"classifier"` for `(classes,)`, of the class token.
    - `classes`: the outputs of the head.
    - `pooler_act`: the activation after the pooler.
    - `key`: a random key.
    """
    keys = jax.random.split(key, depth + 4)
    patches = (image[0] // patch[0]) * (image[1] // patch[1])
    parts: dict[str, Any] = {
        "embeddings": Chain(
            patches=eqx.nn.Conv2d(channels, width, patch, stride=patch, key=keys[0]),
            tokens=ToTokens(),
            class_token=ClassToken(width, key=keys[1]),
            position=Residual(PositionEmbedding(1 + patches, width, key=keys[2])),
            dropout=eqx.nn.Dropout(dropout),
        ),
        "encoder": Chain(
            [
                vit_block(width, heads, inner, act, eps=eps, bias=bias, dropout=dropout, key=k)
                for k in keys[4:]
            ]
        ),
        "norm": layer_norm(width, eps),
    }
    linear = eqx.nn.Linear(width, classes, key=keys[3])
    if head == "pooler":
        parts["pooler"] = Chain(first=Take(0), dense=linear, act=pooler_act)
    if head == "classifier":
        parts |= {"pool": Take(0), "head": linear}
    return Chain(parts)


def vit_block(
    width: int,
    heads: int,
    inner: int,
    act: Callable,
    *,
    eps: float,
    bias: bool = True,
    dropout: float = 0.0,
    key: Any,
) -> Chain:
    """One block, `(t, width)` to `(t, width)`, its norms before what the residuals go round."""
    k1, k2 = jax.random.split(key)
    attend = attention(width, heads, bias=bias, output_bias=True, dropout=dropout, key=k1)
    return Chain(
        attention=Residual(attend, norm1=layer_norm(width, eps)),
        mlp=Residual(mlp(width, inner, act, dropout=dropout, key=k2), norm2=layer_norm(width, eps)),
    )


_RENAME: dict[str, str] = {
    "embeddings.patches": "embeddings.patch_embeddings.projection",
    "encoder.{i}.attention.op.output": "encoder.layer.{i}.attention.output.dense",
    "encoder.{i}.attention.norm1": "encoder.layer.{i}.layernorm_before",
    "encoder.{i}.attention.{p}": "encoder.layer.{i}.attention.attention.{p}",
    "encoder.{i}.mlp.norm2": "encoder.layer.{i}.layernorm_after",
    "encoder.{i}.mlp.up": "encoder.layer.{i}.intermediate.dense",
    "encoder.{i}.mlp.down": "encoder.layer.{i}.output.dense",
    ".norm": "layernorm",
}


def recipe(config: Config, names: Collection[str]) -> Recipe:
    """ViT as `config.json` of Hugging Face describes it. Raises `ConfigError`."""
    architecture = config.architecture(["ViTForImageClassification", "ViTModel"])
    config.get("attention_probs_dropout_prob", 0.0)
    config.get("encoder_stride", 16)  # of the decoder in masked-image modelling alone
    head = "classifier" if architecture == "ViTForImageClassification" else "pooler"
    if head == "pooler" and not any("pooler" in name for name in names):
        head = None
    width = config.get("hidden_size", 768)
    pooled = config.get("pooler_output_size", width)
    pooler_act = activation(config.get("pooler_act", "tanh"))
    image, patch = (
        _pair(config.get(f"{what}_size", n)) for what, n in (("image", 224), ("patch", 16))
    )
    positions = 1 + (image[0] // patch[0]) * (image[1] // patch[1])
    settings: dict[str, Any] = {
        "image": image,
        "patch": patch,
        "channels": config.get("num_channels", 3),
        "width": width,
        "depth": config.get("num_hidden_layers", 12),
        "heads": config.get("num_attention_heads", 12),
        "inner": config.get("intermediate_size", 3072),
        "act": activation(config.get("hidden_act", "gelu")),
        "eps": config.get("layer_norm_eps", 1e-12),
        "bias": config.get("qkv_bias", True),
        "dropout": config.get("hidden_dropout_prob", 0.0),
        "head": head,
        "classes": config.labels() if head == "classifier" else pooled,
        "pooler_act": pooler_act,
    }
    prefix = "vit." if any(name.startswith("vit.") for name in names) else ""
    return Recipe(
        lambda key: vit(**settings, key=key),
        {
            "embeddings.class_token.weight": Layout("embeddings.cls_token", shape=(1, 1, width)),
            "embeddings.position.weight": Layout(
                "embeddings.position_embeddings", shape=(1, positions, width)
            ),
            **_RENAME,
            ".head": "classifier",
            **({f".{part}": f"{prefix}{part}" for part in ("embeddings", "encoder", "layernorm")}),
        },
        ("mask_token", *(() if head == "pooler" else ("pooler.dense.{p}",))),
    )


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
