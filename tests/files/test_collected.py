"""What is collected beside the structure: arrays once, markers under names of their own, needed names."""

import equinox as eqx
import jax.numpy as jnp
import pytest

import common_named as named
import graftax as gx
from common_files import linear
from graftax.files.checks import MOST_LABELS
from graftax.files.collected import Collected, refused


def test_a_refusal_begins_with_the_path_or_with_the_model():
    assert str(refused("a.0", "is odd")) == "'a.0' is odd."
    assert str(refused("", "is odd")) == "The model is odd."


def test_an_array_has_one_entry_and_is_not_read_before_it_is_asked_for():
    collected, array = Collected(), jnp.ones(2)
    assert collected.array(array, "a") is collected.array(array, "b") == {"array": "a"}
    assert collected.array(jnp.ones(2), "a") == {"array": "a#2"}
    assert sorted(collected.arrays) == ["a", "a#2"]


def test_what_a_walk_finds_is_called_by_the_path_of_the_walk():
    model = gx.Remat(gx.Then(linear(2, 2), scale=linear(2, 2, 1)))
    collected = Collected()
    collected.look_up_paths(model)
    weight = model.scale.weight
    assert collected.array(weight, "after.scale.weight") == {"array": "scale.weight"}
    assert collected.array(jnp.ones(1), "") == {"array": "value"}


def test_names_that_load_knows_are_not_needed():
    collected = Collected()
    assert collected.name(jnp.tanh) == "jax.nn.tanh" and collected.name(abs) == "builtins.abs"
    assert collected.name(named.square) == "common_named.square" and collected.name(3) is None
    assert collected.named == {"common_named.square": named.square}


def test_two_markers_have_two_names_and_one_has_one():
    collected = Collected()
    indices = [eqx.nn.StateIndex(0), eqx.nn.StateIndex(0)]
    names = [collected.marker(index, path) for index in indices for path in ("a", "b")]
    assert names == ["a", "a", "a#2", "a#2"]
    assert collected.places == {"a": "a", "a#2": "a"}


def test_sets_of_labels_are_counted_once_each():
    collected = Collected()
    for i in range(MOST_LABELS):
        assert collected.labels((f"l{i}",), "a") == [f"l{i}"]
    collected.labels(("l0",), "a")
    with pytest.raises(gx.UnsavableError, match="'a' has the labels after 2000"):
        collected.labels(("more",), "a")
