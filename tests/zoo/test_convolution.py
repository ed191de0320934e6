"""The parts of the convolutional families: each against a formula written out."""

import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_images import call
from common_zoo import check_round_trip, close
from graftax.zoo import Append, Normalize, Pixelwise, Scale, ToTokens, Upsample
from graftax.zoo.convolution import CONCATENATE, POOL, Conv, conv, convolutions, max_pool

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (3, 4, 5))


# --- At each pixel ---


def test_pixelwise_is_the_layer_of_the_channels_at_each_pixel():
    layer = eqx.nn.Linear(3, 2, key=KEY)
    y = call(Pixelwise(layer), X)
    expected = np.einsum("oc,chw->ohw", layer.weight, X) + np.asarray(layer.bias)[:, None, None]
    close(y, expected)
    close(jax.vmap(Pixelwise(layer))(jnp.stack([X, 2 * X]))[0], expected)


def test_pixelwise_does_not_show_in_paths():
    layer = Pixelwise(gx.Chain(up=eqx.nn.Linear(3, 2, key=KEY), act=jax.nn.relu))
    assert layer.up is layer.layer.up
    model = gx.Chain(mlp=layer)
    assert gx.select(model, "mlp.up.weight").paths == ("mlp.up.weight",)
    assert gx.select(model, eqx.nn.Linear).paths == ("mlp.up",)
    assert "Pixelwise(Chain(up=Linear(" in repr(model).replace("\n", "").replace(" ", "")


def test_pixelwise_draws_anew_at_each_pixel_and_repeats_with_the_key():
    layer = Pixelwise(eqx.nn.Dropout(0.5))
    x = jnp.ones((4, 6, 6))
    one, again, other = (call(layer, x, key=jax.random.key(k)) for k in (1, 1, 2))
    assert (one == again).all()
    assert not (one == other).all()
    assert len(np.unique(np.asarray(one).reshape(4, 36), axis=1).T) > 4


def test_pixelwise_hands_on_context_and_state_and_says_where_an_error_came_from():
    layer = Pixelwise(lambda v, *, shift: v + shift)
    close(gx.Chain(a=layer)(X, shift=2.0), X + 2)
    norm = Pixelwise(eqx.nn.BatchNorm(3, axis_name="batch", mode="batch", inference=True))
    norm, state = eqx.nn.make_with_state(lambda: norm)()
    y, new = norm(X, state)
    close(y, norm_by_hand(norm.layer, state, X))
    assert jax.tree.structure(new) == jax.tree.structure(state)
    with pytest.raises(TypeError) as error:
        gx.Chain(mlp=Pixelwise(gx.Chain(up=eqx.nn.Linear(7, 2, key=KEY))))(X)
    # JAX adds a note of its own.
    (note,) = [note for note in error.value.__notes__ if note.startswith("In ")]
    assert note.startswith("In mlp.up: Linear was given")


def norm_by_hand(layer, state, x):
    mean, variance = state.get(layer.batch_state_index)
    return (x - mean[:, None, None]) / jnp.sqrt(variance + layer.eps)[:, None, None]


def test_gradients_flow_through_pixelwise():
    layer = Pixelwise(Scale(jnp.array([1.0, 2.0, 3.0])))
    gradient = eqx.filter_grad(lambda layer: layer(X).sum())(layer)
    close(gradient.weight, X.sum((1, 2)))


# --- Channels ---


def test_append_is_the_input_of_a_skip_and_then_what_its_layers_made_of_it():
    model = gx.SkipConnection(double=lambda x: 2 * x, op=Append())
    close(model(X), np.concatenate([X, 2 * X]))
    rows = gx.SkipConnection(double=lambda x: 2 * x, op=Append(axis=1))
    close(rows(X), np.concatenate([X, 2 * X], axis=1))


def test_what_does_not_fit_behind_its_input_is_refused_with_both_shapes():
    with pytest.raises(TypeError, match=r"shape \(3, 2, 5\).*shape \(3, 4, 5\): .* must be even"):
        Append()(X[:, :2], X)
    with pytest.raises(TypeError, match=r"agree but for axis 1"):
        Append(axis=1)(X[:2], X)


def test_concatenate_puts_branches_side_by_side():
    model = gx.Parallel(operator.neg, lambda x: x[:1], op=CONCATENATE)
    close(model(X), np.concatenate([-X, X[:1]]))


def test_normalize_takes_the_mean_off_and_divides():
    layer = Normalize(mean=(1.0, 2.0, 3.0), deviation=(0.5, 1.0, 2.0))
    expected = np.stack([(X[0] - 1) / 0.5, X[1] - 2, (X[2] - 3) / 2])
    close(layer(X), expected)
    assert layer(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert not jax.tree.leaves(layer)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_colours_of_another_number_are_refused_and_not_spread(channels):
    layer = Normalize(mean=(1.0, 2.0, 3.0), deviation=(0.5, 1.0, 2.0))
    with pytest.raises(ValueError, match=f"images of 3 channels.*shape .{channels}, 4, 5"):
        layer(jnp.ones((channels, 4, 5)))


@pytest.mark.parametrize("layer", [Normalize((0.0,) * 3, (1.0,) * 3), ToTokens(), Upsample(2)])
def test_a_batch_of_images_is_an_error_that_says_vmap(layer):
    with pytest.raises(ValueError, match=r"one image.*shape \(2, 3, 4, 5\).*jax\.vmap"):
        layer(jnp.stack([X, X]))


def test_images_become_tokens_row_by_row():
    tokens = ToTokens()(X)
    assert tokens.shape == (20, 3)
    assert (tokens[5 * 2 + 3] == X[:, 2, 3]).all()


# --- Sizes ---


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_upsampling_interpolates_between_the_middles_of_pixels(factor):
    def line(n):
        # Where the middle of each new pixel lies among the middles of the old ones.
        at = np.clip((np.arange(factor * n) + 0.5) / factor - 0.5, 0, n - 1)
        low = np.minimum(at.astype(int), n - 1)
        high = np.minimum(low + 1, n - 1)
        weights = np.zeros((factor * n, n), np.float32)
        np.add.at(weights, (np.arange(factor * n), low), 1 - (at - low))
        np.add.at(weights, (np.arange(factor * n), high), at - low)
        return weights

    close(call(Upsample(factor), X), np.einsum("ih,chw,jw->cij", line(4), X, line(5)))


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "ceil", "expected"),
    [
        (4, 3, 2, 0, True, 2),
        (4, 3, 2, 0, False, 1),
        (5, 3, 2, 0, True, 2),
        (3, 3, 2, 0, True, 1),
        (1, 2, 2, 0, True, 1),
        (3, 2, 2, 0, True, 2),
        (6, 3, 1, 1, True, 6),
        (6, 3, 2, 1, False, 3),
    ],
)
def test_pooling_with_ceil_counts_windows_that_jut_out(
    size, window, stride, padding, ceil, expected
):
    x = np.arange(size * size, dtype=np.float32).reshape(1, size, size) - 100
    y = np.asarray(max_pool(window, stride, padding, ceil=ceil)(x))
    assert y.shape == (1, expected, expected)
    for i, j in np.ndindex(expected, expected):
        rows, columns = (
            range(max(0, k * stride - padding), k * stride - padding + window) for k in (i, j)
        )
        inside = x[0, rows.start : rows.stop, columns.start : columns.stop]
        assert y[0, i, j] == inside.max()


def test_the_last_pooling_is_the_mean_of_each_channel():
    close(POOL(X), X.mean((1, 2)))


@pytest.mark.parametrize(
    ("size", "stride", "padding", "shape"),
    [
        (3, 1, None, (8, 4, 5)),
        (7, 2, None, (8, 2, 3)),
        ((1, 7), 1, None, (8, 4, 5)),
        ((3, 1), 1, None, (8, 4, 5)),
        (3, 1, 0, (8, 2, 3)),
    ],
)
def test_an_odd_window_keeps_the_size_unless_told_otherwise(size, stride, padding, shape):
    layer = conv(3, 8, size, stride=stride, padding=padding, key=KEY)
    assert jax.eval_shape(layer, X).shape == shape
    assert layer.bias is None


# --- Several ---


def test_convolutions_are_numbered_and_chained():
    layers = [Conv(4, 3), max_pool(2, 2), Conv(5), Conv(6, (3, 1), 2, 0), max_pool(1, 1)]
    chain = convolutions(3, *layers, eps=1e-3, key=KEY)
    expected = "conv1 norm1 act1 pool1 conv2 norm2 act2 conv3 norm3 act3 pool2"
    assert chain.labels == tuple(expected.split())
    assert [chain[f"conv{i}"].in_channels for i in (1, 2, 3)] == [3, 4, 5]
    assert chain.conv3.kernel_size == (3, 1)
    assert chain.conv3.stride == (2, 2)
    assert {norm.eps for norm in gx.select(chain, eqx.nn.BatchNorm).expect(3)} == {1e-3}
    assert convolutions(3, Conv(4), bias=True, key=KEY).conv1.bias is not None
    # Each draws from a key of its own.
    alike = convolutions(4, Conv(4), Conv(4), key=KEY)
    assert not np.allclose(alike.conv1.weight, alike.conv2.weight)


def test_what_the_families_share_can_be_saved(tmp_path):
    model = gx.Chain(
        normalize=Normalize((0.5,) * 3, (2.0,) * 3),
        skip=gx.SkipConnection(up=Upsample(1), op=Append()),
        branches=gx.Parallel(a=POOL, b=POOL, op=CONCATENATE),
        tokens=gx.Chain(ToTokens(), gx.Vmap(Scale(jnp.ones(6)))),
        pixels=Pixelwise(eqx.nn.LayerNorm(6)),
    )
    check_round_trip(tmp_path, model)
