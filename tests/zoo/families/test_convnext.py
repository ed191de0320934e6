"""ConvNeXt: what it computes is what `transformers` computes, and its parts can be worked on."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_images import call, count_parameters, parts, run
from common_zoo import (
    check_round_trip,
    close,
    configurations,
    documented_labels,
    exported,
    fixture,
    labels,
    published,
    same_bits,
)
from graftax.zoo import ConfigError, convnext, convnext_block, from_pretrained

FIXTURES = configurations("convnext")


# --- Against transformers ---


@pytest.mark.parametrize("name", FIXTURES)
def test_the_output_is_that_of_transformers(name):
    expected, found = fixture(name).group("output."), run(name)
    if "logits" in expected:
        close(found["head"], expected["logits"])
    else:
        close(found["norm"], expected["pooler_output"])
        close(found["stage3"], expected["last_hidden_state"])


@pytest.mark.parametrize("name", FIXTURES)
def test_what_leaves_the_stem_and_each_stage_is_that_of_transformers(name):
    expected, found = fixture(name).group("output.hidden."), run(name)
    stages = [label for label in parts(name)[0].labels if label.startswith("stage")]
    assert len(expected) == len(stages) + 1
    for i, label in enumerate(["stem", *stages]):
        close(found[label], expected[str(i)])


def test_gradients_are_those_of_transformers(tmp_path):
    found = fixture("convnext/base")

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(model):
        scores = jax.vmap(model)(found.io["input.pixel_values"])
        return (scores * found.io["loss_weight.logits"]).sum()

    value, gradient = loss(found.model)
    close(value, found.io["loss"])
    by_name, expected = exported(tmp_path, gradient, found.recipe), found.group("grad.")
    assert sorted(by_name) == sorted(expected)
    for name, array in expected.items():
        close(by_name[name], array)


# --- Files ---


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    found = fixture(name)
    same_bits(exported(tmp_path, found.model, found.recipe), found.stored)


@pytest.mark.parametrize("name", ["convnext/base", "convnext/no_scale"])
def test_a_saved_model_loads_bit_for_bit(name, tmp_path):
    check_round_trip(tmp_path, fixture(name).model)


# --- The configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop_path_rate": 1.5}, "drop_path_rate=1.5"),
        ({"hidden_act": "mish"}, "'mish' is not known"),
        ({"architectures": ["ConvNextBackbone"]}, "ConvNextBackbone"),
        ({"num_stages": 3}, "num_stages=3, 4 hidden_sizes and 4 depths"),
        ({"depths": [1, 1]}, "num_stages=4, 4 hidden_sizes and 2 depths"),
        ({"kernel_size": 5}, "kernel_size=5"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "convnext/base", **changes))


def test_a_scale_that_the_checkpoint_lacks_is_reported(tmp_path):
    directory = published(tmp_path, "convnext/no_scale", layer_scale_init_value=1e-6)
    with pytest.raises(gx.WeightsError) as error:
        from_pretrained(directory)
    assert "stage1.blocks.1.scale.weight" in error.value.report.missing


def test_what_an_old_configuration_leaves_out_is_as_in_transformers(tmp_path):
    left_out = ["num_stages", "hidden_act", "layer_norm_eps", "num_channels", "patch_size"]
    left_out += ["layer_scale_init_value", "drop_path_rate", "out_features", "stage_names"]
    model = from_pretrained(published(tmp_path, "convnext/base", remove=left_out))
    assert repr(model) == repr(fixture("convnext/base").model)


def test_the_epsilon_of_the_configuration_is_that_of_the_last_norm_alone():
    model = fixture("convnext/no_scale").model
    assert model.norm.eps == 1e-3
    inner = gx.select(model, eqx.nn.LayerNorm) - gx.select(model, ".norm")
    assert {norm.eps for norm in inner.expect(5)} == {1e-6}


# --- What it is ---


def by_hand(block, x):
    window = block.conv.weight[:, 0, :, :, None, None]
    padded = jnp.pad(x, ((0, 0), (3, 3), (3, 3)))
    h, w = x.shape[1:]
    shifted = [padded[:, i : i + h, j : j + w] for i in range(7) for j in range(7)]
    y = sum(window[:, i // 7, i % 7] * each for i, each in enumerate(shifted)) + block.conv.bias
    y = jnp.moveaxis(y, 0, -1).reshape(h * w, -1)
    y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-6)
    y = y * block.norm.weight[None] + block.norm.bias[None]
    up, down = block.mlp.up, block.mlp.down
    y = jax.nn.gelu(y @ up.weight.T + up.bias[None], approximate=False)
    y = (y @ down.weight.T + down.bias[None]) * block.scale.weight[None]
    return x + y.T.reshape(x.shape)


def test_a_block_adds_to_its_input_what_a_window_and_an_mlp_make_of_it():
    block = fixture("convnext/base").model.stage1.blocks[0]
    x = fixture("convnext/base").io["output.hidden.0"][0]
    close(call(block, x), eqx.filter_jit(by_hand)(block, x))


def test_the_scale_multiplies_what_a_block_adds():
    block = fixture("convnext/base").model.stage1.blocks[0]
    x = fixture("convnext/base").io["output.hidden.0"][0]
    bare = gx.select(block, "scale").remove()
    assert bare.labels == ("conv", "norm", "mlp")
    factor = block.scale.weight[:, None, None]
    close(call(block, x), x + factor * (call(bare, x) - x))
    assert convnext_block(4, jax.nn.gelu, scale=None, key=jax.random.key(0)).labels == bare.labels


def test_the_published_sizes_have_the_published_number_of_parameters():
    build = functools.partial(convnext, act=jax.nn.gelu)
    model = eqx.filter_eval_shape(build, key=jax.random.key(0))
    assert count_parameters(model) == 28_589_128


# --- Labels ---


@pytest.mark.parametrize("name", FIXTURES)
def test_every_label_is_in_the_vocabulary(name):
    assert labels(fixture(name).model) <= documented_labels()


def test_its_parts_are_found_by_their_labels():
    model = fixture("convnext/model").model
    blocks = [f"stage{s}.blocks.{b}" for s, b in ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1))]
    for label in ("mlp", "scale"):
        assert gx.select(model, label).paths == tuple(f"{block}.{label}" for block in blocks)
    assert gx.select(model, "downsample").paths == ("stage2.downsample", "stage3.downsample")
    assert gx.select(model, eqx.nn.Linear).paths == tuple(
        f"{block}.mlp.{label}" for block in blocks for label in ("up", "down")
    )
    assert gx.select(model, gx.SkipConnection).paths == tuple(blocks)
    assert gx.select(model, "stage3.blocks[-1]").paths == ("stage3.blocks.1",)


def test_cut_at_a_stage_it_gives_what_leaves_the_stage_before():
    model, found = fixture("convnext/base").model, run("convnext/base")
    image = fixture("convnext/base").io["input.pixel_values"][0]
    close(call(model[:"stage3"], image), found["stage2"][0])
    close(call(model[:"pool"], image), found["stage4"][0])


def test_an_activation_is_swapped_in_every_block():
    model = gx.select(fixture("convnext/base").model, "act").set(jax.nn.relu)
    image = fixture("convnext/base").io["input.pixel_values"][0]
    found = call(model, image)
    assert not np.allclose(found, run("convnext/base")["head"][0], atol=1e-3)
    for block in gx.select(model, gx.SkipConnection):
        assert block.mlp.act is jax.nn.relu


def test_a_linear_layer_at_every_pixel_can_be_adapted_and_merged():
    block = fixture("convnext/base").model.stage1.blocks[0]
    x = fixture("convnext/base").io["output.hidden.0"][0]
    adapt = lambda layer, key: gx.LoRA(layer, 2, key=key)
    adapted = gx.select(block, eqx.nn.Linear).expect(2).apply(adapt, key=jax.random.key(2))
    close(call(adapted, x), call(block, x), 1e-6)
    trained = gx.select(adapted, "lora_b").apply(lambda b: b + 1)
    assert gx.select(trained, "lora_b").paths == ("mlp.up.lora_b", "mlp.down.lora_b")
    assert not np.allclose(call(trained, x), call(block, x), atol=1e-3)
    merged = gx.merge_lora(trained)
    assert gx.select(merged, eqx.nn.Linear).paths == ("mlp.up", "mlp.down")
    close(call(merged, x), call(trained, x))
