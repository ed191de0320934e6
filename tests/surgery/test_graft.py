"""Layers with state, put into models that they were not built in."""

import copy
import pickle

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
    net,
    norm,
    run,
    scaled,
    statistics,
    train_step,
    trained,
)
from common_surgery import linear

PUT_IN = {
    "set": lambda m, new: gx.select(m, "norm").set(new),
    "set_each": lambda m, new: gx.select(m, "norm").set_each([new]),
    "apply": lambda m, new: gx.select(m, "norm").apply(lambda _: new),
    "replace_where": lambda m, new: m.replace_where("norm", lambda _: new),
    "update": lambda m, new: gx.select(m, "").update(norm=new),
    "insert_before": lambda m, new: gx.select(m, "norm").insert_before(norm2=new),
    "insert_after": lambda m, new: gx.select(m, "norm").insert_after(norm2=new),
    "dispatch": lambda m, new: _swapping(new)(m),
}


def _swapping(new):
    @gx.dispatch
    def swap(layer):
        return layer

    swap.register("norm", lambda _: new)
    return swap


def put_in(how, model, new):
    edited = PUT_IN[how](model, new)
    return edited, edited["norm2" if "norm2" in edited else "norm"]


# --- Layers of separately built models ---


def test_equinox_gives_equal_markers_to_separately_built_models():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    assert markers(a) == markers(b)
    # Which is how statistics get mixed: nothing tells the layer of one model from that of the other.
    grafted = eqx.tree_at(lambda m: m.norm, a, b.norm)
    assert same_arrays(statistics(grafted.norm, state_a), statistics(a.norm, state_a))
    assert not same_arrays(statistics(a.norm, state_a), statistics(b.norm, state_b))


@pytest.mark.parametrize("through_one_jitted_function", [False, True])
@pytest.mark.parametrize("how", PUT_IN)
def test_a_grafted_layer_never_shares_a_marker_with_the_model_it_joins(
    how, through_one_jitted_function
):
    (a, _), (b, _) = (
        (trained(0), trained(1)) if through_one_jitted_function else (built(0), built(1))
    )
    edited, new = put_in(how, a, b.norm)
    assert set(markers(new)).isdisjoint(markers(a))
    assert len(set(markers(edited))) == len(markers(edited))
    if new is not edited.norm:
        assert markers(edited.norm) == markers(a.norm)


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("how", ["set", "apply", "insert_after", "dispatch"])
def test_a_donor_gives_a_grafted_layer_its_statistics_and_the_others_keep_theirs(how, mode):
    (a, state_a), (b, state_b) = trained(0, mode), trained(1, mode)
    edited, new = put_in(how, a, b.norm)
    state = gx.extend_state(state_a, edited, donor=state_b)
    assert same_arrays(statistics(new, state), statistics(b.norm, state_b))
    if new is not edited.norm:
        assert same_arrays(statistics(edited.norm, state), statistics(a.norm, state_a))
    assert len(jax.tree.leaves(state)) == 3 * len(gx.select(edited, eqx.nn.BatchNorm))


def test_without_a_donor_a_grafted_layer_with_no_initial_state_is_an_error():
    (a, state_a), (b, _) = built(0), built(1)
    edited = gx.select(a, "norm").set(b.norm)
    message = (
        r"^The layer at 'norm\.batch_counter' is new to this state, and its own initial state was taken "
        r"from it by eqx\.nn\.make_with_state\. Give the state it was taken to as donor=\.\.\.$"
    )
    with pytest.raises(ValueError, match=message):
        gx.extend_state(state_a, edited)


def test_the_state_of_the_old_model_cannot_be_used_for_a_grafted_layer():
    (a, state_a), (b, _) = trained(0), trained(1)
    edited = gx.select(a, "norm").set(b.norm)
    with pytest.raises(KeyError):
        run(edited, state_a, batch(0))


@pytest.mark.parametrize("how", ["set", "insert_before", "dispatch"])
def test_a_layer_that_was_just_built_starts_from_its_initial_state(how):
    a, state_a = trained(0)
    edited, new = put_in(how, a, norm())
    state = gx.extend_state(state_a, edited)
    assert same_arrays(statistics(new, state), INITIAL)
    if new is not edited.norm:
        assert same_arrays(statistics(edited.norm, state), statistics(a.norm, state_a))


def test_an_edited_model_runs_and_each_layer_updates_its_own_statistics():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    edited = gx.select(a, "norm").insert_after(norm2=b.norm)
    state = gx.extend_state(state_a, edited, donor=state_b)
    x = batch(5)
    y, after = run(edited, state, x)

    # By hand: layer after layer, each with the state it came from.
    h = jax.vmap(a.lin)(x)
    h, after_a = run(a.norm, state_a, h)
    h, after_b = run(b.norm, state_b, h)
    assert bool(jnp.allclose(y, jax.vmap(a.out)(h), atol=1e-5))
    assert same_arrays(statistics(edited.norm, after), statistics(a.norm, after_a))
    assert same_arrays(statistics(edited.norm2, after), statistics(b.norm, after_b))


def test_an_edited_model_trains():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    model = gx.select(a, "norm").insert_after(norm2=b.norm)
    state = gx.extend_state(state_a, model, donor=state_b)
    before = statistics(model.norm2, state)
    losses = []
    for _ in range(5):
        y, _ = run(model, state, batch(3))
        losses.append(float(jnp.mean(y**2)))
        model, state = train_step(model, state, batch(3))
    assert losses[-1] < losses[0]
    assert not same_arrays(statistics(model.norm2, state), before)
    assert not same_arrays(statistics(model.norm2, state), statistics(model.norm, state))
    inference = eqx.nn.inference_mode(model)
    y, _ = run(inference, state, batch(3))
    assert bool(jnp.isfinite(y).all())


def test_a_grafted_layer_takes_on_the_mode_of_the_model():
    (a, _), (b, _) = built(0), built(1)
    edited = gx.select(eqx.nn.inference_mode(a), "norm").insert_after(norm2=b.norm)
    assert edited.norm2.inference is True


def test_a_whole_model_can_be_grafted():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    body = b[:"out"]
    edited = gx.select(a, "norm").insert_after(body=body)
    state = gx.extend_state(state_a, edited, donor=state_b)
    assert len(set(markers(edited))) == 4
    assert same_arrays(statistics(edited.body.norm, state), statistics(b.norm, state_b))
    x = batch(2)
    h, _ = run(a[:"out"], state_a, x)
    h, _ = run(body, state_b, h)
    assert bool(jnp.allclose(run(edited, state, x)[0], jax.vmap(a.out)(h), atol=1e-5))


def test_one_layer_put_in_at_many_places_gets_a_state_at_each():
    a, state_a = trained(0)
    edited = gx.select(a, ["lin", "out"]).apply(
        lambda layer: gx.Chain(l=layer, bn=eqx.nn.BatchNorm(2, "batch", mode="batch"))
    )
    new = norm()
    several = gx.select(a, ["lin", "norm"]).set(new)
    assert len(set(markers(several))) == len(markers(several)) == 4
    assert len(set(markers(edited))) == len(markers(edited)) == 6
    assert len(jax.tree.leaves(gx.extend_state(state_a, edited))) == 9


# --- Layers of the model itself ---


def test_a_layer_moved_within_the_model_keeps_its_state():
    a, state_a = trained(0)
    edited = gx.select(a, "norm").apply(lambda layer: gx.Chain(old=layer, extra=jnp.tanh))
    assert markers(edited) == markers(a)
    state = gx.extend_state(state_a, edited)
    assert same_arrays(statistics(edited.norm.old, state), statistics(a.norm, state_a))
    # The state of the old model serves the new one as it is.
    x = batch(1)
    y, _ = run(edited, state_a, x)
    h, _ = run(a[:"out"], state, x)
    assert bool(jnp.allclose(y, jax.vmap(a.out)(jnp.tanh(h)), atol=1e-6))


def test_a_layer_next_to_a_new_one_of_its_kind_keeps_its_state():
    a, state_a = trained(0)
    edited = gx.select(a, "norm").apply(lambda layer: gx.Chain(new=norm(), old=layer))
    state = gx.extend_state(state_a, edited)
    assert same_arrays(statistics(edited.norm.old, state), statistics(a.norm, state_a))
    assert same_arrays(statistics(edited.norm.new, state), INITIAL)


def test_a_layer_whose_arrays_were_changed_keeps_its_state():
    a, state_a = trained(0)
    halved = gx.select(a, "norm").apply(lambda layer: scaled(layer, 0.5))
    assert markers(halved) == markers(a)
    assert same_arrays(
        statistics(halved.norm, gx.extend_state(state_a, halved)), statistics(a.norm, state_a)
    )
    cast = gx.select(a, "norm").apply(eqx.filter_jit(lambda layer: scaled(layer, jnp.bfloat16(2))))
    assert markers(cast) == markers(a)


def test_a_jitted_function_serves_many_edits():
    double = eqx.filter_jit(lambda layer: scaled(layer, 2.0))
    for seed in range(2):
        a, _ = built(seed)
        assert markers(gx.select(a, "norm").apply(double)) == markers(a)


def test_a_function_of_the_layer_can_read_the_state():
    a, state_a = trained(0)

    def folded(layer):
        (mean, _), _ = statistics(layer, state_a)
        return gx.update(layer, bias=layer.bias + mean)

    edited = gx.select(a, "norm").apply(folded)
    (mean, _), _ = statistics(a.norm, state_a)
    assert bool((edited.norm.bias == a.norm.bias + mean).all())
    assert markers(edited) == markers(a)


def test_a_layer_copied_within_the_model_gets_a_state_of_its_own():
    a, state_a = trained(0)
    copied = {
        "insert": gx.select(a, "norm").insert_after(norm2=a.norm),
        "apply": gx.select(a, "norm").apply(lambda layer: gx.Chain(norm=layer, norm2=layer)),
    }
    for edited in copied.values():
        assert len(set(markers(edited))) == 4
        holder = edited if "norm2" in edited else edited.norm
        state = gx.extend_state(state_a, edited)
        # It starts as the layer it is a copy of, and then goes its own way.
        assert same_arrays(statistics(holder.norm, state), statistics(a.norm, state_a))
        assert same_arrays(statistics(holder.norm2, state), statistics(a.norm, state_a))
        _, after = run(edited, state, batch(4))
        assert not same_arrays(statistics(holder.norm, after), statistics(holder.norm2, after))
    assert markers(copied["insert"].norm) == markers(a.norm)


def test_a_copy_of_a_grafted_layer_finds_the_donor():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    once = gx.select(a, "norm").insert_after(norm2=b.norm)
    twice = gx.select(once, "norm2").insert_after(norm3=once.norm2)
    state = gx.extend_state(state_a, twice, donor=state_b)
    for layer in (twice.norm2, twice.norm3):
        assert same_arrays(statistics(layer, state), statistics(b.norm, state_b))


def test_two_layers_that_swap_places_keep_their_states():
    pair, state = eqx.nn.make_with_state(gx.Chain)(a=norm(), b=norm())
    _, state = run(pair, state, batch(1))
    swapped = gx.select(pair, "").apply(lambda m: gx.Chain(a=m.b, b=m.a))
    assert sorted(markers(swapped)) == sorted(markers(pair))
    state_after = gx.extend_state(state, swapped)
    assert same_arrays(statistics(swapped.a, state_after), statistics(pair.b, state))
    assert same_arrays(statistics(swapped.b, state_after), statistics(pair.a, state))


def test_an_edit_elsewhere_leaves_states_and_markers_alone():
    a, state_a = trained(0)
    for edited in (
        gx.select(a, "lin").set(jnp.tanh),
        gx.select(a, "out").rename("head"),
        gx.select(a, "norm").rename("bn"),
        gx.select(a, "norm").update(momentum=0.5),
        gx.select(a, "norm.weight").apply(lambda w: 2 * w),
    ):
        assert markers(edited) == markers(a)
        run(edited, state_a, batch(0))


def test_an_identity_edit_gives_the_very_model():
    a, _ = built(0)
    assert gx.select(a, "**").apply(lambda node: node) is a

    @gx.dispatch
    def nothing(layer):
        return layer

    assert nothing(a) is a


# --- An edited model is a model like any other ---


def test_an_edited_model_can_be_copied_and_pickled_with_its_state():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    edited = gx.select(a, "norm").insert_after(norm2=b.norm, norm3=norm())
    state = gx.extend_state(state_a, edited, donor=state_b)
    expected, _ = run(edited, state, batch(0))
    for copy_of in (copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
        model = copy_of(edited)
        assert jax.tree.structure(model) == jax.tree.structure(edited)
        assert same_arrays(run(model, state, batch(0))[0], expected)
        assert same_arrays(run(model, copy_of(state), batch(0))[0], expected)


def test_an_edited_model_can_be_edited_again_after_a_tree_map_and_a_pickle():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    edited = gx.select(a, "norm").insert_after(norm2=b.norm)
    state = gx.extend_state(state_a, edited, donor=state_b)
    for change in (
        lambda tree: jax.tree.map(lambda leaf: leaf, tree),
        lambda tree: pickle.loads(pickle.dumps(tree)),
    ):
        again = gx.select(change(edited), "norm2").insert_after(norm3=norm())
        extended = gx.extend_state(change(state), again)
        assert same_arrays(statistics(again.norm, extended), statistics(a.norm, state_a))
        assert same_arrays(statistics(again.norm2, extended), statistics(b.norm, state_b))
        assert same_arrays(statistics(again.norm3, extended), INITIAL)


def test_edits_inside_make_with_state_need_nothing_else():
    def build():
        model = gx.select(net(0), "norm").insert_after(norm2=norm())
        return gx.select(model, "norm2").apply(lambda layer: gx.Chain(a=layer, b=layer))

    model, state = eqx.nn.make_with_state(build)()
    assert len(set(markers(model))) == 6
    y, _ = run(model, state, batch(0))
    assert y.shape == (8, 2)


def test_grafting_into_foreign_modules():
    class Net(eqx.Module):
        layers: list

        def __call__(self, x, state):
            for layer in self.layers:
                x, state = layer(x, state) if layer.is_stateful() else (layer(x), state)
            return x, state

    def build():
        return Net([gx.Chain(linear(WIDTH, WIDTH, 0)), norm()])

    (a, state_a), (b, state_b) = eqx.nn.make_with_state(build)(), eqx.nn.make_with_state(build)()
    _, state_b = run(b, state_b, batch(2))
    edited = gx.select(a, "layers[1]").insert_after(b.layers[1])
    state = gx.extend_state(state_a, edited, donor=state_b)
    assert len(set(markers(edited))) == 4
    assert same_arrays(statistics(edited.layers[2], state), statistics(b.layers[1], state_b))
    y, _ = run(edited, state, batch(0))
    assert bool(jnp.isfinite(y).all())
