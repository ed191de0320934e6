"""Llama: what it computes is what `transformers` computes, and its parts can be worked on."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import graftax as gx
from common_language import batch, check_gradients, check_outputs, decoder, outputs, run
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
from graftax.zoo import ConfigError, from_pretrained, llama
from graftax.zoo.trunk import gated_mlp

FIXTURES = configurations("llama")


def as_numpy(model):
    return jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, model)


# --- Against transformers ---


@pytest.mark.parametrize("name", FIXTURES)
def test_outputs_and_what_leaves_each_block_are_those_of_transformers(name):
    check_outputs(name, decoder)


def test_gradients_are_those_of_transformers(tmp_path):
    check_gradients(tmp_path, "llama/gqa", decoder)


# --- Files ---


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    found = fixture(name)
    parameters = {n: a for n, a in found.stored.items() if not n.endswith("rotary_emb.inv_freq")}
    same_bits(exported(tmp_path, found.model, found.recipe), parameters)


@pytest.mark.parametrize(
    "name",
    [
        "llama/head_dim",
        "llama/linear_rope",
        "llama/published_3",
        "llama/yarn_rope",
        "llama/longrope",
    ],
)
def test_a_saved_model_loads_bit_for_bit(name, tmp_path):
    check_round_trip(tmp_path, fixture(name).model)


def test_the_body_alone_has_no_prefix_in_its_names(tmp_path):
    directory = published(tmp_path, "llama/gqa", architectures=["LlamaModel"])
    weights = load_file(directory / "model.safetensors")
    body = {n.removeprefix("model."): a for n, a in weights.items() if n != "lm_head.weight"}
    save_file(body, directory / "model.safetensors")
    model = from_pretrained(directory)
    assert model.labels == ("embeddings", "encoder", "norm")
    ids, context = batch("llama/gqa")
    found = run(model, ids[1], mask=context["mask"][1])
    close(found, fixture("llama/gqa").io["output.hidden.2"][1])


# --- The configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "mish"}, "'mish' is not known"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"sliding_window": 8}, "sliding_window=8"),
        ({"intermediate_size": None}, "lacks 'intermediate_size'"),
        ({"num_key_value_heads": 3}, "kv_heads must divide heads; got 3 and 4"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "llama/gqa", **changes))


def test_an_unknown_value_may_be_ignored_wherever_it_stands(tmp_path):
    rope = {"rope_type": "default", "rope_theta": 10000.0, "note": "as trained"}
    directory = published(tmp_path, "llama/gqa", rope_parameters=rope, sliding_window=8)
    model = from_pretrained(directory, ignore_config=["note", "sliding_window"])
    assert repr(model) == repr(fixture("llama/gqa").model)


@pytest.mark.parametrize(
    "left_out",
    ["rms_norm_eps", "head_dim", "hidden_act", "tie_word_embeddings", "attention_bias", "mlp_bias"],
)
def test_what_a_configuration_leaves_out_is_as_in_transformers(left_out, tmp_path):
    directory = published(tmp_path, "llama/gqa", remove=[left_out])
    assert repr(from_pretrained(directory)) == repr(fixture("llama/gqa").model)


# --- What it is ---


def test_a_token_does_not_depend_on_those_after_it():
    model = fixture("llama/gqa").model
    ids = jnp.array([[5, 6, 7, 8, 9, 10], [5, 6, 7, 1, 2, 3]])
    first, second = jax.jit(jax.vmap(lambda row: model(row)))(ids)
    close(first[:3], second[:3], 1e-6)
    assert not np.allclose(first[3:], second[3:], atol=1e-2)


def test_padding_on_the_left_changes_nothing_if_positions_say_so():
    model = fixture("llama/gqa").model
    ids, mask = jnp.array([0, 0, 5, 6, 7]), jnp.array([False, False, True, True, True])
    padded = run(model, ids, mask=mask, positions=jnp.array([0, 0, 0, 1, 2]))
    close(padded[2:], run(model, ids[2:]))


def test_a_key_serves_several_queries_as_if_it_stood_there_for_each():
    block = fixture("llama/gqa").model.encoder[0]

    def repeated(linear):
        heads = jnp.repeat(linear.weight.reshape(2, 6, 24), 2, axis=0)
        return gx.update(linear, weight=heads.reshape(24, 24), out_features=24)

    full = gx.select(block, "{key,value}").apply(repeated)
    full = gx.select(full, "attend").update(kv_heads=4)
    x = jax.random.normal(jax.random.key(0), (5, 24))
    close(run(full, x), run(block, x))


def test_a_gated_mlp_multiplies_the_activated_gate_with_the_rest():
    layer = gated_mlp(6, 10, jax.nn.silu, bias=True, key=jax.random.key(0))
    x = np.asarray(jax.random.normal(jax.random.key(1), (3, 6)))
    found, own = run(layer, x), as_numpy(layer)

    def dense(label, x):
        linear = gx.select(own, label, eqx.nn.Linear).one()
        return x @ linear.weight.T + linear.bias

    gate = dense("gate", x)
    close(found, dense("down", gate / (1 + np.exp(-gate)) * dense("up", x)))


@pytest.mark.parametrize(("name", "tied"), [("llama/tied", True), ("llama/gqa", False)])
def test_the_head_is_tied_or_its_own(name, tied):
    model = fixture(name).model
    assert (model.head.weight is model.embeddings.word.weight) is tied
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    assert sum(leaf.shape == (67, 24) for leaf in leaves) == (1 if tied else 2)


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [
        # Llama 2 7B, Llama 3 8B, Llama 3.2 1B.
        (
            {"vocabulary": 32000, "width": 4096, "depth": 32, "heads": 32, "inner": 11008},
            6_738_415_616,
        ),
        (
            {
                "vocabulary": 128256,
                "width": 4096,
                "depth": 32,
                "heads": 32,
                "kv_heads": 8,
                "inner": 14336,
            },
            8_030_261_248,
        ),
        (
            {
                "vocabulary": 128256,
                "width": 2048,
                "depth": 16,
                "heads": 32,
                "kv_heads": 8,
                "inner": 8192,
                "tied": True,
            },
            1_235_814_400,
        ),
    ],
)
def test_the_published_sizes_have_the_published_number_of_parameters(sizes, parameters):
    model = eqx.filter_eval_shape(functools.partial(llama, **sizes), key=jax.random.key(0))
    leaves = jax.tree.leaves(eqx.filter(model, lambda leaf: hasattr(leaf, "shape")))
    assert sum(leaf.size for leaf in leaves) == parameters


# --- Labels ---


def test_every_label_is_in_the_vocabulary():
    assert labels(fixture("llama/gqa").model) <= documented_labels()


def test_its_parts_are_found_by_their_labels():
    model = fixture("llama/gqa").model
    for label, path in {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "output": "attention.op.output",
        "norm1": "attention.norm1",
        "norm2": "mlp.norm2",
        "gate": "mlp.gate",
        "up": "mlp.up",
        "act": "mlp.op.multiply.act",
        "down": "mlp.op.down",
    }.items():
        assert gx.select(model, label).paths == (f"encoder.0.{path}", f"encoder.1.{path}")


def test_each_part_has_the_shape_that_its_label_says():
    linear = gx.select(fixture("llama/head_dim").model, "encoder.0.**", eqx.nn.Linear)
    assert {path: layer.weight.shape for path, layer in linear.items()} == {
        "encoder.0.attention.query": (48, 24),
        "encoder.0.attention.key": (24, 24),
        "encoder.0.attention.value": (24, 24),
        "encoder.0.attention.op.output": (24, 48),
        "encoder.0.mlp.gate": (40, 24),
        "encoder.0.mlp.up": (40, 24),
        "encoder.0.mlp.op.down": (24, 40),
    }


def test_swapping_the_activation_by_its_label_is_building_with_another(tmp_path):
    swapped = gx.select(fixture("llama/gqa").model, "act").set(jax.nn.relu)
    built = from_pretrained(published(tmp_path, "llama/gqa", hidden_act="relu"))
    assert repr(swapped) == repr(built)
    ids = batch("llama/gqa")[0][0]
    assert not np.allclose(run(swapped, ids), outputs("llama/gqa", decoder)["logits"][0], atol=1e-2)
