"""The parts that all transformers of the zoo are made of."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from ..structure import Chain, Parallel, Vmap
from .config import ConfigError
from .layers import DotProductAttention, QuickGELU

ACTIVATIONS: dict[str, Callable] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "quick_gelu": QuickGELU(),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jax.numpy.tanh,
    "sigmoid": jax.nn.sigmoid,
}
"""Hugging Face's names of activations, and the functions they mean."""


def activation(name: str) -> Callable:
    """The activation of this name. Raises `ConfigError` for an unknown one."""
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"The activation {name!r} is not known. Known are: {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]


def attention(
    width: int,
    heads: int,
    *,
    head_size: int | None = None,
    kv_heads: int | None = None,
    bias: bool = True,
    output_bias: bool | None = None,
    causal: bool = False,
    scale: float | None = None,
    rotary: Callable | None = None,
    dropout: float = 0.0,
    key: Any,
) -> Parallel:
    """Multi-head self-attention, `(t, width)` to `(t, width)`, with `query`, `key`, `value` and `output`.

    **Arguments:**

    - `width`: the size of a token.
    - `heads`, `head_size`: of the queries; `head_size` is `width // heads` if None.
    - `kv_heads`: the number of key and value heads; `heads` if None.
    - `bias`, `output_bias`: whether query, key and value, and the output, have a bias.
    - `causal`: whether a token sees only itself and what stands before it.
    - `scale`: what scores are multiplied with; 1 / sqrt(head_size) if None.
    - `rotary`: a layer for queries and keys.
    - `dropout`: after the output.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: the heads do not share the width evenly, or the key heads the query heads.
    """
    if head_size is None and width % heads:
        raise ValueError(f"{heads} heads cannot share a width of {width} evenly: give head_size.")
    head_size = width // heads if head_size is None else head_size
    kv_heads = heads if kv_heads is None else kv_heads
    output_bias = bias if output_bias is None else output_bias
    keys = jax.random.split(key, 4)
    inner, kv = heads * head_size, kv_heads * head_size
    attend = DotProductAttention(
        heads, kv_heads=kv_heads, causal=causal, scale=scale, rotary=rotary
    )
    output = Vmap(eqx.nn.Linear(inner, width, use_bias=output_bias, key=keys[3]))
    return Parallel(
        query=Vmap(eqx.nn.Linear(width, inner, use_bias=bias, key=keys[0])),
        key=Vmap(eqx.nn.Linear(width, kv, use_bias=bias, key=keys[1])),
        value=Vmap(eqx.nn.Linear(width, kv, use_bias=bias, key=keys[2])),
        op=Chain(attend=attend, output=output, dropout=eqx.nn.Dropout(dropout)),
    )


def mlp(
    width: int, inner: int, act: Callable, *, bias: bool = True, dropout: float = 0.0, key: Any
) -> Chain:
    """The feed-forward part of a block, `(t, width)` to `(t, width)`: `up`, `act`, `down`, `dropout`."""
    k1, k2 = jax.random.split(key)
    return Chain(
        up=Vmap(eqx.nn.Linear(width, inner, use_bias=bias, key=k1)),
        act=act,
        down=Vmap(eqx.nn.Linear(inner, width, use_bias=bias, key=k2)),
        dropout=eqx.nn.Dropout(dropout),
    )


def gated_mlp(
    width: int, inner: int, act: Callable, *, bias: bool = True, dropout: float = 0.0, key: Any
) -> Parallel:
    """`down(act(gate(x)) * up(x))`, `(t, width)` to `(t, width)`: SwiGLU if `act` is `jax.nn.silu`.

    Source: Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202.
    """
    k1, k2, k3 = jax.random.split(key, 3)
    return Parallel(
        gate=Vmap(eqx.nn.Linear(width, inner, use_bias=bias, key=k1)),
        up=Vmap(eqx.nn.Linear(width, inner, use_bias=bias, key=k2)),
        op=Chain(
            multiply=Parallel(act=act, same=Chain(), op=operator.mul),
            down=Vmap(eqx.nn.Linear(inner, width, use_bias=bias, key=k3)),
            dropout=eqx.nn.Dropout(dropout),
        ),
    )


def layer_norm(width: int, eps: float) -> Vmap:
    """LayerNorm of each token, `(t, width)` to `(t, width)`."""
    return Vmap(eqx.nn.LayerNorm(width, eps=eps))


def rms_norm(width: int, eps: float) -> Vmap:
    """RMSNorm of each token, `(t, width)` to `(t, width)`."""
    return Vmap(eqx.nn.RMSNorm(width, eps=eps, use_bias=False))
