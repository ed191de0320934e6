"""Layers as operations meet them: as what they compute, inside wrappers, of one weight or a stack."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from graftax.operations.inner import (
    check_one_weight,
    computed_as,
    declared_shape,
    has_own_arrays,
    rewrapped,
)

KEY = jax.random.key(0)
LINEAR = eqx.nn.Linear(2, 3, key=KEY)


class Renamed(eqx.nn.Linear):
    """Adds nothing."""


class Doubled(eqx.nn.Linear):
    def __call__(self, x, *, key=None):
        return 2 * super().__call__(x)


class Scaled(eqx.nn.Linear):
    scale: float = 2.0


def test_a_subclass_computes_as_its_base_unless_it_adds_a_call_or_a_field():
    assert computed_as(Renamed(2, 3, key=KEY)) is eqx.nn.Linear
    assert computed_as(Doubled(2, 3, key=KEY)) is Doubled
    assert computed_as(gx.zoo.Conv2d(1, 1, 1, key=KEY)) is not gx.zoo.Conv2d
    assert computed_as(object.__new__(Scaled)) is Scaled


@pytest.mark.parametrize(
    "layer",
    [
        LINEAR,
        eqx.nn.Linear("scalar", 3, key=KEY),
        eqx.nn.Conv2d(4, 6, (3, 2), groups=2, key=KEY),
        eqx.nn.ConvTranspose1d(4, 6, 3, groups=2, key=KEY),
        eqx.nn.Embedding(5, 2, key=KEY),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_declared_shape_is_that_of_the_weight_and_a_stack_has_another(layer):
    assert declared_shape(layer) == layer.weight.shape
    check_one_weight(layer, "do")
    stack = eqx.tree_at(lambda layer: layer.weight, layer, jnp.stack([layer.weight] * 2))
    with pytest.raises(ValueError, match=r"eqx\.filter_vmap\(do\)"):
        check_one_weight(stack, "do")


def test_what_is_inside_all_wrappers_gives_way_and_they_stay():
    other = eqx.nn.Linear(2, 3, key=jax.random.key(1))
    wrapped = gx.Vmap(gx.Remat(LINEAR))
    new = rewrapped(wrapped, other)
    assert type(new) is gx.Vmap and type(new.layer) is gx.Remat and new.layer.layer is other
    assert rewrapped(LINEAR, other) is other


def test_a_wrapper_with_arrays_of_its_own_is_told_from_one_without():
    assert not has_own_arrays(gx.Remat(LINEAR))
    assert not has_own_arrays(gx.Then(LINEAR, act=jnp.tanh))
    assert has_own_arrays(gx.Then(LINEAR, more=LINEAR))
