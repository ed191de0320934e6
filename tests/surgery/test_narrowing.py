"""Narrowing a selection, and selections as sets."""

import re

import equinox as eqx
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import without_annotation_checks
from common_surgery import Bottleneck, arrays, labelled_model, linear, mixer


def test_select_looks_inside_each_match():
    model = labelled_model()
    blocks = gx.select(model, Bottleneck)
    assert blocks.select("up").paths == ("body.0.up", "body.1.up")
    assert blocks.select("up").nodes == (model.body[0].up, model.body[1].up)
    assert blocks.select(eqx.nn.Linear, "up").model is model


def test_the_root_of_an_inner_pattern_is_the_match():
    blocks = gx.select(labelled_model(), Bottleneck)
    assert blocks.select("down.weight").paths == ("body.0.down.weight", "body.1.down.weight")
    assert blocks.select("").paths == blocks.paths
    assert blocks.select("body.0").paths == ()
    assert blocks.select(re.compile(r"up\.bias")).paths == ("body.0.up.bias", "body.1.up.bias")


def test_a_match_itself_may_meet_inner_criteria():
    linears = gx.select(labelled_model(), eqx.nn.Linear)
    assert linears.select(eqx.nn.Linear).nodes == linears.nodes


def test_what_two_nested_matches_hold_is_found_once():
    outer = gx.select(labelled_model(), ["body", "body.0"])
    assert outer.select("up").paths == ("body.0.up", "body.1.up")


def test_each_pattern_of_an_inner_list_must_match_somewhere():
    model = gx.Chain(a=gx.Chain(x=jnp.sin), b=gx.Chain(y=jnp.cos))
    assert gx.select(model, gx.Chain).select(["a.x", "b.y"]).paths == ("a.x", "b.y")
    assert gx.select(model, ["a", "b"]).select(["x", "y"]).paths == ("a.x", "b.y")
    with pytest.raises(gx.NoMatchError, match=r"^Inside 'a', 'b': No label matches 'z'"):
        gx.select(model, ["a", "b"]).select(["x", "z"])


def test_select_on_foreign_trees():
    assert gx.select(mixer(), "heads").select(eqx.nn.Linear).paths == ("heads.even", "heads.odd")
    assert gx.select(arrays(), "decoder").select("scale").paths == ("decoder.scale",)


def test_select_goes_through_wrappers():
    model = gx.Chain(block=gx.Remat(gx.Chain(a=linear(2, 2, 0))))
    found = gx.select(model, "block").select("a.weight")
    assert found.paths == ("block.a.weight",)
    assert found.one() is model.block.a.weight
    doubled = found.apply(lambda w: 2 * w)
    assert type(doubled.block) is gx.Remat
    assert bool((doubled.block.a.weight == 2 * model.block.a.weight).all())


def test_where_keeps_the_nodes_for_which_the_predicate_holds():
    linears = gx.select(labelled_model(), eqx.nn.Linear)
    assert linears.where(lambda layer: layer.out_features == 2).paths == (
        "body.0.down",
        "body.1.down",
        "head",
    )


def test_indices_and_slices_are_those_of_a_tuple():
    found = gx.select(labelled_model(), eqx.nn.Linear)
    for i in range(-len(found), len(found)):
        assert found[i].paths == (found.paths[i],)
    for place in (slice(None), slice(1, None), slice(-2, None), slice(None, None, 2), slice(5, 2)):
        assert found[place].paths == found.paths[place]


@pytest.mark.parametrize("index", [2, -3])
def test_an_index_out_of_range_says_how_many_there_are(index):
    with pytest.raises(IndexError, match=rf"^There are 2 matches: there is no match {index}.$"):
        gx.select(labelled_model(), "up")[index]


# --- Sets ---


def test_or_and_and_and_minus_are_those_of_sets_of_paths():
    model = labelled_model()
    a, b = gx.select(model, eqx.nn.Linear), gx.select(model, "body.**")
    left, right = set(a.paths), set(b.paths)
    assert set((a | b).paths) == left | right
    assert set((a & b).paths) == left & right
    assert set((a - b).paths) == left - right
    assert set((b - a).paths) == right - left


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


# --- Why a narrowed selection is empty ---


def test_the_message_of_a_narrowed_selection_is_of_its_last_question():
    blocks = gx.select(labelled_model(), Bottleneck)
    with pytest.raises(gx.NoMatchError, match=r"^Inside 'body.0', 'body.1': .*Did you mean 'down'"):
        blocks.select("dwon").set(None)
    with pytest.raises(
        gx.NoMatchError, match=r"^Inside 'body.0', 'body.1': Nothing matches 'down.x'"
    ):
        blocks.select("down.x").set(None)


def test_the_message_of_a_narrowed_empty_selection_is_of_its_first_question():
    with pytest.raises(gx.NoMatchError, match=r"^No label matches 'botleneck'"):
        gx.select(labelled_model(), "botleneck").select("up").set(None)


def test_what_was_narrowed_to_nothing_says_so():
    ups = gx.select(labelled_model(), "up")
    for nothing in (ups.where(lambda _: False), ups[2:], ups - ups):
        with pytest.raises(gx.NoMatchError, match=r"^The selection was narrowed to nothing.$"):
            nothing.set(None)


def test_an_intersection_with_an_empty_selection_says_why_that_is_empty():
    model = labelled_model()
    ups, typo = gx.select(model, "up"), gx.select(model, "haed")
    for nothing in (ups & typo, typo & ups, typo | typo, typo - ups):
        with pytest.raises(gx.NoMatchError, match=r"Did you mean 'head'"):
            nothing.set(None)
