"""`quantize` is off by at most half a step of each row."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_containers import without_annotation_checks


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
    with without_annotation_checks(), pytest.raises(TypeError, match="between vectors"):
        gx.quantize(layer)


def test_the_sizes_of_a_quantised_layer_are_those_of_its_weight():
    small = gx.quantize(eqx.nn.Linear(3, 2, key=jax.random.key(0)))
    assert (small.in_features, small.out_features) == (3, 2)


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_dequantised_layer_is_the_same_function(use_bias):
    small = gx.quantize(eqx.nn.Linear(32, 16, use_bias=use_bias, key=jax.random.key(0)))
    linear, x = small.dequantized(), jax.random.normal(jax.random.key(1), (32,))
    assert (type(linear), linear.in_features, linear.out_features) == (eqx.nn.Linear, 32, 16)
    assert (linear.bias is not None) == linear.use_bias == use_bias
    np.testing.assert_allclose(linear(x), small(x), atol=1e-5)
    assert (gx.quantize(linear).weight == small.weight).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_in_half_precision_a_weight_is_still_off_by_at_most_half_a_step(dtype, size):
    layer = eqx.nn.Linear(64, 16, dtype=dtype, key=jax.random.key(0))
    layer = gx.update(layer, weight=(size * layer.weight).astype(dtype))
    small = gx.quantize(layer)
    weight = np.asarray(layer.weight, np.float64)
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    rounded = np.asarray(small.weight, np.float64) * np.asarray(small.scale, np.float64)[:, None]
    assert (np.abs(rounded - weight) <= 0.501 * step).all()
    x = jax.random.normal(jax.random.key(1), (64,), dtype)
    assert small(x).dtype == dtype
    expected = rounded @ np.asarray(x, np.float64) + np.asarray(layer.bias, np.float64)
    np.testing.assert_allclose(np.asarray(small(x), np.float64), expected, rtol=1e-2, atol=1e-2)


def test_a_long_sum_does_not_overflow_in_half_precision():
    layer = gx.update(
        eqx.nn.Linear(2048, 1, use_bias=False, key=jax.random.key(0)),
        weight=jnp.ones((1, 2048)) / 2048,
    )
    assert float(gx.quantize(layer)(jnp.ones(2048, jnp.float16))[0]) == pytest.approx(1, rel=1e-3)


def test_integers_are_computed_with_as_numbers():
    layer = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    small = gx.quantize(layer)
    for x in (jnp.arange(3), np.arange(3)):
        np.testing.assert_allclose(small(x), small(jnp.arange(3.0)))


def test_an_input_of_another_shape_is_refused():
    small = gx.quantize(eqx.nn.Linear(3, 3, key=jax.random.key(0)))
    for x in (jnp.ones((3, 3)), jnp.ones(4), jnp.ones(())):
        with pytest.raises(ValueError, match=r"shape \(3,\)"):
            small(x)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_weights_that_are_not_finite_are_refused_or_traced_give_nan(value):
    layer = eqx.nn.Linear(3, 4, key=jax.random.key(0))
    broken = gx.update(layer, weight=layer.weight.at[2, 1].set(value))
    with pytest.raises(ValueError, match="row 2"):
        gx.quantize(broken)
    y = jax.jit(lambda weight: gx.quantize(gx.update(layer, weight=weight))(jnp.ones(3)))(
        broken.weight
    )
    assert jnp.isnan(y).tolist() == [False, False, True, False]


@pytest.mark.parametrize("size", [0.0, 1e-37, 1e-44])
def test_rows_of_zeros_and_of_numbers_too_small_give_zeros(size):
    layer = eqx.nn.Linear(3, 4, use_bias=False, key=jax.random.key(0))
    small = gx.quantize(gx.update(layer, weight=size * layer.weight))
    np.testing.assert_allclose(small(jnp.ones(3)), 0, atol=1e-35)


def test_stacked_layers_are_quantised_each():
    keys = jax.random.split(jax.random.key(0), 3)
    stacked = eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 5, key=key))(keys)
    with pytest.raises(ValueError, match=r"\(3, 5, 4\).*filter_vmap"):
        gx.quantize(stacked)
    small, x = eqx.filter_vmap(gx.quantize)(stacked), jnp.ones(4)
    ys = eqx.filter_vmap(lambda layer: layer(x))(small)
    for i, key in enumerate(keys):
        one = gx.quantize(eqx.nn.Linear(4, 5, key=key))
        assert (small.weight[i] == one.weight).all()
        np.testing.assert_allclose(ys[i], one(x), atol=1e-6)


@pytest.mark.parametrize("wrap", [gx.Vmap, gx.Remat, lambda layer: gx.Remat(gx.Vmap(layer))])
def test_wrappers_stay_around_what_is_quantised(wrap):
    layer = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    small = gx.quantize(wrap(layer))
    assert type(small) is type(wrap(layer)) and small.weight.dtype == jnp.int8
    x = jnp.ones(3) if wrap is gx.Remat else jnp.ones((5, 3))
    np.testing.assert_allclose(small(x), wrap(gx.quantize(layer))(x))


def test_a_cast_around_a_quantised_layer_keeps_its_integers():
    small = gx.quantize(eqx.nn.Linear(3, 2, key=jax.random.key(0)))
    y = gx.Cast(small, jnp.bfloat16)(jnp.ones(3))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), small(jnp.ones(3)), rtol=2e-2)


class Normalised(eqx.nn.Linear):
    """A subclass that gives its weight another meaning."""

    def __call__(self, x, *, key=None):
        return (self.weight / jnp.linalg.norm(self.weight)) @ x


@pytest.mark.parametrize(
    "layer",
    [
        Normalised(3, 2, key=jax.random.key(0)),
        eqx.nn.Linear(3, 2, dtype=jnp.complex64, key=jax.random.key(0)),
        eqx.nn.Embedding(3, 2, key=jax.random.key(0)),
        eqx.nn.WeightNorm(eqx.nn.Linear(3, 2, key=jax.random.key(0))),
        gx.quantize(eqx.nn.Linear(3, 2, key=jax.random.key(0))),
    ],
)
def test_what_another_rounding_would_change_is_refused(layer):
    with without_annotation_checks(), pytest.raises(TypeError, match="quantize takes"):
        gx.quantize(layer)


def test_a_layer_that_changes_the_weight_of_a_quantised_one_is_refused_at_the_call():
    layer = eqx.nn.WeightNorm(eqx.nn.Linear(3, 2, key=jax.random.key(0)))
    broken = gx.select(layer, eqx.nn.Linear).apply(gx.quantize)
    with pytest.raises(TypeError, match=r"int8; this one has become float32"):
        broken(jnp.ones(3))
