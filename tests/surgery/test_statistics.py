"""BatchNorm's running statistics, as PyTorch has them and as Equinox has them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_state import WIDTH, batch, norm, run
from graftax.surgery.state import with_state_values
from graftax.surgery.statistics import running_statistics, state_values

MEAN, VARIANCE = jnp.array([1.0, -2.0, 0.5]), jnp.array([4.0, 1.0, 0.25])


@pytest.mark.parametrize("separated", [False, True])
@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_statistics_that_are_put_in_are_those_that_are_used_and_read(mode, separated):
    layer = eqx.nn.inference_mode(norm(mode))
    model, state = eqx.nn.make_with_state(lambda: layer)() if separated else (layer, None)
    model, state = with_state_values(model, state_values(model, MEAN, VARIANCE), state)
    mean, variance, _ = running_statistics(model, state)
    np.testing.assert_array_equal(mean, MEAN)
    np.testing.assert_array_equal(variance, VARIANCE)
    x = batch(3)
    y, _ = run(model, eqx.nn.State(model) if state is None else state, x)
    expected = (x - MEAN[None]) / jnp.sqrt(VARIANCE + layer.eps)[None]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_statistics_of_a_layer_that_saw_few_batches_are_those_it_divides_out():
    model, state = eqx.nn.make_with_state(lambda: gx.Chain(norm=norm()))()
    x = batch(1)
    _, state = run(model, state, x)
    mean, variance, count = running_statistics(model.norm, state)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-4)
    assert count == 1 and variance.shape == (WIDTH,)


def test_statistics_that_are_in_a_state_are_asked_for():
    model, _ = eqx.nn.make_with_state(lambda: gx.Chain(norm=norm()))()
    with pytest.raises(ValueError, match=r"are in its state.*give state=\.\.\."):
        running_statistics(model.norm, None)
