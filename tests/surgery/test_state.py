"""The room of Equinox's state: what is asked of indices, and where the values are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_containers import same_arrays
from common_state import (
    INITIAL,
    WIDTH,
    batch,
    built,
    markers,
    net,
    norm,
    run,
    statistics,
    train_step,
    trained,
)
from common_surgery import linear
from graftax.surgery import state as room
from graftax.surgery.state import TAKEN, check_markers, is_taken, new_index, new_state, value_of

# --- What is relied on of Equinox that has no public name: these fail if it changes ---


def test_equinox_still_has_the_marker_and_the_init_of_a_state_index():
    index = eqx.nn.StateIndex(jnp.array(1))
    assert set(index.__dict__) == {"marker", "init"}
    assert type(index.marker) is object
    (model, state) = eqx.nn.make_with_state(lambda: [index])()
    assert model[0].marker == "list[0]" and isinstance(model[0].marker, str)
    values, keys = state.tree_flatten()
    assert keys == ("list[0]",) and values[0] == 1


def test_equinox_still_leaves_a_node_without_leaves_where_it_took_a_value():
    taken = eqx.nn.delete_init_state(eqx.nn.StateIndex(jnp.array(1)))
    assert type(taken.init) is type(TAKEN) and jax.tree.leaves(taken.init) == []
    assert is_taken(taken) and not is_taken(eqx.nn.StateIndex(jnp.array(1)))
    assert not is_taken(eqx.nn.StateIndex(None)) and not is_taken(eqx.nn.StateIndex(()))


# --- Accessors ---


def test_an_index_can_be_made_and_asked():
    index = new_index("here", jnp.ones(2))
    assert type(index) is eqx.nn.StateIndex and room.is_index(index)
    assert room.marker_of(index) == "here" and (room.init_of(index) == 1).all()
    assert room.marker_of(room.with_marker(index, "there")) == "there"
    assert is_taken(room.with_init(index, TAKEN)) and is_taken(new_index("here", TAKEN))
    assert (new_state([("here", jnp.zeros(2))]).get(index) == 0).all()


def test_every_index_is_found_wherever_it_stands():
    model = {"a": [gx.Remat(norm())], "b": gx.Chain(norm("ema"))}
    paths = [match.path for match in room.indices(model)]
    assert paths == [
        "a.0.batch_counter",
        "a.0.batch_state_index",
        "b.0.ema_first_time_index",
        "b.0.ema_state_index",
    ]
    assert room.has_state(model) and not room.has_state([linear(2, 2, 0), None])
    assert [index for _, index in room.state_places(model)] == room.index_leaves(model)


def test_the_mask_of_statistics_is_true_inside_a_state_and_nowhere_else():
    model = net()
    mask = room.statistics_mask(model)
    assert jax.tree.structure(mask) == jax.tree.structure(model)
    inside = [
        leaf for leaf, is_in in zip(*map(jax.tree.leaves, (model, mask)), strict=True) if is_in
    ]
    assert len(inside) == 3
    assert not any(jax.tree.leaves(room.statistics_mask(built()[0])))


# --- with_state ---


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_with_state_and_make_with_state_are_inverse(mode):
    model, state = trained(0, mode)
    held = gx.with_state(model, state)
    assert same_arrays(by_text(statistics_of(held)), by_text(state))
    again, same_state = eqx.nn.make_with_state(lambda: held)()
    assert jax.tree.structure((again, same_state)) == jax.tree.structure((model, state))
    assert same_arrays((again, same_state), (model, state))
    # And the state itself stays as it was.
    assert same_arrays(statistics(model.norm, state), statistics(again.norm, same_state))


def by_text(tree):
    return sorted(jax.tree.leaves(tree), key=lambda leaf: str(leaf.tolist()))


def statistics_of(held):
    indices = gx.select(held, eqx.nn.StateIndex).nodes
    return [leaf for index in indices for leaf in jax.tree.leaves(index.init)]


def test_with_state_of_a_model_just_built_is_that_model():
    fresh = net()
    held = gx.with_state(*eqx.nn.make_with_state(lambda: fresh)())
    assert same_arrays(*(jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in (held, fresh)))
    # But for the markers: they have become names.
    assert all(isinstance(marker, str) for marker in markers(held))


def test_statistics_in_the_model_are_read_sliced_reset_and_set_by_path():
    model, state = trained(0)
    held = gx.with_state(model, state)
    where = "norm.batch_state_index.init"
    (mean, variance), _ = statistics(model.norm, state)
    assert gx.select(held, f"{where}.0").one() is held.norm.batch_state_index.init[0]
    assert same_arrays(gx.select(held, where).one(), (mean, variance))
    sliced = gx.select(held, f"{where}.*").apply(lambda array: array[:2])
    assert [array.shape for array in sliced.norm.batch_state_index.init] == [(2,), (2,)]
    reset = gx.select(held, eqx.nn.BatchNorm).apply(lambda _: norm())
    assert same_arrays(statistics_of(reset), jax.tree.leaves((INITIAL[1], INITIAL[0])))
    moved = gx.select(held, f"{where}.0").set(jnp.full(WIDTH, 5.0))
    again, after = eqx.nn.make_with_state(lambda: moved)()
    assert bool((after.get(again.norm.batch_state_index)[0] == 5).all())
    assert same_arrays(after.get(again.norm.batch_state_index)[1], variance)


def test_with_state_works_for_edited_ensembles_and_under_jit():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    edited = gx.select(a, "norm").insert_after(norm2=b.norm)
    state = gx.extend_state(state_a, edited, donor=state_b)
    held = gx.with_state(edited, state)
    assert same_arrays(held.norm2.batch_state_index.init, statistics(b.norm, state_b)[0])
    jitted = eqx.filter_jit(gx.with_state)(edited, state)
    assert same_arrays(jitted, held)
    many, states = eqx.filter_vmap(
        lambda seed: eqx.nn.make_with_state(lambda: net(0))(), axis_size=3
    )(None)
    assert gx.with_state(many, states).norm.batch_state_index.init[0].shape == (3, WIDTH)


def test_with_state_of_another_models_state_is_refused_by_path():
    (a, state_a), (b, _) = trained(0), trained(1)
    grafted = gx.select(a, "norm").insert_after(norm2=b.norm)
    message = r"knows nothing of '.*' at 'norm2\.batch_counter'\. For a model that was edited, take"
    with pytest.raises(ValueError, match=message):
        gx.with_state(grafted, state_a)
    removed = gx.select(a, "norm").remove()
    with pytest.raises(
        ValueError, match=r"^The state given holds 'Chain.*', which no layer of this model"
    ):
        gx.with_state(removed, state_a)
    assert gx.with_state(removed, gx.extend_state(state_a, removed)).labels == ("lin", "out")


def test_with_state_of_what_is_no_state_is_refused():
    model, state = built()
    with pytest.raises(TypeError):
        gx.with_state(state, model)


# --- Two places, one name ---


def joined():
    (a, state_a), (b, _) = trained(0), trained(1)
    return gx.Chain(one=gx.Remat(a[:"out"]), two=b), state_a


def test_layers_that_would_share_a_name_by_accident_are_refused_with_both_paths():
    model, state = joined()
    message = (
        r"^The layers at 'one\.norm\.batch_counter' and 'two\.norm\.batch_counter' have one state marker, "
        r"'Chain\.layers.*', and would share their state\. Put one of them in by an edit, .*"
        r"If they are meant to share, graftax\.tie them\."
    )
    for refuse in (
        lambda: check_markers(model),
        lambda: gx.extend_state(state, model),
        lambda: gx.with_state(model, state),
        lambda: jax.eval_shape(lambda s: gx.extend_state(s, model), state),
    ):
        with pytest.raises(ValueError, match=message):
            refuse()


def test_a_layer_built_once_that_stands_twice_shares_its_state_until_it_is_separated():
    layer = norm()
    model = gx.Chain(a=layer, b=layer)
    check_markers(model)
    check_markers(jax.tree.map(lambda leaf: leaf, model))
    state = eqx.nn.State(model)
    assert len(jax.tree.leaves(state)) == 3
    _, after = eqx.filter_jit(run)(model, state, batch(0))
    assert int(after.get(model.a.batch_counter)) == 2
    # `make_with_state` names places, not layers: then they are two.
    separated, state = eqx.nn.make_with_state(lambda: model)()
    assert len(set(markers(separated))) == 4 and len(jax.tree.leaves(state)) == 6


def test_a_separated_layer_put_in_twice_by_hand_is_refused_and_tied_it_is_not():
    a, state_a = trained(0)
    twice = gx.Chain(a=a.norm, b=a.norm)
    for model in (twice, jax.tree.map(lambda leaf: leaf, twice)):
        with pytest.raises(ValueError, match="have one state marker"):
            check_markers(model)
    tied = gx.tie(twice, "a", "b")
    check_markers(tied)
    check_markers(jax.tree.map(lambda leaf: leaf, tied))
    assert len(jax.tree.leaves(gx.extend_state(state_a, tied))) == 3


# --- value_of ---


def test_a_value_is_in_the_state_or_in_the_model_or_asked_for():
    model, state = trained(0)
    index = model.norm.batch_counter
    assert int(value_of(index, state)) == 2
    assert int(value_of(net().norm.batch_counter, None)) == 0
    with pytest.raises(ValueError, match=r"statistics of this model at 'norm' are in its state"):
        value_of(index, None, "norm")
    other = new_index("elsewhere", TAKEN)
    with pytest.raises(
        ValueError, match=r"knows nothing of 'elsewhere'\. For a model that was edited"
    ):
        value_of(other, state)


def test_values_are_put_where_they_are_and_the_old_state_stays_usable():
    model, state = trained(0)
    values = [(model.norm.batch_counter, jnp.array(7))]
    same, after = room.with_state_values(model, values, state)
    assert same is model
    assert [int(s.get(model.norm.batch_counter)) for s in (state, after)] == [2, 7]
    fresh = net()
    changed, none = room.with_state_values(fresh, [(fresh.norm.batch_counter, np.array(7))], None)
    assert none is None and int(changed.norm.batch_counter.init) == 7


def test_training_goes_on_from_statistics_that_were_in_the_model():
    model, state = trained(0)
    again = eqx.nn.make_with_state(lambda: gx.with_state(model, state))()
    ours, theirs = train_step(*again, batch(5)), train_step(model, state, batch(5))
    assert same_arrays(ours, theirs)
