"""One layer cut along an axis: which rule holds, and how its axes are called."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from graftax.operations.axes import cut_layer, named_sides, rule_class, sides
from graftax.operations.index import Index

KEY = jax.random.key(0)


class Renamed(eqx.nn.Linear):
    """Adds nothing."""


class Doubled(eqx.nn.Linear):
    def __call__(self, x, *, key=None):
        return 2 * super().__call__(x)


@pytest.mark.parametrize("axis", ["out", 0, ("out",), [0], (0, "out")])
def test_an_axis_goes_by_its_name_or_its_number(axis):
    assert sides(axis, ("out", "in")) == ("out",)


def test_several_axes_are_several_sides():
    assert set(sides(("in", "out"), ("out", "in"))) == {"in", "out"}
    assert named_sides(("heads", "in"), ("heads", "in", "out")) == ("heads", "in")


@pytest.mark.parametrize("axis", [2, -1, "heads", True])
def test_an_axis_that_there_is_not_is_refused_with_those_there_are(axis):
    with pytest.raises(ValueError, match=r"'out'.*'in'"):
        sides(axis, ("out", "in"))
    with pytest.raises(ValueError, match=r"'out'.*'in'"):
        named_sides(axis, ("out", "in"))


def test_the_rule_of_the_nearest_base_holds_for_a_class_that_adds_nothing():
    assert rule_class(Renamed) is eqx.nn.Linear
    assert rule_class(eqx.nn.Dropout) is None
    cut = cut_layer(Renamed(2, 3, key=KEY), "out", Index([0, 2]))
    assert type(cut) is Renamed and cut.weight.shape == (2, 2) and cut.out_features == 2


def test_a_wrapper_stays_around_what_is_cut():
    cut = cut_layer(gx.Vmap(eqx.nn.Linear(2, 3, key=KEY)), "in", Index([1]))
    assert type(cut) is gx.Vmap and cut.layer.weight.shape == (3, 1)


@pytest.mark.parametrize(
    "layer",
    [
        Doubled(2, 3, key=KEY),
        eqx.nn.Dropout(0.5),
        jnp.tanh,
        gx.Then(eqx.nn.Linear(2, 3, key=KEY), more=eqx.nn.Linear(3, 3, key=KEY)),
    ],
    ids=["a call of its own", "no weights", "a function", "arrays of its own"],
)
def test_what_no_rule_is_known_for_is_refused_with_the_way_to_say_one(layer):
    with pytest.raises(ValueError, match="register a rule"):
        cut_layer(layer, "out", Index([0]))
