"""What becomes of the places of a tie in an edit: moved, replaced, gone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_state import WIDTH, norm
from common_surgery import linear
from graftax.surgery.relink import alike, can_be_tied, relinked


def layers(n=5):
    return [linear(WIDTH, WIDTH, i) for i in range(n)]


def tied(n=5, source=0, target=2):
    return gx.tie(gx.Chain(*layers(n)), f"{source}.weight", f"{target}.weight")


def weights(model):
    return [layer.weight for layer in model]


# --- The worked example of relink.py, line by line ---


def test_a_layer_put_in_before_moves_both():
    model, new = tied(), linear(WIDTH, WIDTH, 9)
    edited = gx.select(model, "[0]").insert_before(new)
    assert edited[1].weight is edited[3].weight is model[0].weight
    assert edited.links == (((1, 0), (3, 0)),)


def test_the_first_replaced_the_other_follows():
    edited = gx.select(tied(), "0.weight").set(jnp.ones((WIDTH, WIDTH)))
    assert edited[0].weight is edited[2].weight
    assert edited.links == (((0, 0), (2, 0)),)


def test_the_second_alone_replaced_ends_the_tie():
    edited = gx.select(tied(), "2.weight").set(jnp.ones((WIDTH, WIDTH)))
    assert type(edited) is gx.Chain


def test_both_replaced_stay_tied():
    edited = gx.select(tied(), ["0.weight", "2.weight"]).apply(lambda w: w + 1)
    assert edited[0].weight is edited[2].weight


def test_one_gone_the_other_keeps_the_array():
    model = tied()
    edited = gx.select(model, "[0]").remove()
    assert type(edited) is gx.Chain
    assert weights(edited)[1] is model[0].weight


def test_both_gone_what_was_moved_to_their_paths_is_not_what_became_of_them():
    # At the paths of the two there are now arrays that stood elsewhere before: moved, not replaced.
    model = tied(5)
    left = weights(model)[1], weights(model)[3], weights(model)[4]
    edited = gx.select(model, ["[0]", "[2]"]).remove()
    assert type(edited) is gx.Chain
    assert all(a is b for a, b in zip(weights(edited), left, strict=True))


def test_both_gone_and_new_ones_put_in_before_the_others_are_replaced():
    model = tied(4)
    new = linear(WIDTH, WIDTH, 9), linear(WIDTH, WIDTH, 8)
    edited = gx.select(model, ["[0]", "[2]"]).set_each(new)
    assert edited[0].weight is edited[2].weight is new[0].weight


# --- The class of such edits ---


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_edit_by_position_changes_a_weight_or_ties_what_was_not_tied(data):
    n = data.draw(st.integers(3, 6))
    source, target = data.draw(st.permutations(range(n)))[:2]
    model = tied(n, source, target)
    order = data.draw(st.permutations(range(n)))
    kept = order[: data.draw(st.integers(1, n))]
    new = data.draw(st.sampled_from(["removed", "rearranged", "inserted"]))
    if new == "removed":
        kept = sorted(kept)
        gone = [f"[{i}]" for i in range(n) if i not in kept]
        edited = gx.select(model, gone).remove() if gone else model
        expected = kept
    elif new == "rearranged":
        edited = gx.select(model, gx.Chain).apply(lambda c: gx.Chain(*(c[i] for i in kept)))
        expected = kept
    else:
        place = data.draw(st.integers(0, n - 1))
        edited = gx.select(model, f"[{place}]").insert_before(linear(WIDTH, WIDTH, 99))
        expected = [*range(place), None, *range(place, n)]
    old = weights(model)
    for layer, i in zip(edited, expected, strict=True):
        if i is not None:
            assert layer.weight is old[i]
    still = source in expected and target in expected
    # As many arrays as layers have weights and biases, but for the one that is tied.
    assert len(jax.tree.leaves(edited)) == 2 * len(expected) - still


def test_links_of_three_places_go_each_their_way():
    model = gx.tie(gx.Chain(*layers(4)), "0.weight", "{1,2}.weight")
    assert relinked(model.resolved(), model.resolved()[1:], model.links) == (((0, 0), (1, 0)),)
    assert relinked(model.resolved(), model.resolved()[2:], model.links) == ()


# --- What can be tied, and to what ---


def test_arrays_of_every_kind_and_states_can_be_tied_and_nothing_else():
    index = norm().batch_counter
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    for node in (jnp.ones(2), np.ones(2), shape, jax.random.key(0), index):
        assert can_be_tied(node)
    for node in (None, 1.0, jax.nn.relu, norm(), [jnp.ones(2)]):
        assert not can_be_tied(node)


def test_alike_are_arrays_of_one_shape_and_dtype_and_states_of_like_values():
    one, other = norm(), norm()
    assert alike(jnp.ones(2), np.zeros(2, np.float32))
    assert not alike(jnp.ones(2), jnp.ones(3))
    assert not alike(jnp.ones(2), jnp.ones(2, jnp.bfloat16))
    assert not alike(jnp.ones(2), 1.0) and not alike(jnp.ones(()), one.batch_counter)
    assert alike(one.batch_counter, other.batch_counter)
    assert not alike(one.batch_counter, one.batch_state_index)
    taken = eqx.nn.delete_init_state(other)
    assert not alike(one.batch_counter, taken.batch_counter)
    wide = eqx.nn.BatchNorm(WIDTH + 1, "batch", mode="batch")
    assert not alike(one.batch_state_index, wide.batch_state_index)


def test_the_second_place_may_come_before_the_first():
    model = gx.tie(gx.Chain(*layers(3)), "2.weight", "0.weight")
    edited = gx.select(model, "[0]").insert_before(linear(WIDTH, WIDTH, 9))
    assert edited[1].weight is edited[3].weight is model[2].weight
    assert edited.links == (((3, 0), (1, 0)),)
