"""Inception v3: what it computes is what torchvision computes, and its parts can be worked on."""

import functools

import equinox as eqx
import jax
import pytest
from safetensors.numpy import load_file

import graftax as gx
from common_images import (
    call,
    check_export,
    check_state_round_trip,
    count_parameters,
    features,
    parts,
    run,
)
from common_zoo import (
    ZOO,
    close,
    documented_labels,
    exported,
    fixture,
    labels,
    published,
)
from graftax.zoo import (
    ConfigError,
    from_pretrained,
    inception,
    inception_a,
    inception_b,
    inception_c,
    inception_d,
    inception_e,
)
from graftax.zoo.config import Recipe
from graftax.zoo.convolution import POOL
from graftax.zoo.families.inception import block_names

STAGES = {
    "Mixed_5b": "stage1.blocks.0",
    "Mixed_6a": "stage2.downsample",
    "Mixed_6b": "stage2.blocks.0",
    "Mixed_7a": "stage3.downsample",
    "Mixed_7b": "stage3.blocks.0",
}


# --- Against torchvision ---


@pytest.mark.slow
def test_the_output_and_what_leaves_the_blocks_are_those_of_torchvision():
    expected, found = fixture("inception/v3").group("output."), run("inception/v3")
    close(found["head"], expected.pop("logits"))
    assert len(expected) == len(STAGES)
    for key, path in STAGES.items():
        close(found[path], expected[f"hidden.{key}"])


@functools.cache
def blocks():
    """The five kinds of block in a row, as the fixture `blocks` has them; and the recipe."""

    def build(key):
        keys = jax.random.split(key, 6)
        return gx.Chain(
            a=inception_a(6, 1, divisor=32, key=keys[0]),
            b=inception_b(8, divisor=32, key=keys[1]),
            c=inception_c(23, 4, divisor=32, key=keys[2]),
            d=inception_d(24, divisor=32, key=keys[3]),
            e=inception_e(40, divisor=32, key=keys[4]),
            pool=POOL,
            head=eqx.nn.Linear(64, 5, key=keys[5]),
        )

    rename = {".head": "fc"}
    for kind in "abcde":
        rename |= block_names(f".{kind}", f"Mixed_{kind}", kind)
    skeleton = eqx.filter_eval_shape(build, jax.random.key(0))
    file = ZOO / "inception/blocks/model.safetensors"
    model = eqx.nn.inference_mode(gx.load_weights(skeleton, file, rename))
    return *eqx.nn.make_with_state(lambda: model)(), Recipe(build, rename)


def test_each_kind_of_block_computes_what_torchvision_does_on_larger_maps():
    model, state, _ = blocks()
    io = load_file(ZOO / "inception/blocks/io.safetensors")
    found = jax.jit(lambda x: features(model, x, state))(io["input.pixel_values"][0])
    close(found["head"], io["output.logits"][0])
    for kind in "abcde":
        close(found[kind], io[f"output.hidden.Mixed_{kind}"][0])


# --- Files ---


def test_an_export_has_the_names_and_bytes_of_the_checkpoint(tmp_path):
    model, state = parts("inception/v3")
    tensors = exported(tmp_path, model, fixture("inception/v3").recipe, state=state)
    check_export(tensors, fixture("inception/v3").stored)


def test_an_export_of_the_blocks_has_the_names_and_bytes_of_the_checkpoint(tmp_path):
    model, state, recipe = blocks()
    stored = load_file(ZOO / "inception/blocks/model.safetensors")
    tensors = exported(tmp_path, model, recipe, state=state)
    check_export(tensors, stored)
    assert sorted(tensors) == sorted(stored)


def test_a_saved_model_loads_bit_for_bit_with_its_state(tmp_path):
    check_state_round_trip(tmp_path, "inception/v3")


# --- The configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GoogLeNet"]}, "'GoogLeNet'; supported: Inception3"),
        ({"model_type": "inception"}, "model_type='inception'.*'inception_v3'"),
        ({"norm_eps": 1e-5}, "norm_eps=1e-05"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "inception/v3", **changes))


def test_without_transform_the_stem_has_no_other_colours(tmp_path):
    model = from_pretrained(published(tmp_path, "inception/v3", transform_input=False))
    expected = parts("inception/v3")[0]
    assert expected.stem.labels[0] == "normalize"
    assert model.stem.labels == expected.stem.labels[1:]


# --- What it is ---


def test_the_published_sizes_have_the_published_number_of_parameters():
    model = eqx.filter_eval_shape(lambda key: inception(key=key), jax.random.key(0))
    # torchvision's 27,161,264, less 3,326,696 of the auxiliary head.
    assert count_parameters(model) == 23_834_568
    # `stage3` begins with the first of these.
    assert model.stage3.downsample.branch1.conv1.in_channels == 768
    assert [block.branch1.conv1.in_channels for block in model.stage3.blocks] == [1280, 2048]


def test_each_norm_has_the_epsilon_of_inception():
    model, _ = parts("inception/v3")
    assert {norm.eps for norm in gx.select(model, eqx.nn.BatchNorm).expect(94)} == {1e-3}


@pytest.mark.slow
def test_folded_batch_norms_compute_the_same():
    model, state = parts("inception/v3")
    folded = gx.fold_batch_norm(model, state)
    assert not gx.select(folded, eqx.nn.BatchNorm)
    image = fixture("inception/v3").io["input.pixel_values"][0]
    close(call(folded, image), run("inception/v3")["head"][0])


# --- Labels ---


def test_every_label_is_in_the_vocabulary():
    assert labels(parts("inception/v3")[0]) <= documented_labels()


def test_its_parts_are_found_by_their_labels():
    model, _ = parts("inception/v3")
    paths = [f"stage1.blocks.{i}" for i in range(3)]
    paths += ["stage2.downsample", *(f"stage2.blocks.{i}" for i in range(4))]
    paths += ["stage3.downsample", "stage3.blocks.0", "stage3.blocks.1"]
    found = gx.select(model, "branch3").paths
    assert found == tuple(f"{path}.branch3" for path in paths)
    assert gx.select(model, "split").paths == tuple(
        f"stage3.blocks.{i}.branch{j}.split" for i in (0, 1) for j in (2, 3)
    )
    windows = [(c.kernel_size) for c in gx.select(model, "stage2.blocks.0.branch2.conv{2,3}")]
    assert windows == [(1, 7), (7, 1)]
