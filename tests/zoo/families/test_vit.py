"""ViT: what it computes is what `transformers` computes, and its parts can be worked on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_zoo import (
    check_round_trip,
    close,
    configurations,
    documented_labels,
    exported,
    fixture,
    labels,
    published,
    same_bits,
)
from graftax.zoo import ConfigError, from_pretrained, vit

FIXTURES = configurations("vit")
SMALL = {"image": (8, 8), "patch": (4, 4), "width": 8, "depth": 2, "heads": 2, "inner": 16}


def everything(model, x):
    """(what each block is given and gives, the final tokens, what the head gives)."""
    encoder = model.encoder
    tokens = model.embeddings(x)
    hidden = [tokens, *gx.activations(encoder, tokens).values()]
    last = model.norm(hidden[-1])
    rest = [label for label in model.labels if label not in ("embeddings", "encoder", "norm")]
    return hidden, last, model[rest](last)


@pytest.mark.parametrize("name", FIXTURES)
def test_outputs_and_what_leaves_each_block_are_those_of_transformers(name):
    found = fixture(name)
    images = found.io["input.pixel_values"]
    hidden, last, head = jax.jit(jax.vmap(lambda x: everything(found.model, x)))(images)
    for i, expected in found.group("output.hidden.").items():
        close(hidden[int(i)], expected)
    outputs = found.group("output.")
    if "last_hidden_state" in outputs:
        close(last, outputs["last_hidden_state"])
    for output in ("pooler_output", "logits"):
        if output in outputs:
            close(head, outputs[output])


def test_gradients_are_those_of_transformers(tmp_path):
    found = fixture("vit/base")
    weights = found.group("loss_weight.")

    @eqx.filter_jit
    @eqx.filter_grad
    def gradients(model):
        _, last, pooled = jax.vmap(lambda x: everything(model, x))(found.io["input.pixel_values"])
        loss = (last * weights["last_hidden_state"]).sum()
        return loss + (pooled * weights["pooler_output"]).sum()

    for name, gradient in exported(tmp_path, gradients(found.model), found.recipe).items():
        close(gradient, found.io[f"grad.{name}"])


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    found = fixture(name)
    same_bits(exported(tmp_path, found.model, found.recipe), found.stored)


@pytest.mark.parametrize("name", ["vit/base", "vit/no_pooler", "vit/oblong"])
def test_a_saved_model_loads_bit_for_bit(name, tmp_path):
    check_round_trip(tmp_path, fixture(name).model)


def test_larger_images_with_interpolated_positions_are_those_of_transformers():
    found = fixture("vit/interpolated")
    larger = gx.select(found.model, "**.position.weight").apply(
        lambda w: gx.resize_positions(w, (4, 6), prefix=1)
    )
    close(larger.embeddings.position.weight, found.io["output.larger.position_embeddings"][0])
    close(jax.vmap(larger)(found.io["input.larger.pixel_values"]), found.io["output.larger.logits"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"),
        ({"hidden_act": "mish"}, "'mish' is not known"),
        ({"rotary": True}, "rotary=True"),
        ({"model_type": "vti"}, r"model_type='vti'.*Did you mean 'vit'"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "vit/base", **changes))


def test_a_configuration_that_contradicts_the_shapes_is_reported(tmp_path):
    with pytest.raises(gx.WeightsError, match=r"embeddings\.position\.weight: has shape"):
        from_pretrained(published(tmp_path, "vit/base", image_size=32))


def test_its_words_are_those_of_the_zoo():
    model = fixture("vit/base").model
    assert labels(model) <= documented_labels()
    assert gx.select(model, "query").paths == (
        "encoder.0.attention.query",
        "encoder.1.attention.query",
    )
    picked = gx.select(model, "encoder[-1:].attention.{query,value}", eqx.nn.Linear)
    assert picked.paths == ("encoder.1.attention.query", "encoder.1.attention.value")


@pytest.mark.slow
def test_it_trains_from_scratch():
    model = vit(**SMALL, act=jax.nn.gelu, classes=3, dropout=0.1, key=jax.random.key(0))
    x, keys = jnp.ones((2, 3, 8, 8)), jax.random.split(jax.random.key(1), 2)

    @eqx.filter_grad
    def gradients(model):
        return jax.vmap(lambda x, key: model(x, key=key))(x, keys).var()

    sizes = [abs(g).max() > 0 for g in jax.tree.leaves(gradients(model).encoder[0].mlp)]
    assert all(sizes)
