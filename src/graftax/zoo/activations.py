"""The activations that configurations name."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from .layers import QuickGELU

_EXACT = functools.partial(jax.nn.gelu, approximate=False)

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "gelu": _EXACT,
    "gelu_new": jax.nn.gelu,
    # The same two functions, written otherwise: for speed, for TensorFlow, for old versions of PyTorch.
    "gelu_python": _EXACT,
    "gelu_fast": jax.nn.gelu,
    "gelu_accurate": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "gelu_python_tanh": jax.nn.gelu,
    "quick_gelu": QuickGELU(),
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jax.numpy.tanh,
    "sigmoid": jax.nn.sigmoid,
}
"""Hugging Face's names of activations, and the functions they mean."""
