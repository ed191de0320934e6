"""`quantize` is off by at most half a step of each row."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_quantised_weight_is_off_by_at_most_half_a_step(use_bias):
    layer = eqx.nn.Linear(32, 16, use_bias=use_bias, key=jax.random.key(0))
    small = gx.quantize(layer)
    weight, rounded, scale = map(np.asarray, (layer.weight, small.weight, small.scale))
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    error = np.abs(rounded * scale[:, None] - weight)
    assert small.weight.dtype == jnp.int8 and (error <= 0.501 * step).all()
    x = jax.random.normal(jax.random.key(1), (32,))
    bound = 0.501 * step[:, 0] * float(jnp.abs(x).sum()) + 1e-5
    assert (np.abs(np.asarray(eqx.filter_jit(small)(x)) - np.asarray(layer(x))) <= bound).all()


def test_weights_on_the_grid_are_kept_exactly():
    layer = gx.update(
        eqx.nn.Linear(3, 2, key=jax.random.key(0)),
        weight=jnp.array([[127.0, -3.0, 0.0], [0.0, 0.0, 0.0]]),
    )
    small = gx.quantize(layer)
    assert (small.weight == jnp.array([[127, -3, 0], [0, 0, 0]])).all()
    assert jnp.isfinite(small(jnp.ones(3))).all()


def test_all_linear_layers_but_one_are_a_difference_of_selections():
    mlp = eqx.nn.MLP(4, 4, 8, 2, key=jax.random.key(0))
    linear = gx.select(mlp, eqx.nn.Linear)
    small = (linear - gx.select(mlp, "layers[-1]")).apply(gx.quantize)
    kinds = [type(layer).__name__ for layer in small.layers]
    assert kinds == ["QuantizedLinear", "QuantizedLinear", "Linear"]
    assert small.layers[-1].weight is mlp.layers[-1].weight
    x = jnp.ones(4)
    np.testing.assert_allclose(jax.vmap(small)(x[None])[0], mlp(x), atol=0.05)


def test_the_dtype_of_the_input_is_kept():
    small = gx.quantize(eqx.nn.Linear(3, 2, key=jax.random.key(0)))
    assert small(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("layer", [jax.nn.relu, eqx.nn.Linear("scalar", 3, key=jax.random.key(0))])
def test_what_is_no_linear_layer_between_vectors_is_refused(layer):
    with pytest.raises(TypeError):
        gx.quantize(layer)
