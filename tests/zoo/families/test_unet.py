"""U-Net: what it computes is what PyTorch computes, and its skips and levels can be worked on."""

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
    parameters,
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
from graftax.zoo import Append, ConfigError, Upsample, from_pretrained, unet

FIXTURES = configurations("unet")


def levels(name):
    return len(gx.select(parts(name)[0], gx.SkipConnection))


# --- Against PyTorch ---


@pytest.mark.parametrize("name", FIXTURES)
def test_the_output_and_what_leaves_each_level_are_those_of_pytorch(name):
    expected, found, depth = fixture(name).group("output."), run(name), levels(name)
    close(found["head"], expected.pop("logits"))
    close(found["skip." * depth + "bottleneck"], expected.pop("hidden.bottleneck"))
    assert len(expected) == 2 * depth
    for i in range(depth):
        close(found["skip." * i + "encoder"], expected[f"hidden.encoder.{i}"])
        # The first decoder is that of the deepest level.
        close(found["skip." * i + "decoder"], expected[f"hidden.decoder.{depth - 1 - i}"])


def test_gradients_are_those_of_pytorch(tmp_path):
    found, (model, state) = fixture("unet/transposed"), parts("unet/transposed")

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(model):
        scores = jax.vmap(lambda x: model(x, state)[0])(found.io["input.pixel_values"])
        return (scores * found.io["loss_weight.logits"]).sum()

    value, gradient = loss(model)
    close(value, found.io["loss"])
    by_name, expected = (
        exported(tmp_path, gradient, found.recipe, state=state),
        found.group("grad."),
    )
    assert set(expected) == {n for n in parameters(by_name) if ".running_" not in n}
    for name, array in expected.items():
        close(by_name[name], array)


@pytest.mark.parametrize(
    ("window", "stride", "padding", "extra", "groups"),
    [(2, 2, 0, 0, 1), (3, 2, 1, 1, 1), (3, 1, 1, 0, 2), (4, 3, 2, 2, 3)],
)
def test_a_transposed_convolution_with_pytorch_s_weights_computes_what_pytorch_does(
    window, stride, padding, extra, groups
):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 12 // groups, window, window)).astype(np.float32)
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    settings = {"padding": padding, "output_padding": extra, "groups": groups, "use_bias": False}
    layer = eqx.nn.ConvTranspose2d(6, 12, window, stride, **settings, key=jax.random.key(0))
    layer = gx.load_weights(layer, {"weight": weight})
    # By definition: each pixel adds the window, times itself, at its own place.
    h, w = (stride * (n - 1) + window + extra for n in x.shape[1:])
    expected = np.zeros((12, h, w), np.float32)
    for group in range(groups):
        ours = slice(group * 6 // groups, (group + 1) * 6 // groups)
        theirs = slice(group * 12 // groups, (group + 1) * 12 // groups)
        for i, j in np.ndindex(x.shape[1:]):
            place = np.s_[
                theirs, stride * i : stride * i + window, stride * j : stride * j + window
            ]
            expected[place] += np.einsum("c,cokl->okl", x[ours, i, j], weight[ours])
    close(call(layer, x), expected[:, padding : h - padding, padding : w - padding])


# --- Files ---


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    model, state = parts(name)
    tensors = exported(tmp_path, model, fixture(name).recipe, state=state)
    check_export(tensors, fixture(name).stored)
    assert sorted(tensors) == sorted(fixture(name).stored)


@pytest.mark.parametrize("name", FIXTURES)
def test_a_saved_model_loads_bit_for_bit_with_its_state(name, tmp_path):
    check_state_round_trip(tmp_path, name)


# --- The configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upsample": "nearest"}, "upsample='nearest'; supported: 'transposed', 'bilinear'"),
        ({"architectures": ["UNet2DModel"]}, "UNet2DModel"),
        ({"hidden_sizes": None}, "lacks 'hidden_sizes'"),
        ({"hidden_sizes": [4]}, r"hidden_sizes=\[4\]"),
        ({"norm_eps": 1e-3}, "norm_eps=0.001"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "unet/transposed", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upsample": "nearest"}, "transposed, bilinear; got 'nearest'"),
        ({"widths": (4,)}, "two levels or more"),
    ],
)
def test_a_builder_refuses_what_it_cannot_build(changes, message):
    with pytest.raises(ValueError, match=message):
        unet(**changes, key=jax.random.key(0))


# --- What it is ---


def test_a_level_is_its_encoder_and_the_level_below_side_by_side_then_its_decoder():
    model, state = parts("unet/transposed")
    found = {path: array[0] for path, array in run("unet/transposed").items()}
    x = found["encoder"]
    assert (found["skip.downsample"] == x.reshape(4, 8, 2, 12, 2).max((2, 4))).all()
    skipped, _ = call(model.skip, x, state=state)
    assert skipped.shape == (4 + 4, 16, 24)
    assert (skipped[:4] == x).all()
    close(skipped[4:], found["skip.upsample"])
    close(call(model.decoder, skipped, state=state)[0], found["decoder"])


def test_upsampling_is_learnt_or_bilinear():
    learnt, _ = parts("unet/transposed")
    bilinear, _ = parts("unet/bilinear")
    assert {type(layer) for layer in gx.select(learnt, "upsample")} == {eqx.nn.ConvTranspose2d}
    assert {type(layer) for layer in gx.select(bilinear, "upsample")} == {Upsample}
    # What is not learnt keeps the channels of the level below.
    assert [d.conv1.in_channels for d in gx.select(bilinear, "decoder")] == [8 + 12, 6 + 8, 4 + 6]
    assert [d.conv1.in_channels for d in gx.select(learnt, "decoder")] == [8 + 8, 4 + 4]


def test_an_image_that_cannot_be_halved_so_often_is_an_error_that_says_where():
    model, state = parts("unet/transposed")
    with pytest.raises(TypeError) as error:
        jax.eval_shape(lambda x: model(x, state)[0], jnp.ones((3, 16, 22)))
    assert [note for note in error.value.__notes__ if "skip.skip.op" in note]


def test_the_published_widths_have_as_many_parameters_as_the_sum_over_their_layers():
    model = eqx.filter_eval_shape(lambda key: unet(channels=1, key=key), jax.random.key(0))
    widths = (64, 128, 256, 512, 1024)
    double = lambda into, out: 9 * into * out + 9 * out * out + 4 * out
    down = sum(double(a, b) for a, b in zip((1, *widths), widths, strict=False))
    up = sum(double(2 * w, w) + 4 * 2 * w * w + w for w in widths[:-1])
    assert count_parameters(model) == down + up + 2 * 64 + 2


def test_it_trains_on_the_statistics_of_the_batch():
    model, state = parts("unet/bilinear")
    images = fixture("unet/bilinear").io["input.pixel_values"]
    training = eqx.nn.inference_mode(model, value=False)
    run_batch = jax.vmap(training, (0, None), (0, None), axis_name="batch")
    scores, moved = eqx.filter_jit(lambda x, s: run_batch(x, s))(images, state)
    assert scores.shape == (2, 3, 16, 16)
    first = model.encoder
    made = jax.vmap(first.conv1)(images)
    mean, _ = moved.get(first.norm1.batch_state_index)
    before, _ = state.get(first.norm1.batch_state_index)
    close(mean, 0.9 * before + 0.1 * made.mean((0, 2, 3)))


# --- Labels ---


@pytest.mark.parametrize("name", FIXTURES)
def test_every_label_is_in_the_vocabulary(name):
    assert labels(parts(name)[0]) <= documented_labels()


def test_its_levels_are_found_by_their_labels():
    model, _ = parts("unet/bilinear")
    assert gx.select(model, "bottleneck").paths == ("skip.skip.skip.bottleneck",)
    assert gx.select(model, "encoder").paths == ("encoder", "skip.encoder", "skip.skip.encoder")
    assert set(gx.select(model, "decoder").paths) == {
        "decoder",
        "skip.decoder",
        "skip.skip.decoder",
    }
    assert gx.select(model, ".encoder").paths == ("encoder",)
    skips = gx.select(model, gx.SkipConnection)
    assert skips.paths == ("skip", "skip.skip", "skip.skip.skip")
    assert {type(skip.op) for skip in skips} == {Append}


def test_without_a_bottleneck_the_deepest_level_goes_straight_on():
    model, state = parts("unet/bilinear")
    bare = gx.select(model, "bottleneck").set(gx.Chain())
    deepest = bare.skip.skip.skip
    x = jax.random.normal(jax.random.key(0), (8, 4, 4))
    expected = deepest.upsample(deepest.downsample(x))
    close(call(deepest, x, state=state)[0], jnp.concatenate([x, expected]))


def test_a_skip_can_be_cut():
    model, state = parts("unet/transposed")
    # Nothing of the input: what a network without skips would hand to its decoder.
    cut = gx.select(model, ".skip").update(shortcut=jnp.zeros_like)
    x = run("unet/transposed")["encoder"][0]
    found, _ = call(cut.skip, x, state=state)
    assert (found[:4] == 0).all()
    close(found[4:], run("unet/transposed")["skip.upsample"][0])
