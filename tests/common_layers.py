"""Layers of Equinox and graftax, one of each kind, for what holds for all of them."""

import equinox as eqx
import jax
import jax.numpy as jnp

import graftax as gx
from common_surgery import linear

KEY = jax.random.key(0)
nn = eqx.nn


def conv(**options):
    return nn.Conv2d(4, 8, 3, key=KEY, **options)


def stacked():
    return eqx.filter_vmap(lambda key: nn.Linear(3, 5, key=key))(jax.random.split(KEY, 7))


LAYERS = {
    "Linear": lambda: nn.Linear(3, 5, key=KEY),
    "Linear of scalars": lambda: nn.Linear("scalar", "scalar", key=KEY),
    "Linear stacked": stacked,
    "Conv": lambda: nn.Conv(2, 4, 8, 3, key=KEY),
    "Conv1d": lambda: nn.Conv1d(4, 8, 3, stride=2, padding=1, key=KEY),
    "Conv2d": lambda: conv(padding="same", groups=2, use_bias=False),
    "Conv3d": lambda: nn.Conv3d(2, 2, (1, 2, 3), dilation=2, key=KEY),
    "ConvTranspose1d": lambda: nn.ConvTranspose1d(2, 4, 3, stride=2, output_padding=1, key=KEY),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(2, 4, 3, padding="SAME", key=KEY),
    "ConvTranspose3d": lambda: nn.ConvTranspose3d(2, 2, 1, groups=2, key=KEY),
    "AvgPool1d": lambda: nn.AvgPool1d(2, 2, use_ceil=True),
    "MaxPool2d": lambda: nn.MaxPool2d((2, 3), padding=1),
    "MaxPool3d": lambda: nn.MaxPool3d(2, padding=(0, 1, 1)),
    "Pool": lambda: nn.Pool(0, jax.lax.add, 2, 3),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(3),
    "AdaptivePool": lambda: nn.AdaptivePool(3, 1, jnp.max),
    "Embedding": lambda: nn.Embedding(6, 4, key=KEY),
    "RotaryPositionalEmbedding": lambda: nn.RotaryPositionalEmbedding(4),
    "LayerNorm": lambda: nn.LayerNorm((2, 3)),
    "LayerNorm without": lambda: nn.LayerNorm(3, use_weight=False, use_bias=False),
    "RMSNorm": lambda: nn.RMSNorm(3, use_bias=False),
    "GroupNorm": lambda: nn.GroupNorm(2, 4),
    "BatchNorm of batches": lambda: nn.BatchNorm(4, axis_name="batch", mode="batch"),
    "BatchNorm of averages": lambda: nn.BatchNorm(4, axis_name="batch", mode="ema"),
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 16, key_size=5, vo_size=3, key=KEY),
    "MLP": lambda: nn.MLP(2, 3, 4, 2, key=KEY),
    "MLP of scalars": lambda: nn.MLP("scalar", "scalar", 4, 1, key=KEY),
    "MLP scanned": lambda: nn.MLP(2, 3, 4, 3, scan=True, key=KEY),
    "MLP that learns": lambda: nn.MLP(2, 3, 4, 2, activation=nn.PReLU(), key=KEY),
    "GRUCell": lambda: nn.GRUCell(2, 3, key=KEY),
    "LSTMCell": lambda: nn.LSTMCell(2, 3, use_bias=False, key=KEY),
    "Dropout": lambda: nn.Dropout(0.5),
    "PReLU": lambda: nn.PReLU(),
    "Lambda": lambda: nn.Lambda(jnp.tanh),
    "Identity": lambda: nn.Identity(),
    "Sequential": lambda: nn.Sequential([nn.Lambda(jnp.tanh), linear(2, 2, 0)]),
    "WeightNorm": lambda: nn.WeightNorm(linear(3, 5, 0)),
    "SpectralNorm": lambda: nn.SpectralNorm(linear(3, 5, 0), "weight", key=KEY),
    "Cast": lambda: gx.Cast(linear(2, 2, 0), jnp.bfloat16),
    "Vmap": lambda: gx.Vmap(linear(2, 2, 0), axis_name="batch"),
    "LoRA": lambda: gx.LoRA(linear(2, 2, 0), rank=1, key=KEY),
    "DotProductAttention": lambda: gx.zoo.DotProductAttention(2, causal=True),
}
