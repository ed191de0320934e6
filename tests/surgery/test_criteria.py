"""What may be asked of a node, and the nodes that meet all of it."""

import re

import equinox as eqx
import pytest

import graftax as gx
from common_surgery import LINEARS, Bottleneck, arrays, labelled_model, linear


def test_a_pattern_picks_the_nodes_at_its_paths():
    model = labelled_model()
    assert gx.select(model, "down").paths == ("body.0.down", "body.1.down")
    assert gx.select(model, "down").nodes == (model.body[0].down, model.body[1].down)


def test_the_empty_pattern_picks_the_root():
    model = labelled_model()
    assert gx.select(model, "").items() == (("", model),)


def test_a_type_picks_its_instances_in_the_order_of_a_walk():
    assert gx.select(labelled_model(), eqx.nn.Linear).paths == LINEARS


def test_a_type_picks_instances_of_subclasses():
    assert gx.select(labelled_model(), gx.SkipConnection).paths == ("body.0", "body.1")
    assert gx.select(labelled_model(), Bottleneck).paths == ("body.0", "body.1")


@pytest.mark.parametrize("types", [(Bottleneck, gx.Parallel), [Bottleneck, gx.Parallel]])
def test_a_tuple_of_types_picks_instances_of_any(types):
    assert gx.select(labelled_model(), types).paths == ("body.0", "body.1", "sides")


def test_a_union_of_types_picks_instances_of_any():
    found = gx.select(labelled_model(), Bottleneck | gx.Parallel)
    assert found.paths == ("body.0", "body.1", "sides")


def test_a_predicate_is_asked_about_every_node():
    asked = []
    model = labelled_model()
    gx.select(model, lambda node: asked.append(node) or False)
    # A wrapper and what it holds have one path: the walk yields the wrapper.
    walked = [node for _, node in gx.walk(model)]
    assert [node for node in asked if node is not model.mix.layer] == walked
    assert any(node is model.mix.layer for node in asked)


def test_a_predicate_may_return_an_array():
    assert gx.select(arrays(), eqx.is_array, lambda a: a.sum() > 2.5).paths == (
        "decoder.scale",
        "encoder.1",
    )


def test_a_compiled_expression_must_match_the_whole_path():
    model = labelled_model()
    assert gx.select(model, re.compile(r"body\.\d\.up")).paths == ("body.0.up", "body.1.up")
    assert gx.select(model, re.compile(r"body\.\d\.u")).paths == ()


def test_a_string_is_never_read_as_a_regular_expression():
    with pytest.raises(gx.PatternError, match=r"given as re\.compile"):
        gx.select(labelled_model(), r"body\.\d")


def test_all_criteria_must_hold():
    model = labelled_model()
    found = gx.select(
        model,
        "body.**",
        eqx.nn.Linear,
        lambda layer: layer.out_features == 4,
        re.compile(r".*\.1\..*"),
    )
    assert found.paths == ("body.1.up",)


def test_two_patterns_must_both_hold():
    assert gx.select(labelled_model(), "up", "body[1:].*").paths == ("body.1.up",)


@pytest.mark.parametrize("make", [list, tuple])
def test_a_list_of_patterns_is_an_alternative(make):
    model = labelled_model()
    found = gx.select(model, make(["head", re.compile("stem|sides"), "body[0].up"]))
    assert found.paths == ("stem", "body.0.up", "sides", "head")


def test_a_node_that_two_alternatives_match_is_picked_once():
    assert gx.select(labelled_model(), ["up", "body[0].*"]).paths == (
        "body.0.down",
        "body.0.act",
        "body.0.up",
        "body.0.op",
        "body.1.up",
    )


@pytest.mark.parametrize("patterns", [["stem", "botleneck"], ["botleneck"]])
def test_each_pattern_of_a_list_must_match_something(patterns):
    with pytest.raises(gx.NoMatchError, match=r"No label matches 'botleneck'"):
        gx.select(labelled_model(), patterns)


def test_each_pattern_of_a_list_must_match_something_that_meets_the_other_criteria():
    with pytest.raises(gx.NoMatchError, match=r"2 nodes match 'act', and none is Linear"):
        gx.select(labelled_model(), ["up", "act"], eqx.nn.Linear)


def test_a_pattern_alone_picks_the_wrapper_and_a_type_what_it_holds():
    model = labelled_model()
    assert gx.select(model, "mix").nodes == (model.mix,)
    assert gx.select(model, "mix", eqx.nn.Linear).nodes == (model.mix.layer,)
    assert gx.select(model, "mix", lambda node: isinstance(node, gx.Wrapper)).nodes == (model.mix,)


def test_at_most_one_node_is_picked_at_a_path():
    wrapped = gx.Chain(a=gx.Remat(gx.Vmap(linear(2, 2, 0))))
    assert gx.select(wrapped, ".a").nodes == (wrapped.a,)
    assert gx.select(wrapped, ".a", eqx.Module).nodes == (wrapped.a,)
    assert gx.select(wrapped, ".a", gx.Vmap).nodes == (wrapped.a.layer,)


def test_none_is_no_node():
    assert gx.select({"a": None, "b": 1}, "*").paths == ("b",)


@pytest.mark.parametrize("criterion", [3, None, ("a", int), ["a", 3], 2.5])
def test_what_is_no_criterion_is_refused(criterion):
    with pytest.raises(
        TypeError, match=r"^A criterion is a pattern .* got " + re.escape(repr(criterion))
    ):
        gx.select(labelled_model(), criterion)


def test_no_criteria_and_no_patterns_are_refused():
    with pytest.raises(TypeError, match=r"^At least one criterion is needed"):
        gx.select(labelled_model())
    with pytest.raises(TypeError, match=r"^A list of patterns needs at least one pattern"):
        gx.select(labelled_model(), [])


def test_an_error_of_a_predicate_says_which_node_it_was_asked_about():
    with pytest.raises(AttributeError, match=r"out_features") as caught:
        gx.select(labelled_model(), lambda node: node.out_features == 4)
    (note,) = caught.value.__notes__
    assert "asked about a Chain" in note and "put a pattern or a type before it" in note


def test_a_malformed_pattern_is_refused_before_the_model_is_looked_at():
    def unreachable(node):
        raise AssertionError

    with pytest.raises(gx.PatternError, match=r"never closed"):
        gx.select(labelled_model(), unreachable, "body[")
