"""The activations that configurations name are those of the libraries that named them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graftax.zoo.activations import ACTIVATIONS

X = np.linspace(-4, 4, 33, dtype=np.float32)
EXACT = [0.5 * x * (1 + float(jax.scipy.special.erf(x / np.sqrt(2)))) for x in X]
CUBIC = 0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3)))
EXPECTED = {
    **dict.fromkeys(("gelu", "gelu_python"), EXACT),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate"), CUBIC),
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_python_tanh"), CUBIC),
    "quick_gelu": X / (1 + np.exp(-1.702 * X)),
    "relu": np.maximum(X, 0),
    "relu6": np.clip(X, 0, 6),
    "leaky_relu": np.where(X > 0, X, 0.01 * X),
    **dict.fromkeys(("silu", "swish"), X / (1 + np.exp(-X))),
    "tanh": np.tanh(X),
    "sigmoid": 1 / (1 + np.exp(-X)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_name_means_its_formula(name):
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(X)), EXPECTED[name], atol=2e-6)
