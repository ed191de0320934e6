"""What it means that two places of a model hold the same thing."""

import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_state import built, norm
from common_surgery import linear
from graftax.paths.tree import INNER, Level
from graftax.surgery.names import Held
from graftax.surgery.same import identity, is_stored
from graftax.surgery.state import marker_of, with_marker


def test_equal_numbers_are_not_the_same_array():
    a, b = jnp.zeros(2), jnp.zeros(2)
    assert identity(a) == identity(a) and identity(a) != identity(b)


def test_an_array_that_stands_twice_is_two_to_a_transformation():
    layer = linear(2, 2, 0)
    twice = gx.Chain(a=layer, b=layer)
    assert identity(twice.a.weight) == identity(twice.b.weight)
    seen = []

    @jax.jit
    def traced(model):
        seen.append(identity(model.a.weight) == identity(model.b.weight))
        return model

    traced(twice)
    assert seen == [False]
    # A tie does not rest on identity.
    jax.jit(lambda model: seen.append(model.a.weight is model.b.weight))(gx.tie(twice, "a", "b"))
    assert seen == [False, True]


def test_values_of_state_are_the_same_by_their_name():
    (one, _), (two, _) = built(0), built(0)
    assert identity(one.norm.batch_counter) == identity(two.norm.batch_counter)
    assert identity(norm().batch_counter) != identity(norm().batch_counter)


def test_what_an_edit_brings_in_is_not_the_layer_of_that_name():
    index = built(0)[0].norm.batch_counter
    own = with_marker(index, Held(marker_of(index), own=True))
    brought_in = with_marker(index, Held(marker_of(index), own=False))
    assert identity(own) == identity(index)
    assert identity(brought_in) not in (identity(index), identity(own))


class Stack(gx.Wrapper):
    """As a container that stores its layers stacked: what it shows of one is computed at each look."""

    tree_level = lambda self: Level((INNER,), (jax.tree.map(lambda x: x[0], self.layer),), 0)


def stacked():
    layers = [linear(2, 2, i) for i in range(3)]
    return Stack(jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers))


def test_a_slice_of_a_stacked_array_is_the_same_as_nothing_the_next_look_included():
    model = gx.Chain(stack=stacked(), alone=linear(2, 2, 3))
    assert not is_stored(model, (0, 0, 0)) and is_stored(model, (1, 0))
    for source, target in (("stack.weight", "alone.weight"), ("alone.weight", "stack.weight")):
        with pytest.raises(
            ValueError,
            match=r"^'stack.weight' is one slice of a stacked array, and cannot be tied alone",
        ):
            gx.tie(model, source, target)
    with pytest.raises(ValueError, match=r"^'stack.weight' is one slice of a stacked array"):
        gx.tie(model, "alone", "stack")
