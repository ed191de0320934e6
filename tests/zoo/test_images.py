"""Images that PyTorch refuses are refused, with what was given and what should have been."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import without_annotation_checks
from graftax.zoo import AvgPool2d, Conv2d, MaxPool2d

KEY = jax.random.key(0)
CONV = Conv2d(3, 8, 3, key=KEY)
LAYERS = {"Conv2d": CONV, "MaxPool2d": MaxPool2d(2, 2), "AvgPool2d": AvgPool2d(2, 2)}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("shape", [(), (3,), (8, 8), (2, 3, 8, 8)])
def test_what_is_no_single_image_is_refused(name, shape):
    with pytest.raises(ValueError, match=rf"{name} takes one image.*got shape.*jax\.vmap"):
        LAYERS[name](jnp.ones(shape))


def test_channels_last_is_an_error_that_says_so():
    with pytest.raises(
        ValueError, match=r"of 3 channels.*\(8, 9, 3\)\. Here they seem to stand last"
    ):
        CONV(jnp.ones((8, 9, 3)))
    with pytest.raises(ValueError, match=r"of 3 channels.*got shape \(1, 8, 8\)\.$"):
        CONV(jnp.ones((1, 8, 8)))


def test_pixels_that_are_integers_are_refused_as_they_are_no_normalised_image():
    for dtype in (jnp.uint8, jnp.int32, bool):
        with without_annotation_checks(), pytest.raises(TypeError, match="images of floats; got"):
            CONV(jnp.ones((3, 8, 8), dtype))


@pytest.mark.parametrize(
    ("layer", "smallest"),
    [
        (Conv2d(3, 4, 3, key=KEY), 3),
        (Conv2d(3, 4, 3, padding=1, key=KEY), 1),
        (Conv2d(3, 4, 7, 2, padding=2, key=KEY), 3),
        (Conv2d(3, 4, 3, dilation=3, key=KEY), 7),
        (Conv2d(3, 4, 3, dilation=3, padding=1, key=KEY), 5),
        (Conv2d(3, 4, 4, 4, key=KEY), 4),
        (Conv2d(3, 4, 3, padding="VALID", key=KEY), 3),
        (Conv2d(3, 4, 3, padding="SAME", key=KEY), 1),
        (MaxPool2d(3, 2), 3),
        (MaxPool2d(3, 2, 1), 1),
        (MaxPool2d(3, 2, use_ceil=True), 2),
        (MaxPool2d(2, 2, use_ceil=True), 1),
        (MaxPool2d(3, 1, use_ceil=True), 3),
        (AvgPool2d(2, 2), 2),
    ],
    ids=lambda x: repr(x)[:9],
)
def test_the_smallest_image_is_the_one_that_leaves_a_pixel(layer, smallest):
    for side in range(smallest + 3):
        run = lambda layer, side=side: layer(jnp.ones((3, side, 16)))
        if side < smallest:
            with pytest.raises(ValueError, match=f"image is too small.* given {side} x 16 pixels"):
                eqx.filter_eval_shape(run, layer)
        else:
            assert eqx.filter_eval_shape(run, layer).shape[1] >= 1


def test_what_is_not_refused_is_what_equinox_computes():
    x = jax.random.normal(KEY, (3, 9, 8))
    pairs = [
        (CONV, eqx.nn.Conv2d(3, 8, 3, key=KEY)),
        (MaxPool2d(3, 2, 1), eqx.nn.MaxPool2d(3, 2, 1)),
        (AvgPool2d(3, 2, 1), eqx.nn.AvgPool2d(3, 2, 1)),
    ]
    for ours, theirs in pairs:
        assert isinstance(ours, type(theirs))
        assert (ours(x) == theirs(x)).all()


def test_they_can_be_saved_and_edited_as_those_of_equinox(tmp_path):
    model = gx.Chain(conv=CONV, max=MaxPool2d(2, 2), mean=AvgPool2d(2, 2))
    gx.save(tmp_path / "m.safetensors", model)
    loaded = gx.load(tmp_path / "m.safetensors")
    assert repr(loaded) == repr(model)
    assert [type(layer) for layer in loaded] == [Conv2d, MaxPool2d, AvgPool2d]
    assert gx.update(CONV, stride=(2, 2))(jnp.ones((3, 9, 9))).shape == (8, 4, 4)


# --- Families ---


FAMILIES = {
    "resnet": lambda: gx.zoo.resnet(widths=(8, 8), depths=(1, 1), stem=4, key=KEY),
    "convnext": lambda: gx.zoo.convnext(
        widths=(4, 4, 4, 4), depths=(1, 1, 1, 1), act=jax.nn.gelu, key=KEY
    ),
    "densenet": lambda: gx.zoo.densenet(depths=(1, 1, 1, 1), growth=4, stem=8, key=KEY),
    "googlenet": lambda: gx.zoo.googlenet(
        widths=[[(4, 4, 4, 4, 4, 4)]] * 3, stem=(4, 4, 4), transform=True, key=KEY
    ),
    "inception": lambda: gx.zoo.inception(divisor=16, transform=True, key=KEY),
    "unet": lambda: gx.zoo.unet(widths=(4, 8, 8), key=KEY),
    "vit": lambda: gx.zoo.vit(
        image=(32, 32), patch=(8, 8), width=8, depth=1, heads=2, inner=8, act=jax.nn.gelu, key=KEY
    ),
}
# As the originals refuse: by their layers, one at a time.
SMALLEST = {
    "resnet": 1,
    "convnext": 32,
    "densenet": 29,
    "googlenet": 15,
    "inception": 75,
    "unet": 4,
}


@functools.cache
def skeleton(name):
    """A model of a family in inference mode and its state, both as shapes."""
    make = eqx.nn.make_with_state(lambda: eqx.nn.inference_mode(FAMILIES[name]()))
    return eqx.filter_eval_shape(make)


def output_shape(name, shape):
    """Shapes alone: the images are many, and what is computed with them does not matter here."""
    model, state = skeleton(name)
    x = jnp.ones(shape)
    call = (lambda m, s: m(x, s)[0]) if jax.tree.leaves(state) else (lambda m, s: m(x))
    return eqx.filter_eval_shape(call, model, state).shape


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_image_of_each_family_is_taken_and_a_smaller_one_refused(name):
    side = SMALLEST[name]
    assert 0 not in output_shape(name, (3, side, side))
    for shape in [(3, side - 1, side), (3, side, side - 1), (3, 0, side)]:
        with pytest.raises((ValueError, TypeError), match=r"too small|must be even"):
            output_shape(name, shape)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 96, 96), (4, 96, 96), (96, 96, 3), (96, 96), (2, 3, 96, 96)])
def test_every_family_refuses_other_channels_and_a_batch_with_the_path(name, shape):
    with pytest.raises(ValueError, match=r"takes images of 3 channels|takes one image") as error:
        output_shape(name, shape)
    assert any(note.startswith("In ") for note in error.value.__notes__)


# --- ViT: positions for one size ---


SMALL = {"width": 8, "depth": 1, "heads": 2, "inner": 8, "act": jax.nn.gelu, "key": KEY}


@pytest.mark.parametrize(
    ("height", "width"),
    [(33, 32), (32, 39), (64, 64), (16, 16), (31, 32), (16, 64), (64, 16), (8, 128), (0, 32)],
)
@pytest.mark.parametrize("head", [None, "pooler", "classifier"])
def test_vit_refuses_an_image_of_another_size_with_both(height, width, head):
    model = gx.zoo.vit(image=(32, 32), patch=(8, 8), head=head, **SMALL)
    message = rf"images of 32 x 32 pixels; got {height} x {width}, shape \(3, {height}, {width}\)"
    for call in (model, model.embeddings, model[:"encoder"]):
        with pytest.raises(ValueError, match=message):
            eqx.filter_eval_shape(call, jnp.ones((3, height, width)))


def test_an_oblong_image_is_not_taken_upright():
    model = gx.zoo.vit(image=(16, 32), patch=(8, 8), **SMALL)
    assert model(jnp.ones((3, 16, 32))).shape == (1000,)
    with pytest.raises(ValueError, match="of 16 x 32 pixels; got 32 x 16"):
        model(jnp.ones((3, 32, 16)))


@pytest.mark.slow
def test_positions_for_another_size_take_as_many_patches_and_then_that_size_alone():
    model = gx.zoo.vit(image=(24, 24), patch=(8, 8), **SMALL)
    larger = gx.select(model, "**.position.weight").apply(
        lambda w: gx.resize_positions(w, (2, 6), prefix=1)
    )
    image = jnp.ones((3, 16, 48))
    assert larger(image).shape == (1000,)
    for other in [(3, 24, 24), (3, 16, 56), (3, 16, 40)]:
        with pytest.raises(ValueError, match="positions"):
            larger(jnp.ones(other))
    told = gx.select(larger, gx.zoo.ImageSize).update(image=(16, 48))
    assert (told(image) == larger(image)).all()
    with pytest.raises(ValueError, match="of 16 x 48 pixels; got 48 x 16"):
        told(jnp.ones((3, 48, 16)))


def test_the_size_does_not_show_in_paths_and_is_saved(tmp_path):
    model = gx.zoo.vit(image=(24, 24), patch=(8, 8), **SMALL)
    assert gx.select(model, "patches").paths == ("embeddings.patches",)
    gx.save(tmp_path / "m.safetensors", model)
    with pytest.raises(ValueError, match="of 24 x 24 pixels; got 24 x 32"):
        gx.load(tmp_path / "m.safetensors")(jnp.ones((3, 24, 32)))


def test_without_its_class_token_the_positions_do_not_fit():
    model = gx.zoo.vit(image=(24, 24), patch=(8, 8), **SMALL)
    with pytest.raises(ValueError, match=r"sequence of 9 has fewer elements than .* positions, 10"):
        gx.select(model, "class_token").remove()(jnp.ones((3, 24, 24)))
