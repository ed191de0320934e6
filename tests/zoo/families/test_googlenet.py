"""GoogLeNet: what it computes is what torchvision computes, and its parts can be worked on."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_images import (
    call,
    check_export,
    check_state_round_trip,
    count_parameters,
    parts,
    run,
)
from common_zoo import (
    ZOO,
    close,
    configurations,
    documented_labels,
    exported,
    fixture,
    labels,
    published,
)
from graftax.zoo import ConfigError, from_pretrained, googlenet, inception_block

FIXTURES = configurations("googlenet")
BLOCKS = {"3": "stage1", "4": "stage2", "5": "stage3"}


def sizes():
    return json.loads((ZOO / "googlenet/base/config.json").read_text())["block_sizes"]


# --- Against torchvision ---


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXTURES)
def test_the_output_and_what_leaves_the_blocks_are_those_of_torchvision(name):
    expected, found = fixture(name).group("output."), run(name)
    close(found["head"], expected.pop("logits"))
    assert len(expected) == 6
    for key, array in expected.items():
        number, letter = key.removeprefix("hidden.inception")
        close(found[f"{BLOCKS[number]}.blocks.{'abcde'.index(letter)}"], array)


# --- Files ---


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    model, state = parts(name)
    tensors = exported(tmp_path, model, fixture(name).recipe, state=state)
    stored = {n: a for n, a in fixture(name).stored.items() if not n.startswith("aux")}
    check_export(tensors, stored)
    assert sorted(tensors) == sorted(stored)


def test_a_saved_model_loads_bit_for_bit_with_its_state(tmp_path):
    # With `normalize`, whose numbers are settings.
    check_state_round_trip(tmp_path, "googlenet/published")


# --- The configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["Inception3"]}, "'Inception3'; supported: GoogLeNet"),
        ({"stem_sizes": [4, 12]}, r"stem_sizes=\[4, 12\]: the stem has 3"),
        ({"norm_eps": 1e-5}, "norm_eps=1e-05"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "googlenet/base", **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sizes: sizes.pop("inception4c"), "block_sizes' lacks 'inception4c'"),
        (lambda sizes: sizes.update(inception6a=[1] * 6), "inception6a="),
        (
            lambda sizes: sizes.update(inception3a=[4, 6, 8]),
            r"inception3a=\[4, 6, 8\]: a block has 6",
        ),
    ],
)
def test_sizes_that_are_not_those_of_its_blocks_are_refused_by_name(change, message, tmp_path):
    changed = sizes()
    change(changed)
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "googlenet/base", block_sizes=changed))


def test_dropout_is_that_of_the_configuration(tmp_path):
    model = from_pretrained(published(tmp_path, "googlenet/base", dropout=0.4))
    assert model.dropout.p == 0.4
    assert parts("googlenet/base")[0].dropout.p == 0.2


# --- What it is ---


def test_transform_brings_colours_from_imagenet_to_minus_1_to_1():
    model, _ = parts("googlenet/published")
    assert model.stem.labels[0] == "normalize"
    assert "normalize" not in parts("googlenet/base")[0].stem
    colours = np.random.default_rng(0).uniform(size=(3, 4, 5)).astype(np.float32)
    mean = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
    deviation = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
    close(call(model.stem.normalize, (colours - mean) / deviation), 2 * colours - 1)


def test_a_block_is_its_four_branches_side_by_side():
    model, state = parts("googlenet/base")
    block, x = model.stage2.blocks[0], run("googlenet/base")["stage2.downsample"][0]
    assert isinstance(block, gx.Parallel)
    branches = [call(branch, x, state=state)[0] for branch in block]
    assert [len(y) for y in branches] == [sizes()["inception4a"][i] for i in (0, 2, 4, 5)]
    close(call(block, x, state=state)[0], jnp.concatenate(branches))


def test_a_block_keeps_the_size_of_the_image():
    block = inception_block(5, (2, 3, 4, 1, 2, 3), key=jax.random.key(0))
    block, state = eqx.nn.make_with_state(lambda: eqx.nn.inference_mode(block))()
    y = jax.eval_shape(lambda x: block(x, state)[0], jnp.ones((5, 7, 9)))
    assert y.shape == (2 + 4 + 2 + 3, 7, 9)


def test_each_norm_has_the_epsilon_of_inception():
    model, _ = parts("googlenet/base")
    assert {norm.eps for norm in gx.select(model, eqx.nn.BatchNorm).expect(57)} == {1e-3}


def test_the_published_sizes_have_the_published_number_of_parameters():
    model = eqx.filter_eval_shape(lambda key: googlenet(key=key), jax.random.key(0))
    assert count_parameters(model) == 6_624_904


@pytest.mark.slow
def test_folded_batch_norms_compute_the_same():
    model, state = parts("googlenet/base")
    folded = gx.fold_batch_norm(model, state)
    assert not gx.select(folded, eqx.nn.BatchNorm)
    image = fixture("googlenet/base").io["input.pixel_values"][0]
    close(call(folded, image), run("googlenet/base")["head"][0])


# --- Labels ---


def test_every_label_is_in_the_vocabulary():
    assert labels(parts("googlenet/published")[0]) <= documented_labels()


def test_its_parts_are_found_by_their_labels():
    model, _ = parts("googlenet/base")
    blocks = [f"stage{s}.blocks.{b}" for s, n in ((1, 2), (2, 5), (3, 2)) for b in range(n)]
    assert gx.select(model, gx.Parallel).paths == tuple(blocks)
    assert gx.select(model, "branch3").paths == tuple(f"{path}.branch3" for path in blocks)
    assert gx.select(model, "stage2.blocks[-1].{branch2,branch3}.conv2").paths == (
        "stage2.blocks.4.branch2.conv2",
        "stage2.blocks.4.branch3.conv2",
    )
    assert gx.select(model, "downsample").paths == ("stage2.downsample", "stage3.downsample")


def test_a_branch_can_be_taken_out_of_a_block():
    model, state = parts("googlenet/base")
    x = run("googlenet/base")["stage2.downsample"][0]
    whole = call(model.stage2.blocks[0], x, state=state)[0]
    edited = gx.select(model, "stage2.blocks.0.branch1").remove()
    found = call(edited.stage2.blocks[0], x, state=state)[0]
    close(found, whole[sizes()["inception4a"][0] :])
