"""GPT-2: what it computes is what `transformers` computes, and its parts can be worked on."""

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
    arrays,
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
from graftax.zoo import ConfigError, from_pretrained, gpt2

FIXTURES = configurations("gpt2")
SMALL = {"vocabulary": 11, "width": 8, "depth": 2, "heads": 2, "positions": 12}
BUFFERS = (".attn.bias", ".attn.masked_bias")


# --- Against transformers ---


@pytest.mark.parametrize("name", FIXTURES)
def test_outputs_and_what_leaves_each_block_are_those_of_transformers(name):
    check_outputs(name, decoder)


def test_gradients_are_those_of_transformers(tmp_path):
    check_gradients(tmp_path, "gpt2/base", decoder)


# --- Files ---


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    found = fixture(name)
    parameters = {n: a for n, a in found.stored.items() if not n.endswith(BUFFERS)}
    same_bits(exported(tmp_path, found.model, found.recipe), parameters)


@pytest.mark.parametrize("name", ["gpt2/base", "gpt2/inverse_layer_scale", "gpt2/model"])
def test_a_saved_model_loads_bit_for_bit(name, tmp_path):
    check_round_trip(tmp_path, fixture(name).model)


def test_the_fused_matrix_is_split_into_query_key_and_value():
    stored, attention = fixture("gpt2/base").stored, fixture("gpt2/base").model.encoder[1].attention
    fused, bias = (stored[f"transformer.h.1.attn.c_attn.{p}"] for p in ("weight", "bias"))
    for i, label in enumerate(["query", "key", "value"]):
        part = slice(24 * i, 24 * (i + 1))
        assert (np.asarray(attention[label].weight) == fused[:, part].T).all()
        assert (np.asarray(attention[label].bias) == bias[part]).all()


def test_a_second_copy_of_the_tied_matrix_and_buffers_do_no_harm(tmp_path):
    directory = published(tmp_path, "gpt2/base")
    weights = load_file(directory / "model.safetensors")
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    weights["transformer.h.0.attn.masked_bias"] = np.array(-1e4, np.float32)
    weights["transformer.h.0.attn.bias"] = np.tril(np.ones((1, 1, 32, 32), bool))
    save_file(weights, directory / "model.safetensors")
    same_bits(arrays(from_pretrained(directory)), arrays(fixture("gpt2/base").model))


def test_a_head_that_is_another_than_the_tied_matrix_is_reported(tmp_path):
    directory = published(tmp_path, "gpt2/untied", tie_word_embeddings=True)
    with pytest.raises(
        gx.WeightsError, match=r"'lm_head.weight' and 'transformer.wte.weight' differ"
    ):
        from_pretrained(directory)


def test_a_missing_head_is_reported(tmp_path):
    directory = published(tmp_path, "gpt2/base", tie_word_embeddings=False)
    with pytest.raises(gx.WeightsError, match=r"lm_head\.weight") as error:
        from_pretrained(directory)
    assert error.value.report.missing == {"head.weight": "lm_head.weight"}


# --- The configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"activation_function": "mish"}, "'mish' is not known"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "GPT2ForSequenceClassification"),
        ({"n_embd": None}, "lacks 'n_embd'"),
        ({"rotary_dim": 8}, "rotary_dim=8"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "gpt2/base", **changes))


def test_heads_that_do_not_share_the_width_are_refused(tmp_path):
    message = r"config\.json' describes no model: 5 heads cannot share a width of 24"
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "gpt2/base", n_head=5))


@pytest.mark.parametrize(
    ("left_out", "found", "value"),
    [
        ("activation_function", lambda block: block.mlp.act, jax.nn.gelu),
        ("layer_norm_epsilon", lambda block: block.attention.norm1.eps, 1e-5),
        ("n_inner", lambda block: block.mlp.up.out_features, 96),
        ("scale_attn_weights", lambda block: block.attention.op.attend.scale, None),
    ],
)
def test_what_a_configuration_leaves_out_is_as_in_transformers(left_out, found, value, tmp_path):
    model = from_pretrained(published(tmp_path, "gpt2/base", remove=[left_out]))
    assert found(model.encoder[0]) == value


def test_the_number_of_positions_is_1024_if_left_out(tmp_path):
    directory = published(tmp_path, "gpt2/base", remove=["n_positions"])
    with pytest.raises(gx.WeightsError, match=r"has shape \(1024, 24\), the checkpoint \(32, 24\)"):
        from_pretrained(directory)


def test_scores_without_scale_are_those_of_queries_made_larger(tmp_path):
    # q k / sqrt(8) with q' = sqrt(8) q is q k.
    bare = from_pretrained(published(tmp_path, "gpt2/base", scale_attn_weights=False))
    larger = gx.select(fixture("gpt2/base").model, "**.query.{weight,bias}").apply(
        lambda a: a * 8**0.5
    )
    ids = jnp.arange(9)
    scores = run(bare, ids)
    close(scores, run(larger, ids))
    assert not np.allclose(scores, run(fixture("gpt2/base").model, ids), atol=1e-2)


def test_dropout_stands_where_the_configuration_says(tmp_path):
    directory = published(tmp_path, "gpt2/base", embd_pdrop=0.3, resid_pdrop=0.2, attn_pdrop=0.0)
    model = from_pretrained(directory)
    found = {path: layer.p for path, layer in gx.select(model, "dropout").items()}
    assert found.pop("embeddings.op.dropout") == 0.3
    assert len(found) == 4
    assert set(found.values()) == {0.2}


# --- What it is ---


def test_a_token_does_not_depend_on_those_after_it():
    model = fixture("gpt2/base").model
    ids = jnp.array([[5, 6, 7, 8, 9, 10], [5, 6, 7, 1, 2, 3]])
    first, second = jax.jit(jax.vmap(model))(ids)
    close(first[:3], second[:3], 1e-6)
    assert not np.allclose(first[3:], second[3:], atol=1e-2)


def test_padding_on_the_left_changes_nothing_if_positions_say_so():
    model = fixture("gpt2/base").model
    ids, mask = jnp.array([0, 0, 5, 6, 7]), jnp.array([False, False, True, True, True])
    padded = run(model, ids, mask=mask, positions=jnp.array([0, 0, 0, 1, 2]))
    close(padded[2:], run(model, ids[2:]))


def test_a_block_is_the_sum_of_its_input_and_two_branches():
    block = fixture("gpt2/relu").model.encoder[2]
    x = jax.random.normal(jax.random.key(0), (5, 32))
    found = run(block, x)

    def norm(layer, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * layer.weight + layer.bias

    def dense(layer, x):
        return x @ layer.weight.T + layer.bias

    x = np.asarray(x)
    block = jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, block)
    y = norm(block.attention.norm1, x)
    q, k, v = (
        dense(block.attention[p], y).reshape(5, 4, 8).swapaxes(0, 1)
        for p in ("query", "key", "value")
    )
    scores = np.where(np.tri(5, dtype=bool), np.exp(q @ k.swapaxes(1, 2) / 8**0.5), 0)
    mixed = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(5, 32)
    x = x + dense(block.attention.op.output, mixed)
    hidden = np.maximum(dense(block.mlp.up, norm(block.mlp.norm2, x)), 0)
    close(found, x + dense(block.mlp.down, hidden))


@pytest.mark.parametrize(("name", "tied"), [("gpt2/base", True), ("gpt2/untied", False)])
def test_the_head_is_tied_or_its_own(name, tied):
    model = fixture(name).model
    assert (model.head.weight is model.embeddings.word.weight) is tied
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    assert sum(leaf.shape == (67, 24) for leaf in leaves) == (1 if tied else 2)


def test_without_a_head_it_ends_with_the_norm():
    assert fixture("gpt2/model").model.labels == ("embeddings", "encoder", "norm")


def test_the_published_sizes_have_the_published_number_of_parameters():
    build = functools.partial(gpt2, vocabulary=50257, width=768, depth=12, heads=12)
    model = eqx.filter_eval_shape(build, key=jax.random.key(0))
    leaves = jax.tree.leaves(eqx.filter(model, lambda leaf: hasattr(leaf, "shape")))
    assert sum(leaf.size for leaf in leaves) == 124_439_808


@pytest.mark.parametrize(("scale", "expected"), [(None, [0.5, 0.25]), (3.0, [3.0, 1.5])])
def test_scale_by_depth_divides_the_scores_of_block_i_by_i_plus_1(scale, expected):
    build = functools.partial(gpt2, **SMALL, scale=scale, scale_by_depth=True)
    model = eqx.filter_eval_shape(build, key=jax.random.key(0))
    assert [layer.scale for layer in gx.select(model, "attend")] == expected


def test_training_draws_dropout_from_the_key():
    model = eqx.nn.inference_mode(fixture("gpt2/base").model, value=False)
    one, again, other = (run(model, jnp.arange(4), key=jax.random.key(i)) for i in (1, 1, 2))
    assert (one == again).all()
    assert not np.allclose(one, other)


# --- Labels ---


@pytest.mark.parametrize("name", ["gpt2/base", "gpt2/model"])
def test_every_label_is_in_the_vocabulary(name):
    assert labels(fixture(name).model) <= documented_labels()


def test_its_parts_are_found_by_their_labels():
    model = fixture("gpt2/base").model
    for label, path in {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "output": "attention.op.output",
        "norm1": "attention.norm1",
        "norm2": "mlp.norm2",
        "up": "mlp.up",
        "act": "mlp.act",
        "down": "mlp.down",
    }.items():
        assert gx.select(model, label).paths == (f"encoder.0.{path}", f"encoder.1.{path}")
    picked = gx.select(model, "encoder[-1:].attention.{query,value}", eqx.nn.Linear)
    assert picked.paths == ("encoder.1.attention.query", "encoder.1.attention.value")


def test_each_part_has_the_shape_that_its_label_says():
    model = fixture("gpt2/base").model
    shapes = {
        path: layer.weight.shape
        for path, layer in gx.select(model, "encoder.0.**", eqx.nn.Linear).items()
    }
    assert shapes == {
        "encoder.0.attention.query": (24, 24),
        "encoder.0.attention.key": (24, 24),
        "encoder.0.attention.value": (24, 24),
        "encoder.0.attention.op.output": (24, 24),
        "encoder.0.mlp.up": (96, 24),
        "encoder.0.mlp.down": (24, 96),
    }


def test_blocks_can_be_dropped_and_the_body_cut_off():
    model, (ids, _) = fixture("gpt2/base").model, batch("gpt2/base")
    expected = outputs("gpt2/base", decoder)
    close(run(model[:"head"], ids[0]), expected["hidden.2"][0])
    shorter = gx.select(model, "encoder[1:]").remove()
    close(run(shorter[:"norm"], ids[0]), expected["hidden.1"][0])
