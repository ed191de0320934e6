"""What a model has in place of the arguments of its constructor is what its constructor was given."""

import jax
import pytest

import graftax as gx
from graftax.zoo import measures

KEY = jax.random.key(0)
ARGUMENTS = {"vocabulary": 13, "width": 12, "depth": 3, "heads": 3, "inner": 20, "dropout": 0.25}


@pytest.fixture(scope="module")
def model():
    return gx.zoo.gpt2(**ARGUMENTS, key=KEY)


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_is_measured_as_it_was_given(model, argument):
    measure = (measures.ENCODER | measures.WORDS)[argument]
    assert measure(model) == ARGUMENTS[argument]


def test_edits_are_measured(model):
    assert measures.ENCODER["depth"](gx.select(model, "encoder.1").remove()) == 2
    assert measures.head_size(model) == 4


def test_tied_weights_are_told_from_a_matrix_of_their_own(model):
    is_tied = measures.is_tied("head.weight")
    assert is_tied(gx.tie(model, "embeddings.word.weight", "head.weight"))
    apart = gx.select(model, "head.weight").apply(lambda weight: weight + 0.0)
    assert not is_tied(apart)


def test_stages_are_the_parts_that_are_called_so():
    stages = [gx.Chain(abs), gx.Chain(abs, abs)]
    assert (
        measures.stages(gx.Chain(stem=abs, stage1=stages[0], stage2=stages[1], head=abs)) == stages
    )
