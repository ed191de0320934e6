"""The names that edits give to values of a state: functions of the edit, and never used again."""

import copy
import itertools
import pickle

import equinox as eqx
import jax
import pytest

import graftax as gx
from common_state import batch, built, markers, net, norm, trained
from graftax.surgery.names import Held, Name, _Recent, in_states, removed

fresh = itertools.count()


def unused(path="p"):
    return f"{path}{next(fresh)}"


def test_a_name_says_where_the_layer_was_put_and_where_it_came_from():
    path = unused()
    assert Name.make(path, object(), False, ()) == f"{path}#1"
    assert Name.make(path, "Chain.norm", False, ()) == f"{path}#1, from Chain.norm"
    assert Name.make(path, "Chain.norm", True, ()) == f"{path}#1, copy of Chain.norm"


def test_a_name_that_is_taken_or_was_that_of_a_removed_layer_with_a_state_is_not_given_again():
    path = unused()
    assert Name.make(path, object(), False, {f"{path}#1", f"{path}#2"}) == f"{path}#3"
    removed.note([f"{path}#1", f"{path}#2"])
    assert Name.make(path, object(), False, ()) == f"{path}#1"
    in_states.note([f"{path}#1", f"{path}#3"])
    assert Name.make(path, object(), False, ()) == f"{path}#2"
    assert Name.make(path, object(), False, {f"{path}#2"}) == f"{path}#3"


def test_only_names_that_edits_give_are_remembered_and_no_more_than_so_many(monkeypatch):
    recent = _Recent()
    recent.note(["Chain.norm", object()])
    assert "Chain.norm" not in recent
    monkeypatch.setattr(_Recent, "most", 3)
    recent.note([f"p#{i}" for i in range(1, 6)])
    assert [f"p#{i}" in recent for i in range(1, 6)] == [False, False, True, True, True]


def test_names_survive_copies_and_pickles():
    name = Name.make(unused(), Name.make(unused(), "Chain.norm", False, ()), True, ())
    for again in (copy.deepcopy(name), pickle.loads(pickle.dumps(name))):
        assert again == name and again.copied is True
        assert again.origin == name.origin and again.origin.origin == "Chain.norm"


def test_a_held_name_is_equal_to_the_name_and_to_no_other_held_one():
    one, two = Held("Chain.norm", True), Held("Chain.norm", True)
    assert one == "Chain.norm" and one == one
    assert one != two and one != "Chain.other"
    assert hash(one) == hash("Chain.norm") and repr(one) == repr("Chain.norm")
    assert {"Chain.norm": 1}[one] == 1


GRAFTS = {
    "set": lambda m, new: gx.select(m, "norm").set(new),
    "insert": lambda m, new: gx.select(m, "norm").insert_after(norm2=new),
    "apply": lambda m, new: gx.select(m, "lin").apply(lambda layer: gx.Chain(layer, new)),
    "twice": lambda m, new: gx.select(m, ["lin", "norm"]).set(new),
    "copy": lambda m, new: gx.select(m, "norm").insert_after(norm2=m.norm),
    "replaced": lambda m, new: gx.select(GRAFTS["insert"](m, norm()), "norm2").set(new),
}


@pytest.fixture
def no_history(monkeypatch):
    """As in a process in which no layer was removed so far."""
    monkeypatch.setattr(in_states, "_names", {})
    monkeypatch.setattr(removed, "_names", {})


@pytest.mark.usefixtures("no_history")
@pytest.mark.parametrize("how", GRAFTS)
@pytest.mark.parametrize("donor", ["built anew", "of another model"])
@pytest.mark.parametrize("base", ["one model", "built again"])
def test_the_same_graft_done_twice_compiles_once(how, donor, base):
    compiled = []

    @eqx.filter_jit
    def apply(model, state, x):
        compiled.append(1)
        over_batch = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return over_batch(x, state)

    one = built(0)
    results = []
    for _ in range(2):
        model, state = one if base == "one model" else built(0)
        new, donated = norm(), None
        if donor == "of another model":
            other, donated = built(1)
            new = other.norm
        model = GRAFTS[how](model, new)
        state = gx.extend_state(state, model, donor=donated)
        results.append(apply(model, state, batch(0)))
        assert jax.tree.structure(model) == jax.tree.structure(GRAFTS[how](one[0], new))
    assert len(compiled) == 1
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, results), strict=True))


def test_grafts_from_layers_of_other_names_are_told_apart_by_their_names():
    # Else `jit` would give back the origin of the one that it saw first, and a donor be asked for it.
    (a, _), (b, _) = built(0), built(1)
    named, _ = eqx.nn.make_with_state(lambda: gx.Chain(bn=norm()))()
    from_norm = gx.select(a, "norm").insert_after(norm2=b.norm)
    from_bn = gx.select(a, "norm").insert_after(norm2=named.bn)
    a_copy = gx.select(a, "norm").insert_after(norm2=a.norm)
    built_anew = gx.select(a, "norm").insert_after(norm2=norm())
    all_ = [markers(m.norm2)[0] for m in (from_norm, from_bn, a_copy, built_anew)]
    assert len(set(all_)) == 4


REMOVALS = {
    "remove": lambda m: gx.select(m, "norm").remove(),
    "set": lambda m: gx.select(m, "norm").set(jax.nn.relu),
    "apply above": lambda m: gx.select(m, "").apply(lambda c: c[["lin", "out"]]),
    "dispatch": lambda m: _without_norms()(m),
}


def _without_norms():
    @gx.dispatch
    def rewrite(layer):
        return layer

    rewrite.register(eqx.nn.BatchNorm, lambda layer: jax.nn.relu)
    return rewrite


@pytest.mark.parametrize(
    "through", [lambda tree: tree, lambda tree: pickle.loads(pickle.dumps(tree))]
)
@pytest.mark.parametrize("how", REMOVALS)
def test_a_name_is_not_given_again_after_any_kind_of_removal(how, through):
    model, state = trained(0)
    seen = set(markers(model))
    for _ in range(3):
        model = through(REMOVALS[how](model))
        if "norm" in model:
            model = gx.select(model, "norm").remove()
        model = gx.select(model, "lin").insert_after(norm=norm())
        assert seen.isdisjoint(markers(model))
        seen |= set(markers(model))
        # The state still holds what the layers before it had.
        counter = gx.extend_state(state, model).get(model.norm.batch_counter)
        assert int(counter) == 0
        old = {index.marker: 7 for index in gx.select(model, eqx.nn.StateIndex)}
        state = eqx.nn.State([*_kept(state), *_indices(old)])


def _kept(state):
    values, keys = state.tree_flatten()
    return _indices(dict(zip(keys, values, strict=True)))


def _indices(values):
    found = []
    for marker, value in values.items():
        index = eqx.nn.StateIndex(value)
        object.__setattr__(index, "marker", marker)
        found.append(index)
    return found


def test_models_built_again_and_again_have_the_names_they_had():
    first, second = (eqx.nn.make_with_state(net)(0)[0] for _ in range(2))
    assert markers(first) == markers(second)
