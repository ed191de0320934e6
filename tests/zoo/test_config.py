"""Configurations: whatever stands in one, it is followed, or refused with the file and the key."""

import json
import time

import numpy as np
import pytest

import graftax as gx
from common_zoo import ZOO, fixture, published
from graftax.files.source import open_source
from graftax.zoo import ConfigError, from_pretrained
from graftax.zoo.config import Config
from graftax.zoo.pretrained import recipe_for, skeleton_of

FAMILIES = [
    "bert/base",
    "bert/classification",
    "gpt2/base",
    "llama/gqa",
    "llama/yarn_rope",
    "llama/longrope",
    "vit/base",
    "resnet/basic",
    "resnet/torchvision_bottleneck",
    "convnext/base",
    "densenet/base",
    "googlenet/base",
    "inception/v3",
    "unet/bilinear",
]
VALUES = [
    *(None, True, False, -1, 0, 1, 3, 10**9, 2**31, 10**30, -0.5, 0.5, 1e30, 1e300),
    *(float("inf"), float("nan"), "", "x", "relu", [], [1], [0], [2, 2], [None], [1] * 1000, [[1]]),
    *({}, {"a": 1}, {"0": "a"}),
]
BESIDES = [
    *("classifier_dropout", "n_inner", "head_dim", "rope_scaling", "rope_theta", "num_labels"),
    *("id2label", "architectures", "image_size", "max_position_embeddings", "pad_token_id"),
]


def mutations(config):
    """(the key, the configuration with another value there), at any depth."""
    for key in dict.fromkeys([*config, *BESIDES]):
        yield from ((key, config | {key: value}) for value in VALUES)
    for key, inner in config.items():
        entries = inner if isinstance(inner, dict) else {}
        for name in entries:
            yield from ((key, config | {key: inner | {name: value}}) for value in VALUES)
        for i in range(len(inner) if isinstance(inner, list) else 0):
            changed = ([*inner[:i], value, *inner[i + 1 :]] for value in VALUES)
            yield from ((key, config | {key: entry}) for entry in changed)


def sampled(config, count):
    """So many of the mutations, always the same ones."""
    everything = list(mutations(config))
    for i in np.random.default_rng(0).choice(len(everything), count, replace=False):
        yield everything[i]


@pytest.mark.parametrize("name", FAMILIES)
def test_whatever_a_value_is_it_is_followed_or_refused_with_the_file_and_the_key(name):
    values = json.loads((ZOO / name / "config.json").read_text())
    # What was built once for the same arguments is not built again.
    built, refused = set(), 0
    with open_source(ZOO / name) as names:
        for key, changed in sampled(values, 200):
            config = Config(changed, "there/config.json")
            try:
                recipe = recipe_for(config, names)
                config.check_all_used()
                if repr(recipe.build) not in built:
                    skeleton_of(recipe, config)
                    built.add(repr(recipe.build))
            except ConfigError as error:
                refused += 1
                check_message(str(error), key)
            except gx.WeightsError:
                refused += 1
    assert refused > 50
    assert built


def check_message(text, key):
    assert "there/config.json" in text
    # Of the sizes, the factors of rotary positions follow, of which each pair has one.
    is_together = key in ("head_dim", "num_attention_heads", "hidden_size") and "_factor=" in text
    assert key in text or is_together, (key, text)
    assert len(text) < 2000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert/base", "llama/yarn_rope", "resnet/basic"])
def test_what_is_read_loads_or_is_refused(name, tmp_path):
    directory = published(tmp_path, name)
    values = json.loads((directory / "config.json").read_text())
    for _, changed in sampled(values, 60):
        (directory / "config.json").write_text(json.dumps(changed))
        try:
            model = from_pretrained(directory)
        except (ConfigError, gx.WeightsError):
            continue
        assert list(gx.walk(model))


@pytest.mark.parametrize(
    ("name", "key", "value", "found"),
    [
        ("bert/base", "num_hidden_layers", 2000, "'encoder.layer.{i}', have 2 blocks"),
        ("bert/base", "num_hidden_layers", 10**9, "have 2 blocks"),
        ("bert/base", "num_hidden_layers", 1, "have 2 blocks"),
        ("gpt2/base", "n_layer", 2000, "'h.{i}', have 2 blocks"),
        ("llama/gqa", "num_hidden_layers", 2000, "'layers.{i}', have 2 blocks"),
        ("vit/base", "num_hidden_layers", 2000, "'encoder.layer.{i}', have 2 blocks"),
        ("resnet/basic", "depths", [1, 1, 2000], "blocks"),
        ("resnet/torchvision_bottleneck", "depths", [1, 2000, 1, 1], "'.layer{s}.{b}', have"),
        ("convnext/base", "depths", [2000, 1, 1, 1], "have [1, 1, 1, 1] blocks"),
        ("densenet/base", "block_config", [2, 2000, 1, 2], "have [2, 2, 1, 2] blocks"),
        ("unet/bilinear", "hidden_sizes", [4] * 2000, "'encoder.{i}', have"),
    ],
)
def test_blocks_are_counted_before_any_is_built(name, key, value, found, tmp_path):
    directory = published(tmp_path, name, **{key: value})
    start = time.perf_counter()
    with pytest.raises(ConfigError) as error:
        from_pretrained(directory)
    assert time.perf_counter() - start < 1
    assert f"{key}=" in str(error.value)
    assert found in str(error.value)


def test_weights_without_any_block_are_those_of_another_model(tmp_path):
    directory = published(tmp_path, "gpt2/base")
    (directory / "model.safetensors").write_bytes(
        (ZOO / "bert/base/model.safetensors").read_bytes()
    )
    with pytest.raises(gx.WeightsError, match=r"no such model") as error:
        from_pretrained(directory)
    assert error.value.report.missing == {"encoder.0": "h.0"}
    assert "embeddings.word_embeddings.weight" in error.value.report.unexpected


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bert/base", {"hidden_act": "gelu_python"}),
        ("bert/base", {"pruned_heads": {}, "is_decoder": False, "classifier_dropout": None}),
        ("bert/base", {"id2label": {}, "num_labels": 2, "problem_type": "regression"}),
        ("bert/base", {"directionality": "bidi", "pooler_fc_size": 768, "pooler_type": "first"}),
        ("bert/base", {"_num_labels": 9, "output_past": True, "num_beams": 4, "top_k": 50}),
        ("gpt2/base", {"activation_function": "gelu_fast"}),
        ("gpt2/base", {"activation_function": "gelu_accurate", "n_inner": None}),
        ("llama/llama3_rope", {"pretraining_tp": 2, "rope_scaling": None}),
        ("convnext/base", {"drop_path_rate": 0}),
    ],
)
def test_what_changes_nothing_is_not_refused(name, changes, tmp_path):
    assert repr(from_pretrained(published(tmp_path, name, **changes))) == repr(fixture(name).model)


def test_heads_that_were_pruned_are_not_forgotten(tmp_path):
    directory = published(tmp_path, "bert/base", pruned_heads={"0": [1]})
    with pytest.raises(ConfigError, match="pruned_heads="):
        from_pretrained(directory)


def test_an_unknown_value_of_0_is_a_value(tmp_path):
    with pytest.raises(ConfigError, match="residual_multiplier=0"):
        from_pretrained(published(tmp_path, "llama/gqa", residual_multiplier=0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "holds a list"),
        ("{}", "lacks 'model_type'"),
        ("3", "holds a int"),
        ("[" * 100_000, "is no JSON"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, "is no JSON"),
        ('{"vocab_size": 1' + "0" * 10_000 + "}", "is no JSON"),
        ("\xff", "lacks|is no JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    directory = published(tmp_path, "bert/base")
    (directory / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"config\.json' .*(?:{message})"):
        from_pretrained(directory)


def test_a_long_value_is_cut_in_the_message(tmp_path):
    with pytest.raises(ConfigError) as error:
        from_pretrained(published(tmp_path, "bert/base", hidden_act="x" * 100_000))
    assert len(str(error.value)) < 1000
