"""The rules for layers that are made of others: attention, weight norms, LoRA, MLPs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from graftax.operations.axes import cut_layer
from graftax.operations.axis_compound import kept_heads, resized
from graftax.operations.index import Index

KEYS = list(jax.random.split(jax.random.key(0), 8))
KEPT = [3, 0, 2]


def test_heads_that_add_nothing_can_be_left_out():
    attention = eqx.nn.MultiheadAttention(3, 6, key=KEYS[0])
    silent = gx.select(attention, "output_proj.weight").apply(
        lambda weight: weight.at[:, 2:4].set(0.0)
    )
    cut = cut_layer(silent, "heads", Index(gx.blocks([0, 2], of=3)))
    x = jax.random.normal(KEYS[1], (5, 6))
    assert cut.num_heads == 2
    np.testing.assert_allclose(cut(x, x, x), silent(x, x, x), atol=1e-5)


def test_an_index_of_heads_counts_all_of_them():
    assert kept_heads(4, Index(gx.blocks([1, 2], of=4))) == 2
    for index in (Index([0, 1]), Index(gx.blocks([0], of=2))):
        with pytest.raises(ValueError, match=r"graftax\.blocks\(\.\.\., of=4\)"):
            kept_heads(4, index)


@pytest.mark.parametrize("side", ["out", "in"])
def test_a_weight_norm_gives_the_same_weight_where_it_is_cut(side):
    layer = eqx.nn.WeightNorm(eqx.nn.Linear(4, 4, key=KEYS[2]))
    x = jax.random.normal(KEYS[3], (4,))
    cut = cut_layer(layer, side, Index(KEPT))
    if side == "out":
        np.testing.assert_allclose(cut(x), layer(x)[jnp.array(KEPT)], atol=1e-5)
    else:
        full = jnp.zeros(4).at[jnp.array(KEPT)].set(x[:3])
        np.testing.assert_allclose(cut(x[:3]), layer(full), atol=1e-5)


@pytest.mark.parametrize("side", ["out", "in"])
def test_lora_is_cut_beside_its_layer(side):
    lora = gx.LoRA(eqx.nn.Linear(4, 4, key=KEYS[4]), rank=2, key=KEYS[5])
    lora = gx.select(lora, "lora_b").set(jax.random.normal(KEYS[6], (4, 2)))
    cut, whole = cut_layer(lora, side, Index(KEPT)), gx.merge_lora(lora)
    expected = cut_layer(whole, side, Index(KEPT))
    np.testing.assert_allclose(gx.merge_lora(cut).weight, expected.weight, atol=1e-5)


def test_what_cannot_be_cut_exactly_is_refused():
    for layer in (
        eqx.nn.SpectralNorm(eqx.nn.Linear(4, 4, key=KEYS[0]), "weight", key=KEYS[1]),
        eqx.nn.GRUCell(4, 4, key=KEYS[0]),
        eqx.nn.LSTMCell(4, 4, key=KEYS[0]),
    ):
        with pytest.raises(ValueError):
            cut_layer(layer, "out", Index(KEPT))


def test_the_sizes_of_an_mlp_are_those_of_its_layers():
    mlp = eqx.nn.MLP(2, 3, 4, depth=2, key=KEYS[7])
    layers = list(mlp.layers)
    layers[0] = cut_layer(layers[0], "out", Index(KEPT))
    layers[1] = cut_layer(layers[1], ("out", "in"), Index(KEPT))
    layers[2] = cut_layer(layers[2], "in", Index(KEPT))
    new = resized(eqx.tree_at(lambda m: m.layers, mlp, tuple(layers)))
    assert (new.in_size, new.width_size, new.out_size) == (2, 3, 3)
