"""A tied model as a pytree, under transformations, nested, and opened."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_state import norm
from common_surgery import linear
from graftax.surgery.tied import Tied, edited_apart, opened, tied_addresses

WIDTH = 3


def square(*labels):
    return gx.Chain({label: linear(WIDTH, WIDTH, i) for i, label in enumerate(labels)})


def nested():
    """A tied model in a wrapper in a tied model, and one directly in another."""
    inner = gx.tie(square("a", "b", "c"), "a.weight", "b.weight")
    model = gx.Chain(
        first=linear(WIDTH, WIDTH, 7), inner=gx.Remat(inner), last=linear(WIDTH, WIDTH, 8)
    )
    outer = gx.tie(model, "first.weight", "last.weight")
    assert type(outer.layer.inner) is gx.Remat and type(outer.layer.inner.layer) is gx.Chain
    return outer, Tied(model, (((0, 0), (2, 0)),))


@pytest.mark.parametrize("which", ["opened by tie", "one in the other"])
def test_nested_ties_all_hold_whatever_transforms_the_model(which):
    model = nested()[which == "one in the other"]
    x = jnp.ones(WIDTH)
    expected = model(x)

    def held(model):
        assert gx.select(model, "first.weight").one() is gx.select(model, "last.weight").one()
        assert gx.select(model, "inner.a.weight").one() is gx.select(model, "inner.b.weight").one()
        return model(x)

    assert jnp.allclose(held(model), expected)
    assert jnp.allclose(eqx.filter_jit(held)(model), expected, atol=1e-6)
    assert jnp.allclose(held(jax.tree.map(lambda leaf: leaf, model)), expected)
    many = eqx.filter_vmap(lambda _: model, axis_size=2)(None)
    assert jnp.allclose(eqx.filter_vmap(held)(many)[1], expected, atol=1e-6)
    grads = eqx.filter_grad(lambda model: jnp.sum(held(model)))(model)
    assert len(jax.tree.leaves(grads)) == len(jax.tree.leaves(eqx.filter(model, eqx.is_array)))


def test_a_tie_made_inside_a_tied_model_is_opened_with_the_other():
    model = gx.tie(square("a", "b", "c", "d"), "a.weight", "b.weight")
    twice = gx.select(model, gx.Chain).apply(lambda chain: gx.tie(chain, "c.weight", "d.weight"))
    assert type(twice.layer) is Tied  # one directly inside the other
    base, links = opened(twice)
    assert type(base) is gx.Chain and links == (((0, 0), (1, 0)), ((2, 0), (3, 0)))
    assert len(jax.tree.leaves(twice)) == 6
    further = gx.tie(twice, "a.weight", "c.weight")
    assert type(further.layer) is gx.Chain and len(jax.tree.leaves(further)) == 5
    assert further.d.weight is further.a.weight


def test_opening_a_model_without_ties_gives_the_very_model():
    model = square("a", "b")
    assert opened(model)[0] is model and opened(model)[1] == ()


def test_the_addresses_of_ties_are_those_of_a_walk():
    outer, _ = nested()
    model = gx.Chain(x=outer, y=jnp.tanh)
    by_address = {match.address: match.path for match in gx.select(model, "**").matches}
    found = tied_addresses(model)
    assert {(by_address[a], by_address[b]) for a, b in found.items()} == {
        ("x.last.weight", "x.first.weight"),
        ("x.inner.b.weight", "x.inner.a.weight"),
    }
    assert tied_addresses(square("a", "b")) == {}


def test_the_same_layer_twice_is_two_until_it_is_tied():
    layer = linear(WIDTH, WIDTH, 0)
    twice = gx.Chain(a=layer, b=layer)
    assert tied_addresses(twice) == {} and len(jax.tree.leaves(twice)) == 4
    assert len(tied_addresses(gx.tie(twice, "a", "b"))) == 2


def test_edited_apart_ends_the_ties_of_what_was_changed_and_no_others():
    model = gx.tie(square("a", "b", "c"), "a", "{b,c}")
    double = lambda base: gx.select(base, "b.weight").apply(lambda w: 2 * w)
    apart = edited_apart(model, double)
    assert jnp.allclose(apart.b.weight, 2 * apart.a.weight)
    assert apart.a.bias is apart.b.bias is apart.c.bias
    assert len(jax.tree.leaves(apart)) == 4
    assert edited_apart(square("a"), lambda base: base).labels == ("a",)


def test_edited_apart_of_a_layer_with_state_leaves_the_other_its_own():
    def build():
        return gx.tie(gx.Chain(a=norm(), b=norm(), c=norm()), "a", "{b,c}")

    model, _ = eqx.nn.make_with_state(build)()
    apart = edited_apart(model, lambda base: gx.Chain(a=base.a, b=jnp.tanh, c=base.c))
    assert type(apart) is gx.Chain and apart.a.batch_counter is apart.c.batch_counter


def test_a_part_that_holds_both_places_is_tied_and_one_that_holds_one_is_not():
    outer, _ = nested()
    assert len(jax.tree.leaves(eqx.filter(outer[["first", "last"]], eqx.is_array))) == 3
    assert type(outer[["first", "inner"]].first) is eqx.nn.Linear
    assert outer.inner.a.weight is outer.inner.b.weight
    assert len(jax.tree.leaves(eqx.filter(outer.inner, eqx.is_array))) == 5


def test_a_mask_and_the_rest_of_a_partition_keep_their_ties():
    model = gx.tie(square("a", "b"), "a", "b")
    mask = jax.tree.map(lambda _: True, model)
    assert type(gx.select(mask, "a.weight").set(False)) is Tied
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    assert jax.tree.leaves(rest) == [] and type(gx.select(rest, "a").update(use_bias=True)) is Tied
    assert jnp.allclose(eqx.combine(params, rest)(jnp.ones(WIDTH)), model(jnp.ones(WIDTH)))
