"""Where two models first differ, numbers aside."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from graftax.zoo.likeness import difference

KEY = jax.random.key(0)


def model(width=3, act=jax.nn.relu, **extra):
    linear = eqx.nn.Linear(2, width, key=KEY)
    return gx.Chain(up=linear, act=act, norm=eqx.nn.LayerNorm(width), **extra)


def test_numbers_do_not_matter_and_shapes_may_stand_for_arrays():
    other = jax.tree.map(lambda x: x + 1 if eqx.is_inexact_array(x) else x, model())
    assert difference(model(), other) is None
    assert difference(model(), eqx.filter_eval_shape(model)) is None


def test_functions_made_again_are_the_same():
    exact = functools.partial(jax.nn.gelu, approximate=False)
    again = functools.partial(jax.nn.gelu, approximate=False)
    assert difference(model(act=exact), model(act=again)) is None
    rough = functools.partial(jax.nn.gelu, approximate=True)
    found = difference(model(act=exact), model(act=rough))
    assert str(found) == "act is gelu, approximate=False, not gelu, approximate=True"


def test_remat_changes_no_number():
    wrapped = gx.select(model(), "up").apply(gx.Remat)
    assert difference(wrapped, model()) is None
    assert difference(model(), wrapped) is None


def test_running_statistics_are_passed_over():
    norm = lambda: gx.Chain(norm=eqx.nn.BatchNorm(3, axis_name="batch", mode="batch"))
    separate, _ = eqx.nn.make_with_state(norm)()
    assert difference(separate, norm()) is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (model(4), "up has out_features=3, not 4"),
        (model(act=jnp.tanh), "act is relu, not tanh"),
        (model(more=jax.nn.relu), "the whole has up, act, norm, not up, act, norm, more"),
        (gx.select(model(), "up").apply(gx.Vmap), "up is a Linear, not a Vmap"),
        (gx.update(model(), norm=eqx.nn.LayerNorm(3, eps=0.5)), "norm has eps=1e-05, not 0.5"),
        (gx.update(model(), norm=eqx.nn.LayerNorm(3, use_bias=False)), "norm has use_bias=True"),
        (3, "the whole is a Chain, not 3"),
    ],
)
def test_the_first_difference_is_told_by_its_path(other, message):
    assert str(difference(model(), other)).startswith(message)


def test_another_shape_is_told_where_no_setting_says_it():
    fewer = eqx.tree_at(lambda m: m.up.bias, model(), jnp.ones(2))
    assert str(difference(fewer, model())) == "up.bias has shape (2,), not (3,)"


def test_ties_that_one_of_them_lacks_are_told():
    two = gx.Chain(a=eqx.nn.Linear(2, 2, key=KEY), b=eqx.nn.Linear(2, 2, key=KEY))
    tied = gx.tie(two, "a.weight", "b.weight")
    assert difference(tied, gx.tie(two, "b.weight", "a.weight")) is None
    assert str(difference(tied, two)) == "b.weight is tied to a.weight"
    assert str(difference(two, tied)) == "b.weight is not tied to a.weight"
