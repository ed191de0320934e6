"""Who keeps its name in the state in an edit, and who gets another."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import same_arrays
from common_state import (
    INITIAL,
    WIDTH,
    batch,
    built,
    markers,
    norm,
    run,
    scaled,
    statistics,
    trained,
)
from common_surgery import linear
from graftax.surgery.markers import stored_indices


def test_who_stood_there_keeps_its_name_when_a_copy_is_put_in_before_it():
    a, state_a = trained(0)
    edited = gx.select(a, "norm").insert_before(copy=a.norm)
    assert markers(edited.norm) == markers(a.norm)
    assert set(markers(edited.copy)).isdisjoint(markers(a))
    # So the state of the old model still serves it.
    assert same_arrays(statistics(edited.norm, state_a), statistics(a.norm, state_a))


def test_who_stood_there_keeps_its_name_when_an_edit_puts_copies_around_it():
    a, _ = built(0)
    edited = gx.select(a, ["lin", "out"]).apply(lambda layer: gx.Chain(layer=layer, norm=a.norm))
    assert markers(edited.norm) == markers(a.norm)
    assert len(set(markers(edited))) == 6


def test_an_edit_within_an_edit_leaves_names_alone_and_gives_new_ones():
    a, state_a = trained(0)
    model = gx.select(a, "norm").apply(lambda layer: gx.Chain(l=linear(WIDTH, WIDTH, 5), n=layer))

    def grown(block):
        return gx.select(block, "n").insert_after(new=norm(), copy=block.n)

    edited = gx.select(model, "norm").apply(grown)
    assert markers(edited.norm.n) == markers(a.norm)
    assert len(set(markers(edited))) == 6
    state = gx.extend_state(state_a, edited)
    assert same_arrays(statistics(edited.norm.n, state), statistics(a.norm, state_a))
    assert same_arrays(statistics(edited.norm.copy, state), statistics(a.norm, state_a))
    assert same_arrays(statistics(edited.norm.new, state), INITIAL)


def test_what_an_edit_within_an_edit_brings_in_is_told_from_what_was_there():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    model = gx.select(a, "norm").apply(lambda layer: gx.Chain(l=linear(WIDTH, WIDTH, 5), n=layer))

    def replaced(block):
        change = lambda node: b.norm if isinstance(node, eqx.nn.BatchNorm) else gx.Chain(all=node)
        return gx.select(block, ["n", ""]).apply(change)

    edited = gx.select(model, "norm").apply(replaced)
    assert set(markers(edited)).isdisjoint(markers(a))
    state = gx.extend_state(state_a, edited, donor=state_b)
    assert same_arrays(statistics(edited.norm.all.n, state), statistics(b.norm, state_b))
    # And a layer of the model itself, put in once more, is a copy.
    copied = gx.select(model, "norm").apply(lambda block: gx.select(block, "l").set(model.norm.n))
    assert markers(copied.norm.n) == markers(a.norm)
    state = gx.extend_state(state_a, copied)
    assert same_arrays(statistics(copied.norm.l, state), statistics(a.norm, state_a))


def test_an_edit_of_another_model_within_an_edit_brings_in_another_layer():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    edited = gx.select(a, "norm").apply(
        lambda layer: gx.Chain(
            old=layer, new=gx.select(b, "norm.weight").apply(lambda w: 2 * w).norm
        )
    )
    state = gx.extend_state(state_a, edited, donor=state_b)
    assert same_arrays(statistics(edited.norm.old, state), statistics(a.norm, state_a))
    assert same_arrays(statistics(edited.norm.new, state), statistics(b.norm, state_b))


def test_a_jitted_function_does_not_make_a_layer_from_elsewhere_one_of_the_model():
    # Both layers have one name: to the cache of the jitted function, only `Held` tells them apart.
    (a, state_a), (b, state_b) = trained(0), trained(1)
    assert markers(a) == markers(b)
    double = eqx.filter_jit(lambda tree: scaled(tree, 2.0))
    own = gx.select(a, ["norm.weight", ""]).apply(
        lambda node: double(node) if isinstance(node, gx.Chain) else node
    )
    assert markers(own) == markers(a)
    grafted = gx.select(a, ["norm", ""]).apply(
        lambda node: double(node) if isinstance(node, gx.Chain) else b.norm
    )
    assert set(markers(grafted)).isdisjoint(markers(a))
    state = gx.extend_state(state_a, grafted, donor=state_b)
    assert same_arrays(statistics(grafted.norm, state), statistics(b.norm, state_b))


def test_the_value_of_a_state_can_be_edited_while_another_layer_is_brought_in():
    # An edit inside a `StateIndex` makes another object of it, which is the same layer's all the same.
    model = gx.with_state(*trained(0))
    seven = jnp.full(WIDTH, 7.0)

    def change(node):
        return seven if eqx.is_array(node) else gx.Chain(layer=node, norm=norm())

    edited = gx.select(model, ["norm.batch_state_index.init.0", "lin"]).apply(change)
    assert markers(edited.norm) == markers(model.norm)
    assert len(set(markers(edited))) == 4
    assert edited.norm.batch_state_index.init[0] is seven


@pytest.mark.parametrize(
    "inside", ["", "norm", "norm.batch_state_index", "norm.batch_state_index.init"]
)
def test_an_edit_that_changes_nothing_inside_a_state_gives_the_very_model(inside):
    model = gx.with_state(*trained(0))
    places = [inside, "norm.batch_state_index.init.0"]
    assert gx.select(model, places).apply(lambda node: node) is model


def test_an_index_replaced_as_a_whole_gets_a_name_of_its_own():
    a, state_a = trained(0)
    edited = gx.select(a, "norm.batch_counter").set(eqx.nn.StateIndex(jnp.array(3)))
    assert markers(edited)[1] == markers(a)[1] and markers(edited)[0] != markers(a)[0]
    assert int(gx.extend_state(state_a, edited).get(edited.norm.batch_counter)) == 3


# --- Tied layers ---


def two_norms():
    def build():
        return gx.Chain(a=norm(), lin=linear(WIDTH, WIDTH, 0), b=norm())

    return eqx.nn.make_with_state(build)()


def test_tied_layers_store_one_index_each_edit_leaves_it_so():
    model, state = two_norms()
    tied = gx.tie(model, "a", "b")
    assert len(stored_indices(tied)) == 2 and len(gx.select(tied, eqx.nn.StateIndex)) == 4
    for edited in (
        gx.select(tied, "lin").set(jnp.tanh),
        gx.select(tied, "lin").insert_after(norm=norm()),
        gx.select(tied, "a").insert_before(norm=norm()),
        gx.select(tied, ["a", "b"]).apply(gx.Remat),
        gx.select(tied, "b").apply(gx.Remat),
        gx.select(tied, "a").apply(lambda layer: gx.Chain(layer=layer)),
    ):
        names = markers(edited)
        assert markers(tied.a)[0] in names
        assert len(stored_indices(edited)) == len(set(names)) == len(names) - 2
        run(edited, gx.extend_state(state, edited), batch(0))


def test_a_layer_that_is_tied_no_more_gets_a_state_of_its_own_that_starts_as_a_copy():
    model, state = two_norms()
    tied = gx.tie(model, "a", "b")
    state = gx.extend_state(state, tied)
    _, state = run(tied, state, batch(1))
    apart = gx.select(tied, "b").apply(lambda layer: scaled(layer, 2.0))
    assert len(stored_indices(apart)) == 2  # the arrays alone were changed: the state is still one
    moved = gx.select(tied, "b").set(norm())
    assert len(set(markers(moved))) == 4 and markers(moved.a) == markers(tied.a)
    extended = gx.extend_state(state, moved)
    assert same_arrays(statistics(moved.a, extended), statistics(tied.a, state))
    assert same_arrays(statistics(moved.b, extended), INITIAL)


def test_one_state_is_updated_by_both_tied_layers():
    model, state = two_norms()
    tied = gx.tie(model, "a", "b")
    state = gx.extend_state(state, tied)
    assert len(jax.tree.leaves(state)) == 3
    _, after = run(tied, state, batch(2))
    assert int(after.get(tied.a.batch_counter)) == 2
    assert tied.a.batch_counter is tied.b.batch_counter
