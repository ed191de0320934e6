"""Narrowing a selection, and selections as sets."""

import re

import equinox as eqx
import jax.numpy as jnp
import pytest

import graftax as gx
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


def test_what_a_predicate_of_where_raises_carries_the_path():
    with pytest.raises(AttributeError, match=r"nothing") as caught:
        gx.select(labelled_model(), "up").where(lambda layer: layer.nothing)
    assert caught.value.__notes__ == ["<lambda> was given the Linear at 'body.0.up'."]
    # A predicate may give anything that is true or false.
    assert not gx.select(labelled_model(), "up").where(lambda layer: None)


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


def test_arrays_are_the_arrays_inside():
    model = labelled_model()
    found = gx.select(model, ["body.0", "head", "head.bias"]).arrays()
    assert found.paths == (
        "body.0.down.weight",
        "body.0.down.bias",
        "body.0.up.weight",
        "body.0.up.bias",
        "head.weight",
        "head.bias",
    )
    assert all(eqx.is_array(node) for node in found)
    assert gx.select(arrays(), "").arrays().paths == gx.select(arrays(), eqx.is_array).paths


def test_arrays_of_what_has_none_say_so():
    nothing = gx.select(labelled_model(), "act").arrays()
    assert len(nothing) == 0
    with pytest.raises(gx.NoMatchError, match=r"^Inside 'body.0.act', 'body.1.act': No node is"):
        nothing.set(0)


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


def test_paths_nodes_items_length_iteration_and_truth_agree():
    model = labelled_model()
    found = gx.select(model, "up")
    assert found.paths == ("body.0.up", "body.1.up")
    assert all(a is b for a, b in zip(found.nodes, [b.up for b in model.body], strict=True))
    assert found.items() == tuple(zip(found.paths, found.nodes, strict=True))
    assert len(found) == 2 and list(found) == list(found.nodes) and bool(found)
    assert found.model is model


def test_one_is_the_only_node():
    model = labelled_model()
    assert gx.select(model, "head").one() is model.head


def test_one_of_none_is_an_error_with_the_nearest():
    with pytest.raises(gx.NoMatchError, match=r"^Expected 1, found 0\. .*'head'"):
        gx.select(labelled_model(), "haed").one()


def test_one_of_several_is_an_error_that_lists_them():
    with pytest.raises(
        gx.MatchError, match=r"^Expected 1, found 2: body\.0\.up, body\.1\.up\.$"
    ) as e:
        gx.select(labelled_model(), "up").one()
    assert not isinstance(e.value, gx.NoMatchError)


def test_printing_lists_the_paths_with_what_stands_there():
    lines = repr(gx.select(labelled_model(), ["stem.weight", "up", ""])).splitlines()
    assert lines[0] == "Selection of 4"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "(root)",
        "stem.weight",
        "body.0.up",
        "body.1.up",
    ]
    assert lines[2].strip() == "stem.weight: f32[4,3]"
    assert lines[3].strip().startswith("body.0.up: Linear(")


def test_reading_an_empty_selection_is_fine():
    found = gx.select(labelled_model(), "nothing")
    assert (found.paths, found.nodes, found.items(), list(found)) == ((), (), (), [])
    assert (len(found), bool(found), found.size, found.nbytes) == (0, False, 0, 0)
    assert repr(found) == "Selection of 0"
    assert found.select("up").where(bool)[:].paths == ()
