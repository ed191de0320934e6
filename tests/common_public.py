"""An instance of everything public that can be part of a model, by name: small, and with every argument.

A new public layer or builder needs a line here; `tests/files/test_round_trip.py` says which is missing.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import common_named as named
import graftax as gx
from common_files import linear

KEY = jax.random.key(0)
nn, zoo, relu = eqx.nn, gx.zoo, jax.nn.relu


OF_EQUINOX: dict[str, Callable[[], Any]] = {
    "AdaptiveAvgPool1d": lambda: nn.AdaptiveAvgPool1d(2),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((2, 3)),
    "AdaptiveAvgPool3d": lambda: nn.AdaptiveAvgPool3d(2),
    "AdaptiveMaxPool1d": lambda: nn.AdaptiveMaxPool1d(2),
    "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(2),
    "AdaptiveMaxPool3d": lambda: nn.AdaptiveMaxPool3d((1, 2, 3)),
    "AdaptivePool": lambda: nn.AdaptivePool(2, 1, jnp.median),
    "AvgPool1d": lambda: nn.AvgPool1d(2, 2, padding=1),
    "AvgPool2d": lambda: nn.AvgPool2d(2, (2, 1), use_ceil=True),
    "AvgPool3d": lambda: nn.AvgPool3d(2),
    "BatchNorm": lambda: [nn.BatchNorm(2, "b", mode=m) for m in ("ema", "batch")],
    "Conv": lambda: nn.Conv(1, 2, 2, 3, dilation=2, padding="SAME_LOWER", key=KEY),
    "Conv1d": lambda: nn.Conv1d(2, 2, 3, padding="VALID", padding_mode="CIRCULAR", key=KEY),
    "Conv2d": lambda: nn.Conv2d(
        2, 4, (3, 1), 2, ((1, 0), (0, 0)), groups=2, use_bias=False, key=KEY
    ),
    "Conv3d": lambda: nn.Conv3d(1, 1, 2, dtype=jnp.bfloat16, key=KEY),
    "ConvTranspose": lambda: nn.ConvTranspose(1, 2, 2, 3, 2, 1, key=KEY),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(2, 2, 3, padding="SAME", key=KEY),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(2, 2, 3, dtype=jnp.float16, key=KEY),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(1, 1, 2, dilation=2, key=KEY),
    "Dropout": lambda: nn.Dropout(0.25, inference=True),
    "Embedding": lambda: [nn.Embedding(4, 2, key=KEY), nn.Embedding(weight=jnp.ones((3, 2)))],
    "GRUCell": lambda: nn.GRUCell(2, 3, use_bias=False, key=KEY),
    "GroupNorm": lambda: [nn.GroupNorm(2, 4, eps=1e-3), nn.GroupNorm(2, channelwise_affine=False)],
    "Identity": lambda: nn.Identity(),
    "LSTMCell": lambda: nn.LSTMCell(2, 3, key=KEY),
    "Lambda": lambda: nn.Lambda(jnp.ravel),
    "LayerNorm": lambda: nn.LayerNorm((2, 3), use_bias=False),
    "Linear": lambda: [linear(2, 3), nn.Linear("scalar", 2, dtype=jnp.bfloat16, key=KEY)],
    "MLP": lambda: [
        nn.MLP(2, "scalar", 3, 2, final_activation=jnp.tanh, key=KEY),
        nn.MLP(2, 2, 2, 1, named.square, key=KEY),
    ],
    "MaxPool1d": lambda: nn.MaxPool1d(2),
    "MaxPool2d": lambda: nn.MaxPool2d(2, 2, padding=1),
    "MaxPool3d": lambda: nn.MaxPool3d(2, use_ceil=True),
    "MultiheadAttention": lambda: nn.MultiheadAttention(
        2, 4, 3, 2, 6, 5, 2, use_query_bias=True, dropout_p=0.1, inference=True, key=KEY
    ),
    "PReLU": lambda: nn.PReLU(0.1),
    "Pool": lambda: nn.Pool(-jnp.inf, jax.lax.max, 1, 2),
    "RMSNorm": lambda: nn.RMSNorm(4, use_weight=False, dtype=jnp.float16),
    "RotaryPositionalEmbedding": lambda: nn.RotaryPositionalEmbedding(4, dtype=jnp.bfloat16),
    "Sequential": lambda: nn.Sequential([linear(2, 2), nn.Lambda(relu)]),
    "Shared": lambda: nn.Shared((linear(2, 2), linear(2, 2, 1)), named.where, named.get),
    "SpectralNorm": lambda: nn.SpectralNorm(linear(3, 3), "weight", eps=1e-3, key=KEY),
    "StateIndex": lambda: nn.StateIndex((jnp.ones(2), jnp.asarray(0))),
    "WeightNorm": lambda: [
        nn.WeightNorm(linear(2, 2)),
        nn.WeightNorm(linear(2, 2), "bias", axis=None),
    ],
}
ABSTRACT_OF_EQUINOX = {"StatefulLayer", "State"}


OURS: dict[str, Callable[[], Any]] = {
    "Chain": lambda: [
        gx.Chain(),
        gx.Chain(relu, linear(2, 2)),
        gx.Chain(a=relu, b=gx.Chain(c=abs)),
    ],
    "Parallel": lambda: [
        gx.Parallel(a=relu, b=linear(2, 2), op=jnp.add, init=1.5),
        gx.Parallel(relu),
        gx.Parallel(relu, op=linear(2, 2)),
    ],
    "SkipConnection": lambda: gx.SkipConnection(a=relu, op=jnp.multiply, shortcut=linear(2, 2)),
    "PairwiseFusion": lambda: gx.PairwiseFusion(relu, linear(2, 2), op=jnp.subtract),
    "Repeat": lambda: [gx.Repeat(linear(2, 2), 3), gx.Repeat(a=relu, times=0)],
    "Vmap": lambda: gx.Vmap(gx.Vmap(linear(2, 2)), axis_name="i"),
    "Remat": lambda: gx.Remat(linear(2, 2)),
    "Cast": lambda: gx.Cast(linear(2, 2), jnp.bfloat16),
    "Wrapper": lambda: gx.Wrapper(relu),
    "Residual": lambda: gx.Residual(linear(2, 2), norm=nn.LayerNorm(2), drop=nn.Dropout(0.1)),
    "Then": lambda: gx.Remat(gx.Then(gx.Chain(a=linear(2, 2)), b=gx.Then(relu, c=linear(2, 2)))),
    "LoRA": lambda: gx.LoRA(linear(4, 4), rank=2, alpha=3.0, key=KEY),
    "QuantizedLinear": lambda: gx.quantize(linear(2, 2)),
    "branch": lambda: [
        gx.branch(sum, relu, relu, execution=e) for e in ("sequential", "vmap", "scan")
    ],
    "tie": lambda: [
        gx.tie(gx.Chain(a=linear(2, 2), b=linear(2, 2, 1)), "a.weight", "b.weight"),
        gx.tie(gx.Chain([linear(2, 2, i) for i in range(3)]), "0", "[1:]"),
        gx.tie(gx.Chain(a=zoo.BatchNorm(2), b=zoo.BatchNorm(2)), "a", "b"),
    ],
    "adapter": lambda: gx.adapter(4, 2, key=KEY),
    "quantize": lambda: gx.Chain(a=gx.Vmap(gx.quantize(linear(2, 2)))),
    "expand_vocabulary": lambda: gx.expand_vocabulary(nn.Embedding(3, 2, key=KEY), 5, key=KEY),
}

OF_ZOO: dict[str, Callable[[], Any]] = {
    "Append": lambda: zoo.Append(1),
    "AvgPool2d": lambda: zoo.AvgPool2d(2, 2, 1),
    "BatchNorm": lambda: zoo.BatchNorm(3),
    "ClassToken": lambda: zoo.ClassToken(4, 2, key=KEY),
    "Conv2d": lambda: zoo.Conv2d(2, 2, 3, key=KEY),
    "DotProductAttention": lambda: zoo.DotProductAttention(
        2, kv_heads=1, causal=True, rotary=zoo.RotaryEmbedding(), dropout=0.5
    ),
    "DropPath": lambda: zoo.DropPath(0.25),
    "DynamicRotary": lambda: zoo.DynamicRotary(factor=2.0, length=8),
    "Embedding": lambda: zoo.Embedding(5, 2, padding=1, key=KEY),
    "ImageSize": lambda: zoo.ImageSize(nn.Identity(), (4, 6)),
    "LongRotary": lambda: zoo.LongRotary(short=(1.0, 2.0), long=(3.0, 4.0), length=4),
    "MaxPool2d": lambda: zoo.MaxPool2d(2),
    "Normalize": lambda: zoo.Normalize((0.5, 0.5), (1.0, 2.0)),
    "Pixelwise": lambda: zoo.Pixelwise(linear(2, 2)),
    "PositionEmbedding": lambda: zoo.PositionEmbedding(4, 2, key=KEY),
    "Residual": lambda: zoo.Residual(linear(2, 2), norm=nn.LayerNorm(2)),
    "RotaryEmbedding": lambda: zoo.RotaryEmbedding(100.0, 2.0),
    "Scale": lambda: zoo.Scale(jnp.ones(3)),
    "Take": lambda: zoo.Take(-1),
    "ToTokens": lambda: zoo.ToTokens(),
    "TokenTypeEmbedding": lambda: zoo.TokenTypeEmbedding(2, 3, key=KEY),
    "Upsample": lambda: zoo.Upsample(3),
    "YarnRotary": lambda: zoo.YarnRotary(factor=2.0, length=8),
    "basic_block": lambda: zoo.basic_block(2, 4, stride=2, key=KEY),
    "bert": lambda: zoo.bert(
        vocabulary=5, width=4, depth=1, heads=2, inner=4, act=jax.nn.gelu, key=KEY
    ),
    "bert_block": lambda: zoo.bert_block(4, 2, 4, jax.nn.gelu, eps=1e-5, dropout=0.1, key=KEY),
    "bottleneck": lambda: zoo.bottleneck(4, 8, key=KEY),
    "convnext": lambda: zoo.convnext(
        widths=(2, 4), depths=(1, 1), act=jax.nn.gelu, classes=2, key=KEY
    ),
    "convnext_block": lambda: zoo.convnext_block(2, jax.nn.gelu, drop_path=0.5, key=KEY),
    "dense_layer": lambda: zoo.dense_layer(2, 2, 2, dropout=0.5, key=KEY),
    "densenet": lambda: zoo.densenet(depths=(1, 1), growth=2, stem=4, classes=2, key=KEY),
    "double_convolution": lambda: zoo.double_convolution(2, 2, bias=True, key=KEY),
    "googlenet": lambda: zoo.googlenet(
        widths=[[(1, 1, 1, 1, 1, 1)]] * 3, stem=(2, 2, 2), classes=2, transform=True, key=KEY
    ),
    "gpt2": lambda: zoo.gpt2(vocabulary=5, width=4, depth=1, heads=2, key=KEY),
    "gpt2_block": lambda: zoo.gpt2_block(4, 2, 4, jax.nn.gelu, eps=1e-5, dropout=0.1, key=KEY),
    "inception": lambda: zoo.inception(classes=2, divisor=16, key=KEY),
    "inception_a": lambda: zoo.inception_a(4, 2, divisor=16, key=KEY),
    "inception_b": lambda: zoo.inception_b(4, divisor=16, key=KEY),
    "inception_block": lambda: zoo.inception_block(2, (1, 2, 3, 1, 2, 3), key=KEY),
    "inception_c": lambda: zoo.inception_c(4, 16, divisor=16, key=KEY),
    "inception_d": lambda: zoo.inception_d(4, divisor=16, key=KEY),
    "inception_e": lambda: zoo.inception_e(4, divisor=16, key=KEY),
    "llama": lambda: zoo.llama(vocabulary=5, width=4, depth=1, heads=2, inner=4, key=KEY),
    "llama_block": lambda: zoo.llama_block(
        4, 2, 4, jax.nn.silu, rotary=zoo.RotaryEmbedding(), eps=1e-5, key=KEY
    ),
    "resnet": lambda: zoo.resnet(widths=(4, 4), depths=(1, 1), stem=2, classes=2, key=KEY),
    "transition": lambda: zoo.transition(4, 2, key=KEY),
    "unet": lambda: zoo.unet(widths=(2, 4), key=KEY),
    "vit": lambda: zoo.vit(
        image=(4, 4), patch=(2, 2), width=4, depth=1, heads=2, inner=4, act=jax.nn.gelu, key=KEY
    ),
    "vit_block": lambda: zoo.vit_block(4, 2, 4, jax.nn.gelu, eps=1e-5, key=KEY),
}


def cheap(make: Callable[[], Any]) -> Any:
    """What `make` builds, with other numbers: drawing them takes a program for each shape."""
    struct = eqx.filter_eval_shape(make)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(np.arange(leaf.size).reshape(leaf.shape).astype(leaf.dtype))
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else leaf
        ),
        struct,
    )


# Functions of the zoo that draw, but build nothing.
USES_A_KEY = {"generate"}
