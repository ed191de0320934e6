"""BatchNorm: the formulas of PyTorch written out, and the calls it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_zoo import close
from graftax.surgery.statistics import running_statistics
from graftax.zoo import BatchNorm

SHAPES = [(4, 3), (4, 3, 5), (4, 3, 2, 5), (2, 3), (1, 3, 2)]


def step(norm, state, batch):
    """The batch normalised, and the new state."""
    return jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(batch, state)


def made(shape, seed=0):
    return 3 + 2 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.0])
def test_running_statistics_are_those_of_pytorch_after_each_step(shape, momentum):
    norm, state = eqx.nn.make_with_state(BatchNorm)(3, momentum=momentum, eps=1e-3)
    mean, variance = np.zeros(3), np.ones(3)
    for i in range(4):
        batch = made(shape, i)
        y, state = step(norm, state, batch)
        axes = tuple(j for j in range(batch.ndim) if j != 1)
        expand = (slice(None), *(None,) * (batch.ndim - 2))
        own, biased = batch.mean(axes, dtype=float), batch.var(axes, dtype=float)
        close(y, (batch - own[expand]) / np.sqrt(biased[expand] + 1e-3), 1e-4)
        mean = momentum * mean + (1 - momentum) * own
        variance = momentum * variance + (1 - momentum) * batch.var(axes, ddof=1, dtype=float)
        found_mean, found_variance, count = running_statistics(norm, state)
        close(found_mean, mean)
        close(found_variance, variance)
        assert count == i + 1
        rest = eqx.nn.inference_mode(norm)(batch[0], state)[0]
        expand = expand[1:]
        close(
            rest,
            (batch[0] - mean[(slice(None), *expand)])
            / np.sqrt(variance[(slice(None), *expand)] + 1e-3),
            1e-4,
        )


def test_a_new_norm_in_inference_is_the_identity_but_for_epsilon():
    norm, state = eqx.nn.make_with_state(BatchNorm)(3, inference=True)
    x = made((3, 4))
    y, after = norm(x, state)
    close(y, x / np.sqrt(1 + 1e-5))
    assert eqx.tree_equal(after, state)


def test_weight_and_bias_are_of_the_channels():
    norm, state = eqx.nn.make_with_state(BatchNorm)(3)
    plain, same = eqx.nn.make_with_state(BatchNorm)(3, channelwise_affine=False)
    trained = gx.update(norm, weight=jnp.array([1.0, 2, 3]), bias=jnp.array([4.0, 5, 6]))
    batch = made((4, 3, 2))
    y = step(plain, same, batch)[0]
    expected = y * jnp.array([1.0, 2, 3])[None, :, None] + jnp.array([4.0, 5, 6])[None, :, None]
    close(step(trained, state, batch)[0], expected)


def test_gradients_go_through_the_statistics_of_the_batch():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    batch, weights = made((4, 2, 3)), made((4, 2, 3), 1)
    loss = lambda batch: (step(norm, state, batch)[0] * weights).sum()
    gradient = jax.grad(loss)(jnp.asarray(batch))
    # What is added to a channel, or multiplied with it, has no effect but for epsilon.
    close(gradient.sum((0, 2)), np.zeros(2), 1e-4)
    close((gradient * batch).sum((0, 2)), np.zeros(2), 1e-3)
    assert jnp.abs(gradient).max() > 0.1


def test_half_precision_keeps_statistics_in_the_precision_they_have():
    norm, state = eqx.nn.make_with_state(BatchNorm)(2)
    # The mean of so many ones of bfloat16 would stop at 256.
    batch = jnp.ones((4, 2, 300), jnp.bfloat16)
    _, state = step(norm, state, batch)
    mean, variance, _ = running_statistics(norm, state)
    assert mean.dtype == np.float32
    close(mean, np.full(2, 0.1))
    close(variance, np.full(2, 0.9))


def test_a_norm_of_equinox_and_this_differ_in_the_running_variance_alone():
    ours, state = eqx.nn.make_with_state(BatchNorm)(3)
    theirs, other = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", momentum=0.9, mode="batch")
    batch = made((4, 3, 5))
    (y, state), (z, other) = step(ours, state, batch), step(theirs, other, batch)
    close(y, z)
    close(running_statistics(ours, state)[0] * 0.1, state.get(ours.batch_state_index)[0])
    mean = other.get(theirs.batch_state_index)[0]
    close(running_statistics(ours, state)[0], mean)


def test_several_axes_are_one_batch():
    norm, state = eqx.nn.make_with_state(BatchNorm)(3, axis_name=("batch", "device"))
    batch = made((2, 4, 3, 5))
    inner = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
    outer = jax.vmap(inner, in_axes=(0, None), out_axes=(0, None), axis_name="device")
    y, after = outer(batch, state)
    one, again = eqx.nn.make_with_state(BatchNorm)(3)
    z, again = step(one, again, batch.reshape(8, 3, 5))
    close(y.reshape(8, 3, 5), z)
    close(running_statistics(norm, after)[1], running_statistics(one, again)[1])


# --- What is refused ---


def test_training_without_the_axis_is_an_error_that_says_the_remedy():
    model, state = eqx.nn.make_with_state(gx.Chain)(norm=BatchNorm(3))
    with pytest.raises(NameError, match=r"jax\.vmap\(model, axis_name='batch'.*inference_mode"):
        model(made((3, 4)), state)
    with pytest.raises(NameError, match="axis 'batch'"):
        jax.vmap(lambda x: model(x, state)[0], axis_name="other")(made((2, 3, 4)))


def test_a_single_number_for_each_channel_has_no_variance():
    norm, state = eqx.nn.make_with_state(BatchNorm)(3)
    with pytest.raises(ValueError, match="more than one number for each channel"):
        step(norm, state, made((1, 3)))
    with pytest.raises(ValueError, match="more than one number for each channel"):
        step(norm, state, made((1, 3, 1, 1)))


@pytest.mark.parametrize("shape", [(), (4,), (4, 4, 3), (2, 3, 4, 4)])
def test_other_channels_and_a_forgotten_vmap_are_refused(shape):
    norm, state = eqx.nn.make_with_state(BatchNorm)(3, inference=True)
    with pytest.raises(ValueError, match=r"has 3 channels; got shape .*jax\.vmap"):
        norm(jnp.ones(shape), state)


# --- What it is ---


def test_it_is_found_folded_and_saved_as_a_norm_of_equinox(tmp_path):
    conv = eqx.nn.Conv2d(2, 3, 1, key=jax.random.key(0))
    model = gx.Chain(conv=conv, norm=BatchNorm(3, eps=1e-3))
    assert gx.select(model, eqx.nn.BatchNorm).paths == ("norm",)
    separate, state = eqx.nn.make_with_state(lambda: model)()
    batch = made((4, 2, 5, 5))
    for _ in range(3):
        _, state = step(separate, state, batch)
    trained = eqx.nn.inference_mode(separate)
    folded = gx.fold_batch_norm(trained, state)
    close(folded(batch[0]), trained(batch[0], state)[0])
    gx.save(tmp_path / "m.safetensors", model)
    loaded = gx.load(tmp_path / "m.safetensors")
    assert type(loaded.norm) is BatchNorm
    assert (loaded.norm.eps, loaded.norm.momentum) == (1e-3, 0.9)
