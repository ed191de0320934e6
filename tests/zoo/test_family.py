"""Families: any head's file gives its body, heads go by name, and images need no state."""

import inspect
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import graftax as gx
from common_language import batch, run
from common_zoo import ZOO, arrays, close, configurations, fixture, published, same_bits
from graftax.zoo import ConfigError, from_pretrained
from graftax.zoo.config import Config
from graftax.zoo.pretrained import FAMILIES, recipe_for

BODIES = {
    "bert": ("embeddings", "encoder"),
    "gpt2": ("embeddings", "encoder", "norm"),
    "llama": ("embeddings", "encoder", "norm"),
    "vit": ("embeddings", "encoder", "norm"),
    "unet": ("encoder", "skip", "decoder"),
}
STATEFUL = ["resnet/basic", "densenet/base", "googlenet/base", "inception/v3", "unet/bilinear"]
TEXT = [name for family in ("bert", "gpt2", "llama") for name in configurations(family)]
TEXT.remove("bert/torch_bin")
IMAGES = ["vit/base", "vit/published", "convnext/base", "resnet/model", "resnet/torchvision_basic"]


@pytest.mark.parametrize("name", [*TEXT, *IMAGES, *STATEFUL])
def test_the_file_of_any_head_gives_its_body(name):
    body, whole = from_pretrained(ZOO / name, head=None), fixture(name).model
    labels = BODIES.get(name.partition("/")[0])
    assert labels is None or body.labels == labels
    assert "head" not in body
    assert "pooler" not in body
    found, expected = arrays(body), arrays(whole)
    # A tied matrix, which the head of the whole may hold, stands in the embeddings too.
    assert set(found) == {path for path in expected if path.split(".")[0] in body.labels}
    same_bits(found, {path: expected[path] for path in found})


@pytest.mark.parametrize("name", ["bert/base", "gpt2/base", "llama/gqa", "vit/published"])
def test_the_body_of_a_class_that_nobody_knows_loads(name, tmp_path):
    directory = published(tmp_path, name, architectures=["SomethingElse"])
    weights = load_file(directory / "model.safetensors")
    weights["strange_head.weight"] = np.ones((3, 3), np.float32)
    save_file(weights, directory / "model.safetensors")
    with pytest.raises(ConfigError, match=r"is for 'SomethingElse'.*give head=None"):
        from_pretrained(directory)
    same_bits(
        arrays(from_pretrained(directory, head=None)),
        arrays(from_pretrained(ZOO / name, head=None)),
    )


def test_a_body_that_lacks_a_weight_is_reported_all_the_same(tmp_path):
    directory = published(tmp_path, "gpt2/base")
    weights = load_file(directory / "model.safetensors")
    del weights["transformer.ln_f.bias"]
    weights["transformer.h.0.extra.weight"] = np.ones(3, np.float32)
    save_file(weights, directory / "model.safetensors")
    with pytest.raises(gx.WeightsError) as error:
        from_pretrained(directory, head=None)
    assert error.value.report.missing == {"norm.bias": "transformer.ln_f.bias"}
    assert error.value.report.unexpected == ("transformer.h.0.extra.weight",)


@pytest.mark.parametrize(
    ("name", "head", "scores"),
    [
        ("bert/tokens", "tokens", 5),
        ("bert/questions", "questions", 2),
        ("gpt2/tokens", "tokens", 4),
        ("gpt2/questions", "questions", 2),
        ("llama/tokens", "tokens", 4),
        ("llama/questions", "questions", 2),
    ],
)
def test_heads_for_tokens_and_questions_score_each_token(name, head, scores):
    model, (ids, _) = from_pretrained(ZOO / name, head=head), batch(name)
    assert run(model, ids[0]).shape == (len(ids[0]), scores)
    same_bits(arrays(model), arrays(fixture(name).model))


def test_a_head_may_be_asked_for_by_name_whatever_the_configuration_says(tmp_path):
    directory = published(tmp_path, "bert/tokens", architectures=["SomethingElse"])
    model = from_pretrained(directory, head="tokens")
    same_bits(arrays(model), arrays(fixture("bert/tokens").model))


def test_a_head_whose_weights_are_not_there_is_reported():
    with pytest.raises(gx.WeightsError, match=r"missing in the checkpoint[^!]*qa_outputs"):
        from_pretrained(ZOO / "bert" / "base", head="questions")


@pytest.mark.parametrize("head", ["question", "", "classifier "])
def test_a_head_that_the_family_does_not_have_is_refused_with_those_it_has(head):
    with pytest.raises(ValueError, match=r"no head=.*'published', 'pooler', 'classifier'"):
        from_pretrained(ZOO / "bert" / "base", head=head)


@pytest.mark.parametrize("name", STATEFUL)
def test_an_image_is_the_whole_call(name):
    found = fixture(name)
    images = jnp.asarray(found.io["input.pixel_values"])
    y = jax.jit(jax.vmap(found.model))(images)
    close(y, found.io["output.logits"])


def test_every_argument_of_a_table_is_one_of_the_constructor():
    for family in FAMILIES.values():
        assert set(family.keys) <= set(inspect.signature(family.build).parameters), family.build
        assert family.measures.keys() & family.keys.keys(), family.build


def test_the_prefix_of_a_head_is_found_in_the_names(tmp_path):
    names = fixture("llama/questions").stored
    config = Config.read(ZOO / "llama" / "questions" / "config.json")
    assert recipe_for(config, names).rename[".layers"] == "transformer.layers"
    shutil.copytree(ZOO / "llama" / "questions", tmp_path / "other")
    renamed = {n.replace("transformer.", "model."): a for n, a in names.items()}
    save_file(renamed, tmp_path / "other" / "model.safetensors")
    same_bits(arrays(from_pretrained(tmp_path / "other")), arrays(fixture("llama/questions").model))
    assert json.loads((tmp_path / "other" / "config.json").read_text())["model_type"] == "llama"
