"""`select`: what its criteria pick, and what a selection says of it."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import graftax as gx
from common_containers import without_annotation_checks
from common_surgery import TREES, Bottleneck, arrays, attention, labelled_model, linear, mixer, mlp

LINEARS = (
    "stem",
    "body.0.down",
    "body.0.up",
    "body.1.down",
    "body.1.up",
    "sides.left",
    "mix",
    "head",
)


# --- Criteria ---


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


# --- expect ---


def test_expect_lets_the_expected_number_pass():
    assert gx.select(labelled_model(), "up", expect=2).paths == ("body.0.up", "body.1.up")
    assert gx.select(labelled_model(), "nothing", expect=0).paths == ()
    found = gx.select(labelled_model(), "up")
    assert found.expect(2) is found


def test_expect_refuses_another_number_and_lists_what_there_is():
    message = r"^Expected 3, found 2: body\.0\.up, body\.1\.up\.$"
    with pytest.raises(gx.MatchError, match=message):
        gx.select(labelled_model(), "up", expect=3)
    with pytest.raises(gx.MatchError, match=message):
        gx.select(labelled_model(), "up").expect(3)
    with pytest.raises(gx.MatchError, match=r"^Expected 0, found 2"):
        gx.select(labelled_model(), "up", expect=0)


def test_expect_of_none_names_the_nearest():
    with pytest.raises(gx.NoMatchError, match=r"^Expected 1, found 0\. .*Did you mean 'stem'"):
        gx.select(labelled_model(), "sterm", expect=1)


def test_match_errors_are_value_errors_and_no_match_is_a_lookup_error():
    assert issubclass(gx.MatchError, ValueError)
    assert issubclass(gx.NoMatchError, gx.MatchError)
    assert issubclass(gx.NoMatchError, LookupError)


# --- Reading ---


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


def test_size_counts_parameters_and_nbytes_counts_all_arrays():
    tree = {
        "real": jnp.ones((2, 3)),
        "complex": jnp.ones(2, jnp.complex64),
        "half": jnp.ones(4, jnp.bfloat16),
        "count": jnp.arange(5),
        "flag": True,
        "number": 2.5,
    }
    everything = gx.select(tree, "")
    assert everything.size == 6 + 2 + 4
    assert everything.nbytes == 6 * 4 + 2 * 8 + 4 * 2 + 5 * 4


def test_size_and_nbytes_count_each_array_once():
    shared = jnp.ones(3)
    found = gx.select({"a": shared, "b": [shared]}, "**")
    assert len(found) == 4  # the root, "a", "b", "b.0": matches inside matches, too
    assert (found.size, found.nbytes) == (3, 12)


def test_statistics_are_no_parameters():
    norm = eqx.nn.BatchNorm(5, axis_name="batch", mode="batch")
    found = gx.select(gx.Chain(norm=norm), "norm")
    assert found.size == 5 + 5
    assert found.nbytes == (5 + 5 + 5 + 5) * 4 + 4


def test_size_is_known_for_random_keys_and_shapes():
    found = gx.select({"key": jax.random.key(0), "w": jnp.ones(2)}, "")
    assert found.size == 2
    assert found.nbytes == 2 * 4 + 2 * 4


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


# --- Foreign trees ---


@pytest.mark.parametrize("name", TREES)
def test_every_path_of_a_walk_selects_its_node(name):
    tree = TREES[name]()
    for path, node in gx.walk(tree):
        # A path of one component is a label, unless a dot pins it to the root.
        pattern = path if "." in path or "[" in path or not path else f".{path}"
        assert gx.select(tree, pattern).one() is node


@pytest.mark.parametrize("name", TREES)
def test_selecting_everything_is_a_walk(name):
    tree = TREES[name]()
    found = gx.select(tree, "**")
    assert found.paths == tuple(path for path, _ in gx.walk(tree))
    assert all(a is b for a, (_, b) in zip(found.nodes, gx.walk(tree), strict=True))


def test_patterns_and_types_on_foreign_modules():
    assert gx.select(mlp(), "layers[-2:].weight").paths == ("layers.1.weight", "layers.2.weight")
    assert gx.select(attention(), "{query,value}_proj", eqx.nn.Linear).paths == (
        "query_proj",
        "value_proj",
    )
    assert gx.select(mixer(), eqx.nn.Linear).paths == (
        "layers.0",
        "layers.2",
        "heads.even",
        "heads.odd",
    )
    assert gx.select(mixer(), "heads.**.bias").paths == ("heads.even.bias", "heads.odd.bias")


def test_patterns_and_types_on_an_optimiser_state():
    state = optax.adam(1e-3).init(arrays())
    assert gx.select(state, optax.ScaleByAdamState).paths == ("0",)
    assert gx.select(state, "0.mu.decoder.*").paths == ("0.mu.decoder.scale", "0.mu.decoder.shift")
    assert gx.select(state, "scale").paths == ("0.mu.decoder.scale", "0.nu.decoder.scale")
    assert gx.select(state, "count").one() == 0


def test_selecting_works_on_tracers_and_after_a_tree_map():
    model = labelled_model()

    @eqx.filter_jit
    def halved(model):
        assert gx.select(model, "weight").paths == gx.select(labelled_model(), "weight").paths
        return gx.select(model, "head.weight").apply(lambda w: w / 2)

    assert bool((halved(model).head.weight == model.head.weight / 2).all())
    mapped = jax.tree.map(lambda x: x, model)
    assert gx.select(mapped, eqx.nn.Linear).paths == LINEARS


def test_messages_for_wrong_criteria_do_not_need_annotations():
    with without_annotation_checks(), pytest.raises(TypeError, match=r"^A criterion is a pattern"):
        gx.select(labelled_model(), {"a": 1})
