"""The rules for single layers: what is left computes the same entries of the same numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from graftax.operations.axes import cut_layer
from graftax.operations.axis_rules import whole_groups
from graftax.operations.index import Index

KEYS = list(jax.random.split(jax.random.key(0), 8))
KEPT = [3, 0, 2]


def test_rows_of_a_linear_are_those_outputs():
    layer, x = eqx.nn.Linear(3, 4, key=KEYS[0]), jax.random.normal(KEYS[1], (3,))
    np.testing.assert_allclose(
        cut_layer(layer, "out", Index(KEPT))(x), layer(x)[jnp.array(KEPT)], atol=1e-6
    )


def test_columns_of_a_linear_are_those_inputs():
    layer, x = eqx.nn.Linear(4, 3, key=KEYS[0]), jax.random.normal(KEYS[1], (3,))
    full = jnp.zeros(4).at[jnp.array(KEPT)].set(x)
    np.testing.assert_allclose(cut_layer(layer, "in", Index(KEPT))(x), layer(full), atol=1e-6)


@pytest.mark.parametrize("make", [eqx.nn.Conv2d, eqx.nn.ConvTranspose2d])
def test_channels_of_a_convolution(make):
    layer = make(4, 4, 3, key=KEYS[2])
    x = jax.random.normal(KEYS[3], (4, 5, 5))
    cut = cut_layer(layer, "out", Index(KEPT))
    np.testing.assert_allclose(cut(x), layer(x)[jnp.array(KEPT)], atol=1e-5)
    cut = cut_layer(layer, "in", Index(KEPT))
    full = jnp.zeros_like(x).at[jnp.array(KEPT)].set(x[:3])
    np.testing.assert_allclose(cut(x[:3]), layer(full), atol=1e-5)


def test_words_of_an_embedding_and_features_of_them():
    layer = eqx.nn.Embedding(4, 5, key=KEYS[4])
    assert (cut_layer(layer, "in", Index(KEPT))(0) == layer(3)).all()
    assert (cut_layer(layer, "out", Index([4]))(1) == layer(1)[4:]).all()


def test_a_quantised_linear_is_cut_as_the_one_it_stands_for():
    layer = eqx.nn.Linear(3, 4, key=KEYS[5])
    x = jax.random.normal(KEYS[1], (3,))
    quantised = gx.quantize(layer)
    cut = cut_layer(quantised, "out", Index(KEPT))
    np.testing.assert_allclose(cut(x), quantised(x)[jnp.array(KEPT)], atol=1e-6)


@pytest.mark.parametrize("make", [eqx.nn.LayerNorm, eqx.nn.RMSNorm])
def test_the_parameters_of_a_norm_go_along(make):
    layer = gx.select(make(4), "weight").set(jnp.arange(4.0))
    cut = cut_layer(layer, "out", Index(KEPT))
    assert cut.weight.tolist() == [3.0, 0.0, 2.0] and cut.shape == (3,)


def test_groups_that_stay_whole_are_told_with_their_members():
    groups, members = whole_groups([4, 5, 0, 1], 2)
    assert groups == (2, 0) and members.tolist() == [[4, 5], [0, 1]]


@pytest.mark.parametrize("kept", [[0, 1, 2], [0, 2, 1, 3]])
def test_groups_that_would_be_torn_apart_are_refused(kept):
    with pytest.raises(ValueError, match="group by group"):
        whole_groups(kept, 2)


def test_a_stack_of_weights_is_refused_with_the_way_to_cut_each():
    stack = eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 4, key=key))(jnp.stack(KEYS[:2]))
    with pytest.raises(ValueError, match="filter_vmap"):
        cut_layer(stack, "out", Index(KEPT))
