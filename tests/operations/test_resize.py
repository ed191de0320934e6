"""Embeddings for longer inputs and more tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_zoo import fixture


def test_cubic_interpolation_is_that_of_pytorch():
    found = fixture("vit/interpolated")
    weight = found.model.embeddings.position.weight
    resized = gx.resize_positions(weight, (4, 6), prefix=1)
    expected = found.io["output.larger.position_embeddings"][0]
    np.testing.assert_allclose(resized, expected, atol=1e-6)


def test_linear_interpolation_is_that_between_half_pixel_centres():
    weight = jnp.arange(5.0)[:, None] ** 2
    resized = gx.resize_positions(weight, 12, method="linear")[:, 0]
    centres = np.clip((np.arange(12) + 0.5) * 5 / 12 - 0.5, 0, 4)
    np.testing.assert_allclose(resized, np.interp(centres, np.arange(5), weight[:, 0]), atol=1e-5)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("size", [9, (3, 3)])
def test_the_same_size_changes_nothing(method, size):
    weight = jax.random.normal(jax.random.key(0), (10, 4))
    resized = gx.resize_positions(weight, size, prefix=1, method=method)
    np.testing.assert_allclose(resized, weight, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "prefix", "method", "message"),
    [
        (0, 0, "cubic", "positive"),
        ((3, 0), 1, "cubic", "positive"),
        ((3, 3), 0, "cubic", "no square.*prefix"),
        (3, 0, "nearest", "'nearest'"),
    ],
)
def test_what_cannot_be_resized_is_refused(size, prefix, method, message):
    with pytest.raises(ValueError, match=message):
        gx.resize_positions(jnp.ones((10, 4)), size, prefix=prefix, method=method)


@pytest.mark.parametrize("key", [None, jax.random.key(1)])
def test_old_tokens_keep_their_rows_and_new_ones_are_near_the_mean(key):
    layer = eqx.nn.Embedding(50, 4, key=jax.random.key(0))
    more = gx.expand_vocabulary(layer, 53, key=key)
    assert more.num_embeddings == 53 and (more.weight[:50] == layer.weight).all()
    old, new = np.asarray(layer.weight), np.asarray(more.weight[50:])
    mean = old.mean(axis=0)
    if key is None:
        np.testing.assert_allclose(new, [mean] * 3, atol=1e-6)
    else:
        assert (np.abs(new - mean) < old.std(axis=0)).all()
        assert len(np.unique(new[:, 0])) == 3


def test_scores_of_old_tokens_stay():
    layer = eqx.nn.Linear(4, 10, key=jax.random.key(0))
    more = gx.expand_vocabulary(layer, 12)
    assert more.out_features == 12
    np.testing.assert_allclose(more(jnp.ones(4))[:10], layer(jnp.ones(4)), atol=1e-6)


def test_what_has_no_vocabulary_and_fewer_tokens_are_refused():
    with pytest.raises(TypeError, match="LayerNorm"):
        gx.expand_vocabulary(eqx.nn.LayerNorm(3), 4)
    with pytest.raises(ValueError, match="50 tokens already"):
        gx.expand_vocabulary(eqx.nn.Embedding(50, 4, key=jax.random.key(0)), 40)
