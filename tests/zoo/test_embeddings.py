"""Vectors for ids, positions and types: right ones where there is a row, NaN where there is none."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

import graftax as gx
from common_containers import without_annotation_checks
from graftax.zoo import ClassToken, Embedding, PositionEmbedding, TokenTypeEmbedding

KEY = jax.random.key(0)
WORDS = gx.Vmap(Embedding(5, 3, key=KEY))
PLACES = PositionEmbedding(5, 3, key=KEY)
TYPES = TokenTypeEmbedding(5, 3, key=KEY)

LOOKUPS = {
    "ids": (WORDS, lambda index: WORDS(index)),
    "positions": (PLACES, lambda index: PLACES(index, positions=index)),
    "token_types": (TYPES, lambda index: TYPES(index, token_types=index)),
}
FORMS = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None])[0],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LOOKUPS)
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.uint32])
def test_what_has_no_row_is_nan_and_what_has_one_is_that_row(name, form, dtype):
    layer, look_up = LOOKUPS[name]
    numbers = [0, 4, 5, 100] + ([-1, -5] if np.issubdtype(dtype, np.signedinteger) else [255])
    found = np.asarray(FORMS[form](look_up)(jnp.array(numbers, dtype)))
    for number, row in zip(numbers, found, strict=True):
        if 0 <= number < 5:
            assert (row == np.asarray(layer.weight)[number]).all()
        else:
            assert np.isnan(row).all(), number


@given(st.integers(-(2**31), 2**31 - 1))
def test_no_id_is_taken_for_another(number):
    found = np.asarray(Embedding(5, 3, key=KEY)(jnp.array(number)))
    expected = np.asarray(WORDS.weight)[number] if 0 <= number < 5 else np.full(3, np.nan)
    assert np.array_equal(found, expected, equal_nan=True)


def test_a_number_of_python_or_numpy_is_an_id_too():
    layer = Embedding(5, 3, key=KEY)
    for number in (4, np.int64(4), np.array(4)):
        assert (layer(number) == layer.weight[4]).all()


def test_nan_does_not_stay_with_the_token_that_has_no_vector():
    # Not even where a mask hides it, since 0 * NaN is NaN.
    model = gx.zoo.bert(vocabulary=9, width=8, depth=1, heads=2, inner=8, act=jax.nn.gelu, key=KEY)
    model = eqx.nn.inference_mode(model)
    ids, mask = jnp.array([1, 2, 9]), jnp.array([1, 1, 0])
    assert np.isnan(model(ids, mask=mask)).all()
    assert not np.isnan(model(ids.at[2].set(8), mask=mask)).any()


@pytest.mark.parametrize("index", [np.array([0.0, 1.0]), np.array([True, False])])
@pytest.mark.parametrize("name", LOOKUPS)
def test_floats_and_truth_values_are_no_indices(name, index):
    with without_annotation_checks(), pytest.raises(TypeError, match="must be integers; got"):
        LOOKUPS[name][1](jnp.asarray(index))


@pytest.mark.parametrize(
    ("layer", "keyword"), [(PLACES, "positions"), (TYPES, "token_types")], ids=lambda x: str(x)[:9]
)
@pytest.mark.parametrize("shape", [(), (3,), (1, 4), (4, 1)])
def test_positions_and_types_of_another_length_are_refused_by_name(layer, keyword, shape):
    with pytest.raises(ValueError, match=rf"{keyword} must have shape \(4,\).*jax\.vmap"):
        layer(jnp.arange(4), **{keyword: jnp.zeros(shape, int)})


def test_a_batch_of_ids_is_an_error_that_says_vmap():
    with pytest.raises(ValueError, match=r"takes one id; got shape \(4,\).*jax\.vmap") as error:
        gx.Chain(embeddings=gx.Chain(word=WORDS))(jnp.zeros((2, 4), int))
    assert any("embeddings.word" in note for note in error.value.__notes__)


def test_a_sequence_that_is_too_long_is_refused_with_both_lengths():
    with pytest.raises(ValueError, match="sequence of 6 is longer than the 5 positions"):
        PLACES(jnp.arange(6))
    assert (PLACES(jnp.arange(2)) == PLACES.weight[:2]).all()


def test_exact_positions_refuse_a_shorter_sequence_too():
    exact = PositionEmbedding(5, 3, exact=True, key=KEY)
    with pytest.raises(ValueError, match=r"sequence of 4 has fewer elements than .* positions, 5"):
        exact(jnp.arange(4))
    assert (exact(jnp.arange(5)) == exact.weight).all()


# --- Padding ---


def test_the_padding_has_its_vector_but_no_gradient():
    layer = Embedding(5, 3, padding=1, key=KEY)
    ids = jnp.array([0, 1, 1, 3])
    gradient = jax.grad(lambda w: gx.Vmap(gx.update(layer, weight=w))(ids).sum())(layer.weight)
    assert gradient[:, 0].tolist() == [1, 0, 0, 1, 0]
    assert (gx.Vmap(layer)(ids) == layer.weight[ids]).all()
    free = Embedding(5, 3, key=KEY)
    gradient = jax.grad(lambda w: gx.Vmap(gx.update(free, weight=w))(ids).sum())(layer.weight)
    assert gradient[:, 0].tolist() == [1, 2, 0, 1, 0]


@pytest.mark.slow
def test_the_padding_of_a_tied_head_is_trained_by_the_head():
    sizes = {"vocabulary": 9, "width": 8, "depth": 1, "heads": 2, "inner": 8}
    model = gx.zoo.llama(**sizes, padding=2, tied=True, key=KEY)
    ids = jnp.array([2, 2, 2])
    gradient = eqx.filter_grad(lambda m: m(ids)[:, 2].sum())(model)
    assert jnp.abs(gradient.embeddings.word.weight[2]).max() > 0
    untied = gx.zoo.llama(**sizes, padding=2, key=KEY)
    gradient = eqx.filter_grad(lambda m: m(ids)[:, 2].sum())(untied)
    assert not gradient.embeddings.word.weight.any()


@pytest.mark.parametrize("padding", [-1, 5])
def test_a_padding_that_is_no_id_is_refused(padding):
    with pytest.raises(ValueError, match=f"padding must be an id from 0 to 4; got {padding}"):
        Embedding(5, 3, padding=padding, key=KEY)


def test_a_negative_padding_in_a_configuration_counts_from_the_end_as_in_pytorch():
    sizes = {"vocabulary": 9, "width": 8, "depth": 1, "heads": 2, "inner": 8}
    assert gx.zoo.llama(**sizes, padding=-1, key=KEY).embeddings.word.padding == 8


# --- What it is ---


def test_an_embedding_is_one_of_equinox_and_edits_as_one(tmp_path):
    model = gx.Chain(word=gx.Vmap(Embedding(5, 3, padding=1, key=KEY)))
    (layer,) = gx.select(model, eqx.nn.Embedding).nodes
    assert gx.select(model, "word.weight").paths == ("word.weight",)
    larger = gx.expand_vocabulary(layer, 7)
    assert type(larger) is Embedding
    assert (larger.padding, larger.num_embeddings) == (1, 7)
    assert not np.isnan(larger(6)).any()
    gx.save(tmp_path / "m.safetensors", model)
    loaded = gx.load(tmp_path / "m.safetensors")
    assert loaded.word.padding == 1
    assert repr(loaded) == repr(model)


def test_a_class_token_comes_first_in_the_dtype_of_the_sequence():
    layer = ClassToken(3, 2, key=KEY)
    y = layer(jnp.ones((4, 3), jnp.bfloat16))
    assert y.shape == (6, 3)
    assert y.dtype == jnp.bfloat16
    assert (y[:2] == layer.weight.astype(jnp.bfloat16)).all()
