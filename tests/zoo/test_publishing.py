"""`save_pretrained`: what was edited is in the configuration, or refused by its path."""

import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_publishing import EDITS, edited, pruned
from common_zoo import ZOO, arrays, configurations, fixture, same_bits
from graftax.zoo import from_pretrained, save_pretrained

FAMILIES = ("bert", "convnext", "densenet", "googlenet", "gpt2", "llama", "resnet", "unet", "vit")
# No `model_type` of the zoo's, and a pickle.
NAMES = [name for family in FAMILIES for name in configurations(family) if name != "bert/torch_bin"]
ADDED = {"n_inner", "head_dim", "num_key_value_heads"}


def saved(tmp_path, name, model):
    """The values written for a model like a fixture, those of the fixture, and the model read again."""
    save_pretrained(tmp_path / "saved", model, like=ZOO / name)
    new, old = (
        json.loads((where / "config.json").read_text())
        for where in (tmp_path / "saved", ZOO / name)
    )
    return new, old, from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_edited_comes_back_bit_for_bit_with_its_configuration(name, tmp_path):
    model = fixture(name).model
    new, old, again = saved(tmp_path, name, model)
    same_bits(arrays(again), arrays(model))
    changed = {key for key in {*new, *old} if new.get(key) != old.get(key)}
    # What follows from the rest may be written out.
    assert all(key in ADDED and old.get(key) is None for key in changed)


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_edited_is_in_the_configuration(edit, tmp_path):
    name, model, expected = edited(edit)
    new, _, again = saved(tmp_path, name, model)
    assert {key: new[key] for key in expected} == expected
    same_bits(arrays(again), arrays(model))


def test_inception_comes_back_too(tmp_path):
    model = fixture("inception/v3").model
    same_bits(arrays(saved(tmp_path, "inception/v3", model)[2]), arrays(model))


def test_a_model_made_by_its_constructor_needs_a_configuration_alone(tmp_path):
    like = tmp_path / "like"
    like.mkdir()
    shutil.copy(ZOO / "bert" / "base" / "config.json", like)
    sizes = {"vocabulary": 61, "width": 24, "depth": 2, "heads": 3, "inner": 40, "positions": 16}
    act = fixture("bert/base").model.encoder[0].mlp.act
    model = gx.zoo.bert(**sizes, act=act, key=jax.random.key(0))
    save_pretrained(tmp_path / "saved", model, like=like)
    same_bits(arrays(from_pretrained(tmp_path / "saved")), arrays(model))


def test_it_may_be_written_where_it_was_read(tmp_path):
    shutil.copytree(ZOO / "gpt2" / "base", tmp_path / "model")
    shorter = gx.select(from_pretrained(tmp_path / "model"), "encoder[:1]").remove()
    save_pretrained(tmp_path / "model", shorter, like=tmp_path / "model")
    same_bits(arrays(from_pretrained(tmp_path / "model")), arrays(shorter))


def test_the_dtype_is_that_of_the_weights(tmp_path):
    model = from_pretrained(ZOO / "gpt2" / "base", dtype=jnp.bfloat16)
    new, _, _ = saved(tmp_path, "gpt2/base", model)
    assert new["dtype"] == "bfloat16"
    again = from_pretrained(tmp_path / "saved", dtype=jnp.bfloat16)
    same_bits(arrays(again), arrays(model))


def test_the_old_name_of_the_dtype_is_kept(tmp_path):
    model = from_pretrained(ZOO / "llama" / "published_2", dtype=jnp.float16)
    new, _, _ = saved(tmp_path, "llama/published_2", model)
    assert new["torch_dtype"] == "float16"
    assert "dtype" not in new


def test_a_head_of_which_a_part_was_left_out_is_none_of_its_class(tmp_path):
    # BERT for pretraining has a second head.
    new, old, _ = saved(tmp_path, "bert/published", fixture("bert/published").model)
    assert new["architectures"] == old["architectures"]
    shutil.copytree(ZOO / "bert" / "published", tmp_path / "like")
    config = old | {"architectures": ["BertForPreTraining"]}
    (tmp_path / "like" / "config.json").write_text(json.dumps(config))
    save_pretrained(tmp_path / "other", from_pretrained(tmp_path / "like"), like=tmp_path / "like")
    written = json.loads((tmp_path / "other" / "config.json").read_text())
    assert written["architectures"] == ["BertForMaskedLM"]


def test_remat_does_not_stand_in_the_way(tmp_path):
    model = gx.select(fixture("gpt2/base").model, "encoder[:]").apply(gx.Remat)
    same_bits(arrays(saved(tmp_path, "gpt2/base", model)[2]), arrays(fixture("gpt2/base").model))


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (
            "gpt2/base",
            lambda m: gx.select(m, "encoder.1.mlp.act").set(jax.nn.relu),
            "encoder.1.mlp.act is relu, not gelu",
        ),
        (
            "gpt2/base",
            lambda m: gx.select(m, "act").set(jnp.sin),
            "encoder.0.mlp.act is sin, not gelu",
        ),
        (
            "gpt2/base",
            lambda m: gx.select(m, "encoder.1.mlp.norm2", eqx.nn.LayerNorm).update(eps=1e-3),
            "encoder.1.mlp.norm2 has eps=0.001, not 1e-05",
        ),
        (
            "gpt2/inverse_layer_scale",
            lambda m: gx.select(m, "encoder[:1]").remove(),
            r"encoder.0.attention.op.attend has scale=0.17\d+, not 0.35",
        ),
        (
            "gpt2/base",
            lambda m: gx.tie(m, "encoder.0.mlp.up.weight", "encoder.1.mlp.up.weight"),
            "encoder.1.mlp.up.weight is tied to encoder.0.mlp.up.weight",
        ),
        (
            "bert/base",
            lambda m: pruned(m, groups=3),
            r"encoder.0.attention.query has out_features=8, not 24",
        ),
        (
            "resnet/basic",
            lambda m: gx.select(m, "stem.conv").update(stride=(1, 1)),
            r"stem.conv has stride=\(1, 1\), not \(2, 2\)",
        ),
        (
            "resnet/basic",
            lambda m: gx.select(m, "stage3").remove(),
            "head has in_features=16, not 12",
        ),
        (
            "vit/base",
            lambda m: gx.select(m, "embeddings.position.weight").apply(lambda w: w[:15]),
            r"embeddings.position.weight has shape \(15, 24\), not \(17, 24\)",
        ),
        ("bert/base", lambda m: gx.select(m, "encoder[:]").remove(), "lacks a part: Chain has 0"),
        ("bert/base", lambda m: gx.Chain(a=m), "lacks a part: Chain has no attribute 'em"),
        ("bert/base", lambda m: 3, "lacks a part: 'int' object has no attribute"),
        (
            "unet/bilinear",
            lambda m: m[:"head"],
            "has no head, and there is no class for that",
        ),
        (
            "bert/base",
            lambda m: gx.select(m, "query", eqx.nn.Linear).apply(gx.quantize),
            r"encoder\.0\.attention\.query",
        ),
        (
            "bert/base",
            lambda m: gx.select(m, "query", eqx.nn.Linear).apply(
                lambda layer, key: gx.LoRA(layer, rank=2, key=key), key=jax.random.key(0)
            ),
            r"encoder\.0\.attention\.query.*merge_lora",
        ),
        (
            "gpt2/base",
            lambda m: gx.select(m, eqx.is_inexact_array).apply(lambda x: x.astype("float8_e4m3fn")),
            "float8_e4m3fn; transformers opens",
        ),
    ],
)
def test_what_no_configuration_says_is_refused_by_its_path_and_nothing_is_written(
    name, edit, message, tmp_path
):
    model = edit(fixture(name).model)
    with pytest.raises(gx.UnsavableError, match=message):
        save_pretrained(tmp_path / "saved", model, like=ZOO / name)
    assert not (tmp_path / "saved").exists()


def test_statistics_that_were_separated_are_asked_for(tmp_path):
    model, state = eqx.nn.make_with_state(from_pretrained)(ZOO / "resnet" / "basic")
    with pytest.raises(ValueError, match="statistics"):
        save_pretrained(tmp_path / "saved", model, like=ZOO / "resnet" / "basic")
    again = gx.with_state(model, state)
    same_bits(arrays(saved(tmp_path, "resnet/basic", again)[2]), arrays(again))
