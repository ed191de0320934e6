"""The sizes of a layer follow its arrays."""

import equinox as eqx
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import same_arrays
from common_layers import KEY, LAYERS, conv, stacked
from common_surgery import linear

nn = eqx.nn


def test_sizes_follow_the_arrays():
    layer = gx.update(nn.Linear(3, 5, key=KEY), weight=jnp.ones((6, 2)), bias=jnp.ones(6))
    assert (layer.in_features, layer.out_features) == (2, 6)
    layer = gx.update(conv(), weight=jnp.ones((8, 2, 5, 4)), groups=2)
    assert (layer.in_channels, layer.out_channels, layer.kernel_size) == (4, 8, (5, 4))
    layer = gx.update(nn.Embedding(6, 4, key=KEY), weight=jnp.ones((9, 3)))
    assert (layer.num_embeddings, layer.embedding_size) == (9, 3)
    layer = gx.update(nn.LayerNorm(8), weight=jnp.ones(6), bias=jnp.ones(6))
    assert layer.shape == (6,) and layer(jnp.arange(6.0)).shape == (6,)
    assert gx.update(nn.RMSNorm(8, use_bias=False), weight=jnp.ones(6)).shape == (6,)
    assert gx.update(nn.GroupNorm(2, 8), weight=jnp.ones(6), bias=jnp.ones(6)).channels == 6
    cell = gx.update(nn.GRUCell(2, 3, key=KEY), weight_ih=jnp.ones((9, 7)))
    assert (cell.input_size, cell.hidden_size) == (7, 3)
    mlp = nn.MLP(2, 3, 4, 1, key=KEY)
    cut = gx.update(mlp, layers=(linear(5, 6, 0), linear(6, 7, 1)))
    assert (cut.in_size, cut.width_size, cut.out_size, cut.depth) == (5, 6, 7, 1)


def test_the_use_of_a_bias_follows_the_bias_and_the_other_way():
    layer = nn.Linear(3, 5, key=KEY)
    without = gx.update(layer, bias=None)
    assert without.use_bias is False and without.bias is None
    assert same_arrays(gx.update(layer, use_bias=False), without)
    assert gx.update(without, bias=layer.bias).use_bias is True
    norm = nn.LayerNorm(3)
    assert gx.update(norm, weight=None).use_weight is False
    assert gx.update(norm, use_weight=False).weight is None
    group = gx.update(nn.GroupNorm(1, 3), channelwise_affine=False)
    assert group.weight is None and group.bias is None


def test_stacked_weights_keep_their_sizes_and_can_be_taken_apart():
    layer = stacked()
    assert gx.update(layer, weight=layer.weight[:3], bias=layer.bias[:3]).out_features == 5
    one = gx.update(layer, weight=layer.weight[0], bias=layer.bias[0])
    assert (one.in_features, one.out_features) == (3, 5) and one(jnp.ones(3)).shape == (5,)
    wide = gx.update(layer, weight=jnp.ones((7, 6, 3)), bias=jnp.ones((7, 6)))
    assert wide.out_features == 6


def test_a_scalar_stays_one():
    layer = LAYERS["Linear of scalars"]()
    assert gx.update(layer, weight=2 * layer.weight).out_features == "scalar"
    wide = gx.update(layer, weight=jnp.ones((3, 1)), bias=jnp.ones(3))
    assert (wide.in_features, wide.out_features) == ("scalar", 3)


def test_sizes_of_attention_follow_its_projections():
    attention = nn.MultiheadAttention(4, 16, use_query_bias=True, key=KEY)
    new = gx.update(attention, output_proj=nn.Linear(16, 6, key=KEY))
    assert new.output_size == 6 and new.use_output_bias is True
    new = gx.update(attention, key_proj=nn.Linear(5, 16, use_bias=False, key=KEY))
    assert new.key_size == 5
    wrapped = gx.update(attention, query_proj=gx.LoRA(attention.query_proj, rank=1, key=KEY))
    assert wrapped.query_size == 16 and wrapped.use_query_bias is True


def pruned(attention, heads):
    """Its projections with the rows or columns of so many heads."""
    width = heads * attention.qk_size
    rows = {
        name: gx.update(getattr(attention, name), weight=getattr(attention, name).weight[:width])
        for name in ("query_proj", "key_proj", "value_proj")
    }
    output = attention.output_proj
    return rows | {"output_proj": gx.update(output, weight=output.weight[:, :width])}


def test_attention_that_was_pruned_must_be_told_its_heads():
    attention = nn.MultiheadAttention(4, 16, key=KEY)
    message = (
        r"_proj\.weight of MultiheadAttention is of shape \(8, 16\), and must be of shape \(16, 16\) with "
        r"num_heads=4, .*qk_size=4"
    )
    with pytest.raises(ValueError, match=message):
        gx.update(attention, **pruned(attention, 2))
    with pytest.raises(
        ValueError, match=r"is of shape \(16, 16\), and must be of shape \(8, 16\) with num"
    ):
        gx.update(attention, num_heads=2)
    new = gx.update(attention, **pruned(attention, 2), num_heads=2)
    assert (new.num_heads, new.qk_size) == (2, 4)
    x = jnp.arange(48.0).reshape(3, 16) / 48
    assert new(x, x, x).shape == (3, 16)
