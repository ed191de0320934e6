"""What computes with another weight than it holds is not exported under that weight's name."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from safetensors.numpy import load_file

import graftax as gx
from common_files import linear

KEY = jax.random.key(0)


def lora(layer):
    return gx.LoRA(layer, rank=1, key=KEY)


class Variant(gx.LoRA):
    """A variant of the user's own."""


class Scaled(gx.Wrapper):
    """A wrapper of the user's own, with an array."""

    scale: jax.Array

    def __init__(self, layer):
        super().__init__(layer)
        self.scale = jnp.ones(())


STANDING = {
    "lora": lora,
    "variant": lambda layer: Variant(layer, rank=1, key=KEY),
    "lora in a wrapper": lambda layer: gx.Remat(lora(layer)),
    "wrapper in a lora": lambda layer: lora(gx.Vmap(layer)),
    "quantised": gx.quantize,
    "quantised in a wrapper": lambda layer: gx.Vmap(gx.quantize(layer)),
    "weight norm": lambda layer: eqx.nn.WeightNorm(layer, "weight"),
    "spectral norm": lambda layer: eqx.nn.SpectralNorm(layer, "weight", key=KEY),
    "own arrays": Scaled,
}


def model(change=lambda layer: layer):
    return gx.Chain(
        body=gx.Chain([linear(2, 2), gx.Chain(query=change(linear(2, 2, 1)))]), head=linear(2, 3)
    )


@pytest.mark.parametrize("name", STANDING)
def test_a_layer_that_stands_for_other_weights_is_refused_by_its_path(tmp_path, name):
    with pytest.raises(gx.UnsavableError, match=r"'body\.1\.query' is a"):
        gx.export_weights(tmp_path / "model", model(STANDING[name]))
    assert not os.listdir(tmp_path)


def test_the_remedy_for_an_adapter_is_named_and_works(tmp_path):
    adapted = model(lora)
    with pytest.raises(gx.UnsavableError, match="merge_lora"):
        gx.export_weights(tmp_path / "model", adapted)
    adapted = gx.select(adapted, "lora_b").apply(jnp.ones_like)
    merged = gx.merge_lora(adapted)
    gx.export_weights(tmp_path / "model", merged)
    stored = load_file(tmp_path / "model")
    assert stored.keys() == {
        f"{layer}.{field}"
        for layer in ("body.0", "body.1.query", "head")
        for field in ("weight", "bias")
    }
    assert (stored["body.1.query.weight"] == merged.body[1].query.weight).all()
    assert (stored["body.1.query.weight"] != model().body[1].query.weight).any()


def test_all_paths_are_named_at_once(tmp_path):
    adapted = gx.select(model(), eqx.nn.Linear).apply(lora)
    with pytest.raises(gx.UnsavableError, match=r"'body\.0', 'body\.1\.query', 'head' is a LoRA"):
        gx.export_weights(tmp_path / "model", adapted)


def test_what_holds_the_weight_it_computes_with_is_exported(tmp_path):
    wrapped = model(lambda layer: gx.Remat(gx.Cast(gx.Vmap(layer), jnp.bfloat16)))
    gx.export_weights(tmp_path / "model", gx.tie(wrapped, "body.0.bias", "body.1.query.bias"))
    stored = load_file(tmp_path / "model")
    assert "body.1.query.weight" in stored and "body.1.query.bias" not in stored


def test_layers_beside_others_are_exported_under_their_own_names(tmp_path):
    wrapped = model(lambda layer: gx.Then(layer, adapter=linear(2, 2, 5)))
    wrapped = gx.select(wrapped, "head").apply(
        lambda layer: gx.Residual(gx.Chain(out=layer, back=linear(3, 2)), norm1=eqx.nn.LayerNorm(2))
    )
    gx.export_weights(tmp_path / "model", wrapped)
    names = {"body.1.query.weight", "body.1.query.adapter.weight", "head.norm1.weight"}
    assert names < load_file(tmp_path / "model").keys()
