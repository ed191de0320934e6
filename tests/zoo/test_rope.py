"""Rotary positions by a configuration: the words of old and new versions, and what is refused."""

import math

import pytest

from common_zoo import fixture, published
from graftax.zoo import ConfigError, RotaryEmbedding, from_pretrained
from graftax.zoo.config import Config
from graftax.zoo.rope import rotary

LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0]}
LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}


def read(rope=None, head_size=4, **values):
    values |= {} if rope is None else {"rope_parameters": rope}
    config = Config(values, "config.json")
    found = rotary(config, head_size)
    config.check_all_used()
    return found


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("linear_rope", {"type": "linear", "factor": 4}),
        ("linear_rope", {"rope_type": "linear", "factor": 4.0}),
        ("linear_rope", {"rope_type": "linear", "type": "linear", "factor": 4.0}),
        ("gqa", None),
        ("gqa", {}),
        ("gqa", {"rope_type": "default"}),
        ("gqa", {"rope_type": "default", "type": "default", "partial_rotary_factor": 1.0}),
    ],
)
def test_rotary_positions_may_be_described_in_the_old_way(name, old, tmp_path):
    changes = {"rope_scaling": old, "rope_theta": 10000}
    directory = published(tmp_path, f"llama/{name}", remove=["rope_parameters"], **changes)
    assert repr(from_pretrained(directory)) == repr(fixture(f"llama/{name}").model)


def test_without_any_word_they_are_the_plain_ones():
    assert read() == RotaryEmbedding(10_000.0)
    assert read(rope_theta=500) == RotaryEmbedding(500.0)
    assert read({"rope_theta": 100}, rope_theta=500) == RotaryEmbedding(100.0)


@pytest.mark.parametrize("kind", ["llama3", "yarn", "longrope"])
def test_the_length_of_training_is_that_of_the_model_where_no_other_is_said(kind):
    rope = {"llama3": LLAMA3, "yarn": {"rope_type": "yarn", "factor": 2.0}, "longrope": LONGROPE}[
        kind
    ]
    within = {"original_max_position_embeddings": 16}

    def length(found):
        return found.scaling[3] if kind == "llama3" else found.length

    assert length(read(rope)) == 2048
    assert length(read(rope, max_position_embeddings=64)) == 64
    assert length(read(rope | within, max_position_embeddings=64)) == 16
    # As in transformers, which lets the outer one win.
    outer = {"max_position_embeddings": 64, "original_max_position_embeddings": 8}
    assert length(read(rope | within, **outer)) == 8


def test_dynamic_rotations_count_from_the_positions_of_the_model():
    rope = {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 16}
    assert read(rope, max_position_embeddings=64).length == 64


def test_what_longrope_multiplies_with_follows_from_how_much_longer_sequences_are():
    lengths = {"max_position_embeddings": 64, "original_max_position_embeddings": 16}
    expected = math.sqrt(1 + math.log(4) / math.log(16))
    assert read(LONGROPE, **lengths).magnitude() == pytest.approx(expected)
    assert read(LONGROPE | {"factor": 1.0}, **lengths).magnitude() == 1.0
    assert read(LONGROPE | {"attention_factor": 1.25}, **lengths).magnitude() == 1.25


def test_what_yarn_multiplies_with_may_be_a_ratio():
    rope = {"rope_type": "yarn", "factor": 8.0, "mscale": 0.5, "mscale_all_dim": 2.0}
    ratio = (1 + 0.05 * math.log(8)) / (1 + 0.2 * math.log(8))
    assert read(rope).magnitude() == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_type": "proportional", "factor": 2.0}, "rope_type='proportional'; supported: 'def"),
        ({"type": "proportional", "factor": 2.0}, "type='proportional'; supported: 'default'"),
        ({"rope_type": "yarn", "type": "linear"}, "rope_type='yarn', but type='linear'"),
        ({"rope_type": "default", "beta_fast": 32}, "beta_fast=32"),
        ({"rope_type": "linear"}, "rope_parameters' lacks 'factor'"),
        ({"rope_type": "linear", "factor": 0}, "factor=0; it should be a finite number above 0"),
        ({"rope_type": "dynamic"}, "rope_parameters' lacks 'factor'"),
        ({"rope_type": "llama3", "factor": 8.0}, "lacks 'low_freq_factor'"),
        (LLAMA3 | {"high_freq_factor": 1}, "high_freq_factor=1; it should be above"),
        (LONGROPE | {"short_factor": [1.0]}, r"short_factor=\[1.0\]; it should be a list of 2"),
        (LONGROPE | {"long_factor": [1.0, -1]}, r"long_factor=\[1.0, -1\]; it should be a finite"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": 1}, "truncate=1; it should be true or f"),
        ({"rope_type": "yarn", "factor": 2.0, "rope_theta": 1}, "with rope_theta=1.0 no pair"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5; supported: 1.0"),
        (4.0, "rope_parameters=4.0, where named values should be"),
        (["yarn"], "where named values should be"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(rope, message):
    with pytest.raises(ConfigError, match=message):
        read(rope)


def test_heads_too_small_for_dynamic_rotations_are_refused():
    with pytest.raises(ConfigError, match="heads of 2 features are too small"):
        read({"rope_type": "dynamic", "factor": 2.0}, head_size=2)


def test_a_head_with_a_feature_too_many_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="head_dim=5; a head of 5 features has no pairs"):
        from_pretrained(published(tmp_path, "llama/gqa", head_dim=5))


def test_old_and_new_words_at_once_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="rope_scaling' has values"):
        from_pretrained(published(tmp_path, "llama/gqa", rope_scaling={"rope_type": "default"}))
