"""DenseNet: what it computes is what torchvision computes, and its parts can be worked on."""

import equinox as eqx
import jax
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
    close,
    configurations,
    documented_labels,
    exported,
    fixture,
    labels,
    published,
)
from graftax.zoo import ConfigError, dense_layer, densenet, from_pretrained
from graftax.zoo.families.densenet import DEPTHS

FIXTURES = configurations("densenet")


# --- Against torchvision ---


@pytest.mark.parametrize("name", FIXTURES)
def test_the_output_and_what_leaves_each_stage_are_those_of_torchvision(name):
    expected, found = fixture(name).group("output."), run(name)
    close(found["head"], expected.pop("logits"))
    close(found["stem"], expected.pop("hidden.features.pool0"))
    assert len(expected) == len([label for label in parts(name)[0].labels if "stage" in label])
    for key, array in expected.items():
        close(found[key.replace("hidden.features.denseblock", "stage")], array)


# --- Files ---


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    model, state = parts(name)
    tensors = exported(tmp_path, model, fixture(name).recipe, state=state)
    stored = fixture(name).stored
    check_export(tensors, stored)
    if name != "densenet/published":
        assert sorted(tensors) == sorted(stored)


def test_a_saved_model_loads_bit_for_bit_with_its_state(tmp_path):
    check_state_round_trip(tmp_path, "densenet/base")


# --- The configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["ResNet"]}, "'ResNet'; supported: DenseNet"),
        ({"norm_eps": 1e-3}, "norm_eps=0.001"),
        ({"compression": 0.25}, "compression=0.25"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "densenet/base", **changes))


def test_layers_that_the_checkpoint_does_not_have_are_reported(tmp_path):
    message = r"block_config=\[2, 2, 1, 3\]; the weights.*denselayer.*have \[2, 2, 1, 2\] blocks"
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "densenet/base", block_config=[2, 2, 1, 3]))


def test_dropout_is_that_of_the_configuration(tmp_path):
    model = from_pretrained(published(tmp_path, "densenet/base", drop_rate=0.25))
    layers = gx.select(model, "dropout").expect(7)
    assert {layer.p for layer in layers} == {0.25}
    assert {layer.p for layer in gx.select(parts("densenet/base")[0], "dropout")} == {0.0}


# --- What it is ---


def norm(layer, state, x):
    mean, variance = state.get(layer.batch_state_index)
    scale = layer.weight / np.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None]


def test_a_dense_layer_puts_what_it_makes_behind_its_input():
    model, state = parts("densenet/three_blocks")
    layer = model.stage2.blocks[1]
    x = run("densenet/three_blocks")["stage2.blocks.0"][0]
    y, _ = call(layer, x, state=state)
    assert (y[: len(x)] == x).all()
    inner = np.maximum(norm(layer.norm1, state, x), 0)
    inner = np.einsum("oi,ihw->ohw", layer.conv1.weight[:, :, 0, 0], inner)
    inner = np.pad(np.maximum(norm(layer.norm2, state, inner), 0), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(inner, (3, 3), (1, 2))
    close(y[len(x) :], np.einsum("oikl,ihwkl->ohw", layer.conv2.weight, windows))


def test_each_stage_grows_by_its_layers_and_the_next_begins_with_half():
    found = run("densenet/three_blocks")
    channels = {path: array.shape[1] for path, array in found.items()}
    assert [channels[f"stage1.{path}"] for path in ("blocks.0", "blocks")] == [12 + 6] * 2
    assert channels["stage2.downsample"] == 9
    assert [channels[f"stage2.blocks.{i}"] for i in range(2)] == [15, 21]
    assert found["stage2.downsample"].shape[2:] == (4, 4)


@pytest.mark.parametrize(
    ("layers", "growth", "stem", "count"),
    [(121, 32, 64, 7_978_856), (161, 48, 96, 28_681_000)],
)
def test_the_published_sizes_have_the_published_number_of_parameters(layers, growth, stem, count):
    build = lambda key: densenet(depths=DEPTHS[layers], growth=growth, stem=stem, key=key)
    assert count_parameters(eqx.filter_eval_shape(build, jax.random.key(0))) == count


def test_dropout_keeps_the_input_and_draws_from_the_key():
    layer = dense_layer(4, 40, 8, dropout=0.5, key=jax.random.key(0))
    # As if trained: in inference mode BatchNorm needs no batch.
    layer, state = eqx.nn.make_with_state(lambda: layer)()
    layer = gx.select(layer, eqx.nn.BatchNorm).update(inference=True)
    x = np.asarray(jax.random.normal(jax.random.key(1), (4, 3, 3)))
    one, again, other = (call(layer, x, state=state, key=jax.random.key(k))[0] for k in (2, 2, 3))
    assert (one == again).all()
    for y in (one, other):
        assert (y[:4] == x).all()
        assert 0.3 < np.mean(y[4:] == 0) < 0.7
    assert not np.array_equal(one, other)


def test_norms_that_follow_a_convolution_can_be_folded_into_it():
    model, state = parts("densenet/base")
    folded = gx.fold_batch_norm(model, state)
    # Those of a dense layer and a transition that stand before all else remain.
    left = gx.select(folded, eqx.nn.BatchNorm).paths
    assert left == tuple(
        path
        for path in gx.select(model, eqx.nn.BatchNorm).paths
        if path != "stem.norm" and not path.endswith("norm2")
    )
    images = fixture("densenet/base").io["input.pixel_values"]
    kept = gx.extend_state(state, folded)
    close(call(folded, images[0], state=kept)[0], run("densenet/base")["head"][0])


# --- Labels ---


def test_every_label_is_in_the_vocabulary():
    assert labels(parts("densenet/base")[0]) <= documented_labels()


def test_its_parts_are_found_by_their_labels():
    model, _ = parts("densenet/base")
    assert gx.select(model, "downsample").paths == tuple(f"stage{s}.downsample" for s in (2, 3, 4))
    layers = ["stage1.blocks.0", "stage1.blocks.1", "stage2.blocks.0", "stage2.blocks.1"]
    layers += ["stage3.blocks.0", "stage4.blocks.0", "stage4.blocks.1"]
    assert gx.select(model, gx.SkipConnection).paths == tuple(layers)
    assert gx.select(model, "conv2").paths == tuple(f"{path}.conv2" for path in layers)
    assert gx.select(model, "stem").paths == ("stem",)


def test_cut_at_a_stage_it_gives_what_leaves_the_stage_before():
    model, state = parts("densenet/base")
    image = fixture("densenet/base").io["input.pixel_values"][0]
    features, _ = call(model[:"stage3"], image, state=state)
    close(features, fixture("densenet/base").io["output.hidden.features.denseblock2"][0])
