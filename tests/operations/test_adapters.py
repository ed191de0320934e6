"""`adapter` is the identity at first, and a bottleneck with a way round it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx

KEY = jax.random.key(0)


@pytest.mark.parametrize("dtype", [None, jnp.float16, jnp.bfloat16])
def test_an_adapter_is_the_identity_at_first(dtype):
    x = jax.random.normal(KEY, (6,), dtype or jnp.float32)
    y = gx.adapter(6, 2, dtype=dtype, key=KEY)(x)
    assert y.dtype == x.dtype and (y == x).all()


def test_a_trained_adapter_adds_what_its_bottleneck_gives():
    layer = gx.select(gx.adapter(6, 2, act=jnp.tanh, key=KEY), "expand.*").apply(
        lambda a: a + jnp.arange(float(a.size)).reshape(a.shape)
    )
    x = jnp.arange(6.0)
    inner = jnp.tanh(layer.reduce.weight @ x + layer.reduce.bias)
    expected = x + layer.expand.weight @ inner + layer.expand.bias
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)


def test_an_adapter_behind_a_layer_leaves_the_model_as_it_was():
    model = gx.Chain(up=lambda x: 2 * x, down=jnp.sin)
    adapted = gx.select(model, "up").insert_after(adapter=gx.adapter(4, 2, key=KEY))
    np.testing.assert_allclose(adapted(jnp.arange(4.0)), model(jnp.arange(4.0)))


@pytest.mark.parametrize("sizes", [(0, 2), (4, 0), (4, -1)])
def test_sizes_that_are_not_positive_are_refused(sizes):
    with pytest.raises(ValueError, match="must be positive"):
        gx.adapter(*sizes, key=KEY)
