"""Vision transformer: Dosovitskiy et al., arXiv:2010.11929."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...files import Layout
from ...structure import Chain, Residual
from ..config import Config
from ..convolution import ToTokens
from ..embeddings import ClassToken, PositionEmbedding
from ..family import Checkpoint, Family, Names, Settings, with_prefix
from ..images import Conv2d, ImageSize
from ..keys import ACTIVATION, CLASSES, EPSILON, FLAG, PAIR, RATE, SIZE, Key
from ..layers import Take
from ..measures import ENCODER
from ..trunk import attention, encoder, layer_norm, mlp, pre_norm_block


def vit(
    *,
    image: tuple[int, int] = (224, 224),
    patch: tuple[int, int] = (16, 16),
    channels: int = 3,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    inner: int = 3072,
    act: Callable[..., Any],
    eps: float = 1e-12,
    bias: bool = True,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    head: str | None = "classifier",
    classes: int = 1000,
    pooler_act: Callable[..., Any] = jax.numpy.tanh,
    key: PRNGKeyArray,
) -> Chain:
    """ViT on one image: `(channels, h, w)` to what the head gives.

    `model[:"pool"]`, or `model[:"pooler"]`, is the body, with `(1 + patches, width)`.

    **Arguments:**

    - `image`, `patch`: height and width, in pixels. Images of another size are refused.
    - `channels`: of the image.
    - `width`, `depth`, `heads`, `inner`: of a token, the encoder, each attention, each MLP.
    - `act`: the activation in each MLP.
    - `eps`: of each LayerNorm.
    - `bias`: whether query, key and value have one.
    - `dropout`: after the embeddings and before each residual.
    - `attention_dropout`: of the probabilities with which a token sees another.
    - `head`: None for the tokens; `"pooler"` or `"classifier"` for `(classes,)`, of the class token.
    - `classes`: the outputs of the head.
    - `pooler_act`: the activation after the pooler.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: another head, or heads that do not share the width evenly.
    """
    projection, first, places, last, blocks = jax.random.split(key, 5)
    block = functools.partial(
        vit_block,
        width,
        heads,
        inner,
        act,
        eps=eps,
        bias=bias,
        dropout=dropout,
        attention_dropout=attention_dropout,
    )
    patches = (image[0] // patch[0]) * (image[1] // patch[1])
    embeddings = Chain(
        patches=Conv2d(channels, width, patch, stride=patch, key=projection),
        tokens=ToTokens(),
        class_token=ClassToken(width, key=first),
        position=Residual(PositionEmbedding(1 + patches, width, exact=True, key=places)),
        dropout=eqx.nn.Dropout(dropout),
    )
    parts: dict[str, Callable[..., Any]] = {
        "embeddings": ImageSize(embeddings, image),
        "encoder": encoder([block] * depth, key=blocks),
        "norm": layer_norm(width, eps),
    }
    linear = eqx.nn.Linear(width, classes, key=last)
    if head not in (None, "pooler", "classifier"):
        raise ValueError(f"There is no head {head!r} for this model.")
    if head == "pooler":
        parts["pooler"] = Chain(first=Take(0), dense=linear, act=pooler_act)
    if head == "classifier":
        parts |= {"pool": Take(0), "head": linear}
    return Chain(parts)


def vit_block(
    width: int,
    heads: int,
    inner: int,
    act: Callable[..., Any],
    *,
    eps: float,
    bias: bool = True,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    key: PRNGKeyArray,
) -> Chain:
    """One block, `(t, width)` to `(t, width)`, its norms before what the residuals go round."""
    k1, k2 = jax.random.split(key)
    attend = attention(
        width,
        heads,
        bias=bias,
        output_bias=True,
        dropout=dropout,
        attention_dropout=attention_dropout,
        key=k1,
    )
    return pre_norm_block(
        attend,
        mlp(width, inner, act, dropout=dropout, key=k2),
        lambda: layer_norm(width, eps),
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


_WIDTH = Key("hidden_size", SIZE, 768)
_KEYS = {
    "image": Key("image_size", PAIR, 224),
    "patch": Key("patch_size", PAIR, 16),
    "channels": Key("num_channels", SIZE, 3),
    "width": _WIDTH,
    "depth": Key("num_hidden_layers", SIZE, 12, blocks={"encoder.{i}": "encoder.layer.{i}"}),
    "heads": Key("num_attention_heads", SIZE, 12),
    "inner": Key("intermediate_size", SIZE, 3072),
    "act": Key("hidden_act", ACTIVATION, "gelu"),
    "eps": Key("layer_norm_eps", EPSILON, 1e-12),
    "bias": Key("qkv_bias", FLAG, True),
    "dropout": Key("hidden_dropout_prob", RATE, 0.0),
    "attention_dropout": Key("attention_probs_dropout_prob", RATE, 0.0),
    "classes": CLASSES,
    "pooler_act": Key("pooler_act", ACTIVATION, "tanh"),
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    width, image, patch = settings["width"], settings["image"], settings["patch"]
    positions = 1 + (image[0] // patch[0]) * (image[1] // patch[1])
    places = Layout("embeddings.position_embeddings", shape=(1, positions, width))
    rename = {
        "embeddings.class_token.weight": Layout("embeddings.cls_token", shape=(1, 1, width)),
        "embeddings.position.weight": places,
        **_RENAME,
        ".head": "classifier",
        **with_prefix(checkpoint.prefix, "embeddings", "encoder", "layernorm"),
    }
    return Names(
        rename,
        ("mask_token",) if settings["head"] == "pooler" else ("mask_token", "pooler.dense.{p}"),
    )


def _settle(config: Config, settings: Settings) -> Settings:
    image, patch = settings["image"], settings["patch"]
    if patch[0] > image[0] or patch[1] > image[1]:
        raise config.error(
            "image_size", f"; it should hold a patch, and patch_size={patch[0]} x {patch[1]}."
        )
    pooled = config.value(Key("pooler_output_size", SIZE, _WIDTH))
    if settings["head"] != "pooler":
        return settings
    return settings | {"classes": pooled}


FAMILY = Family(
    build=vit,
    keys=_KEYS,
    heads={"ViTForImageClassification": "classifier", "ViTModel": "pooler"},
    names=_names,
    measures={
        **ENCODER,
        "image": lambda model: model.embeddings.image,
        "patch": lambda model: model.embeddings.patches.kernel_size,
        "channels": lambda model: model.embeddings.patches.in_channels,
        "width": lambda model: model.embeddings.patches.out_channels,
        "eps": lambda model: model.norm.eps,
    },
    body="embeddings|encoder|layernorm",
    prefixes={None: "vit."},
    # Of the decoder in masked-image modelling alone.
    unused=("encoder_stride",),
    settle=_settle,
)
