"""The parts that all transformers are made of."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import graftax as gx
from graftax.zoo import trunk

KEYS = list(jax.random.split(jax.random.key(0), 8))
X = jax.random.normal(KEYS[0], (5, 12))


def test_a_pre_norm_block_adds_each_part_of_the_normed_input():
    attend, feed = eqx.nn.Linear(12, 12, key=KEYS[1]), eqx.nn.Linear(12, 12, key=KEYS[2])
    norm = lambda: trunk.layer_norm(12, 1e-5)
    block = trunk.pre_norm_block(gx.Vmap(attend), gx.Vmap(feed), norm)
    normed = jax.vmap(eqx.nn.LayerNorm(12))
    y = X + jax.vmap(attend)(normed(X))
    np.testing.assert_allclose(block(X), y + jax.vmap(feed)(normed(y)), atol=1e-5)


def test_a_post_norm_block_norms_each_sum():
    attend, feed = eqx.nn.Linear(12, 12, key=KEYS[1]), eqx.nn.Linear(12, 12, key=KEYS[2])
    norm = lambda: trunk.layer_norm(12, 1e-5)
    block = trunk.post_norm_block(gx.Vmap(attend), gx.Vmap(feed), norm)
    normed = jax.vmap(eqx.nn.LayerNorm(12))
    y = normed(X + jax.vmap(attend)(X))
    np.testing.assert_allclose(block(X), normed(y + jax.vmap(feed)(y)), atol=1e-5)


def test_rms_norm_has_no_mean_and_no_bias():
    norm = trunk.rms_norm(12, 1e-6)
    expected = X / jnp.sqrt(jnp.mean(X**2, axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(norm(X), expected, atol=1e-5)
    assert norm.bias is None


def test_an_encoder_is_its_blocks_each_with_a_key_of_its_own():
    make = lambda key: eqx.nn.Linear(2, 2, key=key)
    model = trunk.encoder([make, make, make], key=KEYS[3])
    assert len(model) == 3
    assert not jnp.array_equal(model[0].weight, model[1].weight)


def test_the_vector_of_the_padding_gets_no_gradient():
    embed = trunk.word_embedding(7, 3, padding=2, key=KEYS[4])
    ids = jnp.array([1, 2, 2, 3])
    gradient = eqx.filter_grad(lambda layer: layer(ids).sum())(embed).weight
    assert (gradient[2] == 0).all()
    assert (gradient[jnp.array([1, 3])] == 1).all()


def test_words_are_tied_only_if_asked_for():
    linear = eqx.nn.Linear(3, 7, use_bias=False, key=KEYS[6])
    embeddings = gx.Chain(word=trunk.word_embedding(7, 3, key=KEYS[5]))
    model = gx.Chain(embeddings=embeddings, head=linear)
    tied = trunk.tied_to_words(model, "head.weight")
    assert tied.head.weight is tied.embeddings.word.weight
    assert trunk.tied_to_words(model, "head.weight", tied=False) is model


def test_a_negative_padding_counts_from_the_end():
    embed = trunk.word_embedding(7, 3, padding=-1, key=KEYS[4])
    gradient = eqx.filter_grad(lambda layer: layer(jnp.array([1, 6])).sum())(embed).weight
    assert (gradient[6] == 0).all() and (gradient[1] == 1).all()
