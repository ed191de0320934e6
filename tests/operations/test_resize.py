"""Embeddings for longer inputs and more tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_containers import without_annotation_checks
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
        ((3, 3, 3), 1, "cubic", "rows and columns"),
        (3, -1, "cubic", "prefix must leave"),
        (3, 10, "cubic", "prefix must leave"),
    ],
)
def test_what_cannot_be_resized_is_refused(size, prefix, method, message):
    with without_annotation_checks(), pytest.raises(ValueError, match=message):
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


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_an_image_that_was_no_square_is_told_so(method):
    rows, columns = np.meshgrid(np.arange(2.0), np.arange(8.0), indexing="ij")
    weight = jnp.stack([rows.ravel(), columns.ravel()], 1)
    same = gx.resize_positions(weight, (2, 8), old=(2, 8), method=method)
    np.testing.assert_allclose(same, weight, atol=1e-6)
    taller = gx.resize_positions(weight, (4, 8), old=(2, 8), method="linear").reshape(4, 8, 2)
    np.testing.assert_allclose(taller[:, 3, 0], [0, 0.25, 0.75, 1], atol=1e-6)
    np.testing.assert_allclose(taller[1, :, 1], np.arange(8), atol=1e-6)
    with pytest.raises(ValueError, match=r"16 positions make no image of 3 x 5.*old="):
        gx.resize_positions(weight, (4, 8), old=(3, 5))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    weight = jax.random.normal(jax.random.key(0), (17, 4)).astype(dtype)
    resized = gx.resize_positions(weight, (6, 6), prefix=1)
    wide = gx.resize_positions(weight.astype(jnp.float32), (6, 6), prefix=1)
    assert resized.dtype == dtype and (resized == wide.astype(dtype)).all()


@pytest.mark.parametrize(
    "weight", [jnp.arange(10), jnp.ones((2, 9, 4)), jnp.ones((9, 4), int), [[0.0], [1.0]]]
)
def test_what_is_no_matrix_of_positions_is_refused(weight):
    with without_annotation_checks(), pytest.raises(TypeError, match="a matrix"):
        gx.resize_positions(weight, (3, 3))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("key", [None, jax.random.key(1)])
def test_a_tied_vocabulary_is_expanded_at_both_ends_and_stays_tied(bias, key):
    k1, k2 = jax.random.split(jax.random.key(0))
    model = gx.Chain(
        word=gx.Vmap(eqx.nn.Embedding(9, 4, key=k1)),
        head=gx.Vmap(eqx.nn.Linear(4, 9, use_bias=bias, key=k2)),
    )
    tied = gx.tie(model, "word.weight", "head.weight")
    fn = lambda layer, key=None: gx.expand_vocabulary(layer, 12, key=key)
    more = gx.select(tied, ["word", "head"]).apply(fn, key=key)
    assert more.word.weight is more.head.weight and more.head.weight.shape == (12, 4)
    assert more.word.num_embeddings == more.head.out_features == 12
    ids = jnp.array([3, 11])
    assert more(ids).shape == (2, 12)
    np.testing.assert_allclose(more(ids)[0, :9], tied(ids[:1])[0], atol=1e-5)


REFUSED = {
    "lora": lambda layer: gx.LoRA(layer, 2, key=jax.random.key(0)),
    "quantised": gx.quantize,
    "weight norm": eqx.nn.WeightNorm,
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_stand_for_another_weight_are_not_expanded(name):
    layer = REFUSED[name](eqx.nn.Linear(4, 9, key=jax.random.key(0)))
    with pytest.raises(TypeError, match="expand_vocabulary"):
        gx.expand_vocabulary(layer, 12)


def test_stacked_tables_are_expanded_each():
    keys = jax.random.split(jax.random.key(0), 3)
    for make in (eqx.nn.Embedding, lambda size, width, key: eqx.nn.Linear(width, size, key=key)):
        stacked = eqx.filter_vmap(lambda key, make=make: make(5, 4, key=key))(keys)
        with pytest.raises(ValueError, match=r"shape \(3, 5, 4\)"):
            gx.expand_vocabulary(stacked, 7)
        more = eqx.filter_vmap(lambda layer: gx.expand_vocabulary(layer, 7))(stacked)
        assert more.weight.shape == (3, 7, 4) and (more.weight[:, :5] == stacked.weight).all()
