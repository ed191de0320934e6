"""The state goes through every layer that keeps one, in order, and nowhere else."""

import functools
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_calling import INDEX, of_two, own, tally
from graftax.structure.stateful import NO_STATE

X = jnp.arange(4.0)
Sequential = eqx.nn.Sequential


# What is expected is spelled by the digits in the order in which the layers must run.
ORDERS = {
    "chain": (lambda: gx.Chain(tally(1), tally(2), tally(3)), 123),
    "labelled chain": (lambda: gx.Chain(a=tally(1), b=tally(2), c=tally(3)), 123),
    "chain, own module": (lambda: gx.Chain(own(1), tally(2), own(3)), 123),
    "parallel": (lambda: gx.Parallel(tally(1), own(2), tally(3), op=sum), 123),
    "parallel, op called once": (
        lambda: gx.Parallel(tally(1), own(2), op=gx.Chain(sum, tally(3))),
        123,
    ),
    "parallel, op folded": (
        lambda: gx.Parallel(tally(1), tally(2), tally(3), op=of_two(4)),
        12344,
    ),
    "skip": (lambda: gx.SkipConnection(tally(1), own(2), shortcut=tally(3), op=of_two(4)), 1234),
    "pairwise fusion": (
        lambda: gx.Chain(gx.PairwiseFusion(tally(1), own(2), tally(3), op=of_two(4)), sum),
        14243,
    ),
    "repeat": (lambda: gx.Repeat(gx.Chain(tally(1), own(2)), times=2), 1212),
    "wrapper": (lambda: gx.Wrapper(gx.Chain(tally(1), gx.Wrapper(own(2)))), 12),
    "remat": (lambda: gx.Remat(gx.Chain(tally(1), gx.Remat(own(2)))), 12),
    "cast": (lambda: gx.Cast(gx.Chain(tally(1), gx.Cast(own(2), jnp.float32)), jnp.float32), 12),
    "Sequential inside": (lambda: gx.Chain(tally(1), Sequential([tally(2), tally(3)])), 123),
    "inside Sequential": (lambda: Sequential([gx.Chain(tally(1), own(2)), tally(3)]), 123),
    "inside Sequential inside": (
        lambda: gx.Chain(a=Sequential([tally(1), gx.Chain(b=own(2), c=Sequential([tally(3)]))])),
        123,
    ),
    "all of them": (
        lambda: gx.Chain(
            stem=gx.Remat(tally(1)),
            body=gx.SkipConnection(
                gx.Parallel(tally(2), gx.Repeat(own(3), times=2), op=sum),
                Sequential([gx.Chain(tally(4))]),
                shortcut=gx.Wrapper(tally(5)),
            ),
            head=own(6),
        ),
        1233456,
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_state_goes_through_every_layer_in_order(name):
    make, order = ORDERS[name]
    model = make()
    y, state = model(X, state=eqx.nn.State(model))
    assert state.get(INDEX) == order
    for run in (eqx.filter_jit(model), jax.tree.map(lambda leaf: leaf, model)):
        y_again, state_again = run(X, state=eqx.nn.State(model))
        assert eqx.tree_equal((y_again, state_again), (y, state))


def test_the_state_goes_through_under_vmap_and_grad():
    model, order = ORDERS["all of them"][0](), ORDERS["all of them"][1]
    run = lambda x, state: model(x, state=state)
    ys, state = jax.vmap(run, in_axes=(0, None), out_axes=(0, None))(
        jnp.stack([X, 2 * X]), eqx.nn.State(model)
    )
    assert state.get(INDEX) == order
    assert jnp.array_equal(ys[1], run(2 * X, eqx.nn.State(model))[0])

    def total(x, state):
        y, state = run(x, state)
        return y.sum(), state

    gradient, state = jax.grad(total, has_aux=True)(X, eqx.nn.State(model))
    assert state.get(INDEX) == order
    assert jnp.array_equal(gradient, jnp.full_like(X, 3.0))


def test_the_state_may_be_the_second_positional_argument():
    model = gx.Chain(tally(1), gx.Parallel(tally(2), tally(3), op=operator.add))
    by_keyword = model(X, state=eqx.nn.State(model))
    assert eqx.tree_equal(model(X, eqx.nn.State(model)), by_keyword)


def test_the_state_may_come_after_several_inputs():
    model = gx.Parallel(tally(1), tally(2), op=tuple)
    (a, b), state = model(X, 2 * X, eqx.nn.State(model))
    assert jnp.array_equal(a, X + 1) and jnp.array_equal(b, 2 * X + 2)
    assert state.get(INDEX) == 12


def test_a_state_given_twice_is_refused():
    model = gx.Chain(tally(1))
    state = eqx.nn.State(model)
    with pytest.raises(TypeError, match="Chain was given a state twice"):
        model(X, state, state=state)


@pytest.mark.parametrize("make", [gx.Chain, gx.Parallel, gx.SkipConnection, gx.Wrapper])
def test_without_a_state_there_is_an_output_with_one_a_pair(make):
    model, state = make(jnp.tanh), eqx.nn.State(gx.Chain(tally(1)))
    y = model(X)
    y_again, same_state = model(X, state=state)
    assert eqx.tree_equal(y, y_again)
    assert same_state is state


STATEFUL_CALLABLES = {
    "own module": own,
    "function": lambda digit: lambda x, state: own(digit)(x, state),
    "keyword only": lambda digit: lambda x, *, state: own(digit)(x, state),
    "partial": lambda digit: functools.partial(lambda shift, x, state: own(digit)(x, state), 0),
    "eqx.Partial": lambda digit: eqx.Partial(lambda shift, x, state: own(digit)(x, state), 0),
    "bound method": lambda digit: own(digit).method,
    "filter_jit": lambda digit: eqx.filter_jit(own(digit)),
    "subclass of a container": lambda digit: type("Block", (gx.Chain,), {})(own(digit)),
}


@pytest.mark.parametrize("name", STATEFUL_CALLABLES)
def test_whoever_declares_a_state_is_given_it(name):
    model = gx.Chain(a=gx.Chain(b=STATEFUL_CALLABLES[name](4)))
    assert model.is_stateful()
    y, state = model(X, state=eqx.nn.State(gx.Chain(own(4))))
    assert jnp.array_equal(y, X + 4)
    assert state.get(INDEX) == 4


def test_a_container_is_stateful_if_any_layer_is():
    assert not gx.Chain(a=jnp.tanh, b=eqx.nn.Dropout(), c=Sequential([])).is_stateful()
    assert gx.Chain(a=gx.Chain(b=tally(1))).is_stateful()
    assert gx.SkipConnection(jnp.tanh, shortcut=own(1)).is_stateful()
    assert gx.Parallel(jnp.tanh, op=own(1)).is_stateful()
    assert gx.Chain(Sequential([tally(1)])).is_stateful()
    assert gx.Chain(gx.Remat(gx.Wrapper(own(1)))).is_stateful()


class Optional(eqx.Module):
    """Takes a state if there is one, and says which."""

    def __call__(self, x, state=None):
        return x if state is None else (x + 1, state)


def test_a_layer_whose_state_is_optional_works_without_one():
    model = gx.Chain(a=Optional(), b=jnp.negative)
    assert jnp.array_equal(model(X), -X)
    y, _ = model(X, state=eqx.nn.State(gx.Chain(tally(1))))
    assert jnp.array_equal(y, -(X + 1))


MISSING = {
    "a.b.0": lambda: gx.Chain(a=gx.Parallel(b=gx.Repeat(tally(1), times=2))),
    "a.shortcut": lambda: gx.Chain(a=gx.SkipConnection(jnp.tanh, shortcut=own(1))),
    "a.op": lambda: gx.Chain(a=gx.Parallel(jnp.tanh, op=own(1))),
    "a.b": lambda: gx.Chain(a=gx.Remat(gx.Chain(b=gx.Wrapper(tally(1))))),
    "a.layers.1.b": lambda: gx.Chain(a=Sequential([gx.Chain(jnp.tanh), gx.Chain(b=tally(1))])),
    "b": lambda: Sequential([gx.Chain(b=own(1))]),
}


@pytest.mark.parametrize("path", MISSING)
def test_a_missing_state_is_an_error_that_says_where_and_what_to_do(path):
    with pytest.raises(
        TypeError, match=r"keeps a state: call the model as model\(x, state=state\)"
    ) as caught:
        MISSING[path]()(X)
    assert any(note.startswith(f"In {path}: ") for note in caught.value.__notes__)


def test_a_layer_that_declares_no_state_is_given_none():
    seen = []
    layer = lambda x, **keywords: seen.append(keywords) or x
    gx.Chain(layer, tally(1))(X, state=eqx.nn.State(gx.Chain(tally(1))))
    assert seen == [{}]


def test_equinox_still_hands_a_value_of_its_own_to_layers_where_it_was_given_no_state():
    seen = []

    class Spy(eqx.nn.StatefulLayer):
        def is_stateful(self) -> bool:
            return True

        def __call__(self, x, state, *, key=None):
            seen.append(state)
            return x, state

    Sequential([Spy()])(1.0)
    assert seen == [NO_STATE] and NO_STATE is not None and not isinstance(NO_STATE, eqx.nn.State)
