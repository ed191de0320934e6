"""Counting blocks by the names of their weights."""

import pytest

import graftax as gx
from graftax.zoo.blocks import check_blocks

PLAIN = {"encoder.{i}": "encoder.layer.{i}"}
STAGED = {"stage{s}.{b}": "stages.{s}.layers.{b}", ".stage{s}.{b}": ".layer{s}.{b}"}


def names(*prefixes):
    return [f"{prefix}.{rest}.weight" for prefix in prefixes for rest in ("conv", "norm")]


def test_blocks_are_as_many_as_there_are_different_ones():
    there = names("bert.encoder.layer.0", "bert.encoder.layer.1", "bert.embeddings")
    assert check_blocks(2, PLAIN, there) is None
    assert check_blocks(3, PLAIN, there) == (
        "; the weights, whose names are like 'encoder.layer.{i}', have 2 blocks."
    )


def test_stages_are_counted_one_by_one_in_the_order_of_their_numbers():
    there = names(*(f"stages.{s}.layers.{b}" for s in range(11) for b in range(1 + s % 3)))
    found = (1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2)
    assert check_blocks(found, STAGED, there) is None
    assert check_blocks((1, 2), STAGED, there).endswith(f"have {list(found)} blocks.")


def test_of_several_manners_of_naming_one_is_that_of_the_checkpoint():
    assert check_blocks((1, 2), STAGED, names("layer1.0", "layer2.0", "layer2.1")) is None


def test_names_without_any_block_are_another_models():
    with pytest.raises(gx.WeightsError, match="no such model") as error:
        check_blocks((1,), STAGED, ["features.weight"])
    assert error.value.report.missing == {
        "stage0.0": "stages.0.layers.0",
        ".stage0.0": ".layer0.0",
    }
    assert error.value.report.unexpected == ("features.weight",)
