"""Tensors lie in a checkpoint as PyTorch has them: fused, turned round, mirrored."""

import equinox as eqx
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import graftax as gx
from common_files import linear, same_bits
from graftax.files.layouts import layer_conversion


def test_fused_transposed_and_reshaped_tensors_both_ways(tmp_path):
    model = gx.Chain(q=linear(4, 2), k=linear(4, 2, 1), v=linear(4, 2, 2), out=linear(2, 3, 3))
    rename = {p: gx.Layout("c_attn", True, i, 3) for i, p in enumerate("qkv")}
    rename["out.bias"] = gx.Layout("out.b", shape=(1, 3))
    file = tmp_path / "out.safetensors"
    gx.export_weights(file, model, rename)
    stored = load_file(file)
    assert stored["c_attn.weight"].shape == (4, 6) and stored["out.b"].shape == (1, 3)
    assert (np.asarray(model.k.weight) == stored["c_attn.weight"][:, 2:4].T).all()
    assert (stored["c_attn.bias"][4:] == np.asarray(model.v.bias)).all()
    blank = jax.tree.map(lambda x: 0 * x if eqx.is_array(x) else x, model)
    assert same_bits(gx.load_weights(blank, file, rename), model)
    with pytest.raises(gx.WeightsError, match="does not split into 3"):
        gx.load_weights(model, stored | {"c_attn.bias": np.ones(7, np.float32)}, rename)
    with pytest.raises(ValueError, match="made of 3 parts"):
        gx.export_weights(file, model[["q", "k", "out"]], rename)


def test_convolutions_lie_as_in_pytorch(tmp_path):
    key = jax.random.key(0)
    model = gx.Chain(
        conv=eqx.nn.Conv2d(4, 6, 3, groups=2, key=key),
        up=eqx.nn.ConvTranspose2d(6, 4, 2, 2, groups=2, key=key),
    )
    file = tmp_path / "out.safetensors"
    gx.export_weights(file, model)
    stored = load_file(file)
    assert stored["conv.bias"].shape == (6,) and stored["conv.weight"].shape == (6, 2, 3, 3)
    assert stored["up.weight"].shape == (6, 2, 2, 2)
    assert same_bits(gx.load_weights(eqx.filter_eval_shape(lambda: model), file), model)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_a_transposed_convolution_is_written_as_it_is_read(groups, spatial):
    layer = eqx.nn.ConvTranspose(spatial, 6, 12, 2, groups=groups, key=jax.random.key(0))
    for field in ("weight", "bias"):
        array = np.asarray(getattr(layer, field))
        conversion = layer_conversion(layer, field)
        assert (conversion.read(conversion.write(array)) == array).all()
    assert layer_conversion(layer, "weight").write(np.asarray(layer.weight)).shape == (
        6,
        12 // groups,
        *(2,) * spatial,
    )


def test_other_layers_lie_as_they_are():
    array = np.arange(6.0).reshape(2, 3)
    conversion = layer_conversion(linear(3, 2), "weight")
    assert conversion.read(array) is array and conversion.write(array) is array
