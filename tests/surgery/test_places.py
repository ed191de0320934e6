"""Selections as sets of what stands at or inside of their nodes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import without_annotation_checks
from common_surgery import labelled_model, linear


def test_or_is_that_of_sets_of_paths():
    model = labelled_model()
    a, b = gx.select(model, eqx.nn.Linear), gx.select(model, "body.**")
    assert set((a | b).paths) == set(a.paths) | set(b.paths)


def test_and_and_minus_reach_inside_of_the_nodes_of_the_right():
    model = labelled_model()
    linears, body = gx.select(model, eqx.nn.Linear), gx.select(model, "body")
    inside = ("body.0.down", "body.0.up", "body.1.down", "body.1.up")
    assert (linears & body).paths == inside
    assert (linears - body).paths == ("stem", "sides.left", "mix", "head")
    weights = gx.select(model, "weight")
    assert (weights & linears).paths == weights.paths and not weights - linears
    assert (weights & gx.select(model, ["head", "body.1"])).paths == (
        "body.1.down.weight",
        "body.1.up.weight",
        "head.weight",
    )


def test_and_and_minus_of_the_same_or_finer_nodes_are_those_of_sets_of_paths():
    model = labelled_model()
    a, b = gx.select(model, eqx.nn.Linear), gx.select(model, "body.**")
    left, right = set(a.paths), set(b.paths)
    assert set((a & b).paths) == left & right
    assert set((a - b).paths) == left - right


def test_a_node_that_the_other_stands_inside_of_is_not_cut():
    model = labelled_model()
    body, ups = gx.select(model, "body"), gx.select(model, "up")
    message = (
        r"^'body\.[01]\.up' stands inside 'body', which is selected whole\. Take \.arrays\(\) of the "
        r"left selection first"
    )
    for combine in (lambda: body - ups, lambda: body & ups):
        with pytest.raises(ValueError, match=message):
            combine()
    with pytest.raises(ValueError, match=r"stands inside 'the root', which is selected whole"):
        gx.select(model, "") - ups


def test_where_only_some_nodes_hold_the_other_these_are_what_is_refused():
    model = labelled_model()
    everything, ups = gx.select(model, "**"), gx.select(model, "up")
    # Every node at or inside `up` is one of the left by itself: nothing is cut.
    assert set((everything & ups).paths) == {
        f"body.{i}.up{rest}" for i in (0, 1) for rest in ("", ".weight", ".bias")
    }
    with pytest.raises(ValueError, match=r"Take \.arrays\(\)"):
        everything - ups


def test_arrays_of_the_left_can_be_told_apart_where_its_nodes_cannot():
    model = labelled_model()
    body, ups = gx.select(model, "body").arrays(), gx.select(model, "up")
    assert (body - ups).paths == tuple(p for p in body.paths if ".down." in p)
    assert (body & ups).paths == tuple(p for p in body.paths if ".up." in p)
    edited = (body - ups).set(jnp.zeros(()))
    assert edited.body[0].up is model.body[0].up and edited.body[0].down.weight.shape == ()


def test_what_stands_beside_the_held_layer_in_a_wrapper_is_not_inside_of_it():
    model = gx.Chain(a=gx.LoRA(linear(3, 3, 0), rank=1, key=jax.random.key(0)))
    adapters, linears = gx.select(model, "{lora_a,lora_b}"), gx.select(model, eqx.nn.Linear)
    assert linears.nodes == (model.a.layer,)
    assert (linears - adapters).nodes == linears.nodes
    assert (adapters - linears).paths == adapters.paths
    with pytest.raises(ValueError, match=r"^'a.lora_a' stands inside 'a'"):
        gx.select(model, gx.LoRA) - adapters
    assert (gx.select(model, "a").arrays() - adapters).paths == ("a.weight", "a.bias")


def test_sets_are_in_the_order_of_the_model():
    model = labelled_model()
    stem, head = gx.select(model, "stem"), gx.select(model, "head")
    assert (head | stem).paths == (stem | head).paths == ("stem", "head")
    everything = gx.select(model, "**")
    assert (everything[::-1] & everything).paths == everything.paths[::-1]


def test_a_wrapper_and_what_it_holds_are_one_place():
    model = labelled_model()
    linears, mix = gx.select(model, eqx.nn.Linear), gx.select(model, "mix")
    assert mix.one() is model.mix and model.mix.layer in linears.nodes
    assert "mix" not in (linears - mix).paths
    assert (linears & mix).nodes == (model.mix.layer,)
    assert (mix & linears).nodes == (model.mix,)
    assert len(linears | mix) == len(linears)


def test_sets_with_an_empty_selection():
    model = labelled_model()
    some, none = gx.select(model, "up"), gx.select(model, "nothing")
    assert (some | none).paths == (none | some).paths == some.paths
    assert (some & none).paths == (none & some).paths == ()
    assert (some - none).paths == some.paths and (none - some).paths == ()


def test_a_set_can_be_edited():
    model = labelled_model()
    found = gx.select(model, eqx.nn.Linear) - gx.select(model, ["body.**", "sides.**"])
    edited = found.set(jnp.tanh)
    assert edited.stem is edited.mix.layer is edited.head is jnp.tanh
    assert edited.body is model.body and edited.sides is model.sides


@pytest.mark.parametrize("combine", [lambda a, b: a | b, lambda a, b: a & b, lambda a, b: a - b])
def test_selections_of_different_models_do_not_combine(combine):
    a, b = labelled_model(), labelled_model()
    message = "^These selections are of different models. An edit returns a new model: select again"
    with pytest.raises(ValueError, match=message):
        combine(gx.select(a, "stem"), gx.select(b, "stem"))


@pytest.mark.parametrize("combine", [lambda a, b: a | b, lambda a, b: a & b, lambda a, b: a - b])
def test_selections_combine_with_selections_only(combine):
    with (
        without_annotation_checks(),
        pytest.raises(TypeError, match=r"^A selection combines with a selection, not a tuple.$"),
    ):
        combine(gx.select(labelled_model(), "stem"), ("stem",))
