"""Statistics that a model holds itself, lent to a call in inference mode."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import same_arrays
from common_state import WIDTH, built, norm, trained
from common_surgery import linear
from graftax.surgery.lending import held_state, with_held_state

frozen = eqx.nn.inference_mode


def held_norm(mode="batch"):
    model, state = trained(0, mode)
    return frozen(gx.with_state(model, state)).norm, model.norm, state


def called(layer, x):
    return lambda state: layer(x, state)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_a_layer_in_inference_mode_is_called_with_the_statistics_it_holds(mode):
    held, layer, state = held_norm(mode)
    x = jnp.arange(float(WIDTH))
    expected, _ = frozen(layer)(x, state)
    assert same_arrays(with_held_state(held, called(held, x)), expected)
    jitted = jax.jit(lambda x: with_held_state(held, called(held, x)))(x)
    assert bool(jnp.allclose(jitted, expected, atol=1e-6))


def test_what_is_lent_gets_no_gradient():
    held, _, _ = held_norm()
    x = jnp.arange(float(WIDTH))

    @eqx.filter_grad
    def grad(layer):
        return jnp.sum(with_held_state(layer, called(layer, x)) ** 2)

    grads = grad(held)
    assert bool(jnp.any(grads.weight != 0))
    assert not any(jnp.any(leaf != 0) for leaf in grads.batch_state_index.init)


def test_nothing_is_lent_in_training_mode_of_taken_values_and_of_layers_without_state():
    held, taken, _ = held_norm()
    assert held_state(held) is not None
    assert held_state(frozen(held, value=False)) is None
    assert held_state(frozen(taken)) is None
    assert held_state(linear(2, 2, 0)) is None and held_state(frozen(eqx.nn.Dropout())) is None
    partly = eqx.tree_at(lambda n: n.batch_counter, held, frozen(built()[0]).norm.batch_counter)
    assert held_state(partly) is None


class Counting(eqx.Module):
    """Keeps a state and knows no modes; or says that it is in inference mode, and counts all the same."""

    count: eqx.nn.StateIndex
    inference: bool | None

    def __call__(self, x, state):
        return x, state.set(self.count, state.get(self.count) + 1)


class Around(eqx.Module):
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    inference: bool


def test_a_layer_that_knows_no_modes_is_never_lent_anything():
    layer = Counting(eqx.nn.StateIndex(jnp.array(0)), None)
    assert held_state(layer) is None
    with pytest.raises(
        TypeError, match=r"^Counting keeps a state: .* Its running statistics are still in the"
    ):
        with_held_state(layer, called(layer, 1))


def test_it_is_the_nearest_mode_that_counts():
    held, _, _ = held_norm()
    assert held_state(Around(held, eqx.nn.Dropout(), False)) is not None
    assert held_state(Around(frozen(held, value=False), eqx.nn.Dropout(), True)) is None
    assert held_state(Around(held, eqx.nn.Dropout(), True)) is not None


@pytest.mark.parametrize("through", [lambda f: f, jax.jit])
def test_a_change_of_what_was_lent_is_an_error_and_never_lost(through):
    layer = Counting(eqx.nn.StateIndex(jnp.array(0)), True)
    with pytest.raises(
        TypeError, match=r"^Counting keeps a state.*eqx\.nn\.make_with_state\(lambda: model"
    ):
        through(lambda x: with_held_state(layer, called(layer, x)))(1.0)


def test_a_call_that_overrules_the_mode_is_an_error_too():
    held, _, _ = held_norm()
    run = lambda x: with_held_state(held, lambda state: held(x, state, inference=False))
    with pytest.raises(TypeError, match=r"^BatchNorm keeps a state: .*this call would change them"):
        jax.vmap(run, axis_name="batch")(jnp.ones((2, WIDTH)))


def test_a_layer_whose_state_was_taken_asks_for_it():
    taken = frozen(built()[0].norm)
    with pytest.raises(TypeError, match=r"^BatchNorm keeps a state: call the model as model"):
        with_held_state(taken, called(taken, jnp.ones(WIDTH)))


def test_two_models_that_hold_their_statistics_are_lent_each_its_own():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    one, two = (frozen(gx.with_state(m, s)).norm for m, s in ((a, state_a), (b, state_b)))
    x = jnp.ones(WIDTH)
    assert one.batch_counter.marker == two.batch_counter.marker
    for held, layer, state in ((one, a.norm, state_a), (two, b.norm, state_b)):
        assert same_arrays(with_held_state(held, called(held, x)), frozen(layer)(x, state)[0])
    # In one layer that hands one state to both, they would share.
    with pytest.raises(ValueError, match="have one state marker"):
        held_state([one, two])
    check = norm()
    assert held_state(frozen([check, check])) is not None


def test_what_a_call_says_of_the_mode_overrules_the_layer():
    held, _, _ = held_norm()
    training = frozen(held, value=False)
    assert held_state(held, False) is None and held_state(training, True) is not None
    x = jnp.ones(WIDTH)
    run = lambda state: training(x, state, inference=True)
    assert same_arrays(with_held_state(training, run, True), with_held_state(held, called(held, x)))
