"""The words at the end of an error: the nearest right answer, and lists that stay short."""

import pickle
import time

import pytest

from graftax.paths.errors import LabelError, did_you_mean, listed, nearest


def test_the_nearest_comes_first_and_each_word_once():
    words = ["stem", "bottleneck", "bottle", "bottleneck", "head"]
    assert nearest("botleneck", words) == ["bottleneck", "bottle"]
    assert nearest("xyz", words) == []
    assert len(nearest("norm", [f"norm{i}" for i in range(9)])) == 3


def test_long_words_and_many_are_not_compared_for_ever():
    began = time.process_time()
    assert nearest("x" * 100_000, ["x" * 100_001]) == []
    assert nearest("stem", ["y" * 1_000_000, "stemm"]) == ["stemm"]
    assert nearest("stem", ["stemm", *(f"layer{i}" for i in range(1_000_000))]) == ["stemm"]
    assert time.process_time() - began < 2


def test_a_hint_is_a_sentence_or_nothing():
    assert did_you_mean("botleneck", ["stem", "bottleneck"]) == " Did you mean 'bottleneck'?"
    assert did_you_mean("botleneck", ["stem", "head"]) == ""
    assert did_you_mean("botleneck", []) == ""


def test_a_list_says_how_many_more_there_are():
    assert listed(["a", 1, None]) == "a, 1, None"
    assert listed([]) == "none"
    assert listed(range(12)) == ", ".join(map(str, range(12)))
    assert listed(range(15), limit=2) == "0, 1, and 13 more"


def test_a_label_error_prints_its_message_as_it_is():
    error = LabelError("Chain has no layer 'a'.")
    assert isinstance(error, KeyError)
    assert str(error) == "Chain has no layer 'a'."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(LabelError()) == ""
    with pytest.raises(KeyError, match=r"^Chain has no layer 'a'\.$"):
        raise error
