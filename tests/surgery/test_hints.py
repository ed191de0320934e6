"""What an empty selection says when it is edited: what was asked, what is there, the nearest answer."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_surgery import arrays, linear, mixer, mlp
from graftax.surgery.hints import described


def message(model, *criteria):
    with pytest.raises(gx.NoMatchError) as caught:
        gx.select(model, *criteria).apply(lambda node: node)
    return str(caught.value)


def square(x):
    return x * x


def net():
    return gx.Chain(
        stem=linear(2, 2, 0),
        encoder=gx.Chain(
            *(gx.Chain(attention=gx.Chain(query=linear(2, 2, i)), mlp=square) for i in range(2))
        ),
        bottleneck=gx.Chain(up=jnp.sin),
    )


# --- Labels ---


def test_a_misspelt_label_names_the_nearest_and_where_it_stands():
    assert message(net(), "botleneck") == (
        "No label matches 'botleneck'. Did you mean 'bottleneck' (bottleneck)?"
    )
    assert message(net(), "querry") == (
        "No label matches 'querry'. Did you mean 'query' (encoder.0.attention.query, "
        "encoder.1.attention.query)?"
    )


def test_many_places_of_the_nearest_label_are_cut_short():
    model = gx.Chain(*(gx.Chain(norm=jnp.sin) for _ in range(5)))
    assert message(model, "nrom") == (
        "No label matches 'nrom'. Did you mean 'norm' (0.norm, 1.norm, 2.norm, and 2 more)?"
    )


def test_a_label_with_nothing_near_lists_those_at_the_root():
    assert message(net(), "xyz") == (
        "No label matches 'xyz'. Those of the Chain are: stem, encoder, bottleneck."
    )


def test_a_leaf_has_no_labels():
    assert message(jnp.ones(2), "weight").startswith("No label matches 'weight'.")


def test_labels_of_foreign_trees():
    assert "Did you mean 'weight'" in message(mlp(), "wieght")
    assert "Did you mean 'heads' (heads)" in message(mixer(), "haeds")
    assert "Did you mean 'decoder' (decoder)" in message(arrays(), "decodr")


# --- Paths ---


def test_a_wrong_middle_component_shows_what_stands_there():
    assert message(net(), "encoder.0.atention.query") == (
        "Nothing matches 'encoder.0.atention.query': 'encoder.0' is a Chain, and none of its children "
        "matches 'atention'. They are: attention, mlp. Did you mean 'encoder.0.attention'?"
    )


def test_a_wrong_first_component_shows_the_root():
    assert message(net(), "encodr.0.mlp") == (
        "Nothing matches 'encodr.0.mlp': the root is a Chain, and none of its children matches "
        "'encodr'. They are: stem, encoder, bottleneck. Did you mean 'encoder'?"
    )
    assert "the root is a Chain" in message(net(), ".xyz")


def test_a_wrong_last_component_shows_the_layer():
    assert message(net(), "stem.wieght") == (
        "Nothing matches 'stem.wieght': 'stem' is a Linear, and none of its children matches 'wieght'. "
        "They are: weight, bias. Did you mean 'stem.weight'?"
    )


@pytest.mark.parametrize(
    ("index", "shown"),
    [
        ("[7]", "[7]"),
        ("[-3]", "[-3]"),
        ("[5:]", "[5:]"),
        ("[4:9:2]", "[4:9:2]"),
        ("['norm']", "['norm']"),
        (".x*", "x*"),
        (".{a,b}", "{a,b}"),
    ],
)
def test_a_wrong_index_or_wildcard_shows_how_far_the_path_went(index, shown):
    pattern = f"encoder{index}.mlp"
    assert message(net(), pattern) == (
        f"Nothing matches {pattern!r}: 'encoder' is a Chain, and none of its children matches "
        f"{shown!r}. They are: 0, 1."
    )


def test_a_position_that_is_not_there():
    text = message(net(), "encoder.7")
    assert text.startswith(
        "Nothing matches 'encoder.7': 'encoder' is a Chain, and none of its children"
    )
    assert text.endswith("They are: 0, 1.")


def test_the_nearest_is_looked_for_in_every_place_that_was_reached():
    model = gx.Chain(a=gx.Chain(x=jnp.sin), b=gx.Chain(query=jnp.sin))
    assert message(model, "*.querry").endswith("Did you mean 'b.query'?")
    assert message(net(), "**.attention.querry").endswith(
        "Did you mean 'encoder.0.attention.query'?"
    )


def test_nothing_is_inside_of_a_leaf():
    assert message(net(), "stem.weight.x") == (
        "Nothing matches 'stem.weight.x': 'stem.weight' is an Array, and none of its children "
        "matches 'x'. They are: none."
    )


# --- Types, predicates, regular expressions ---


def test_a_type_that_is_not_there_lists_those_that_are():
    assert message(gx.Chain(a=linear(2, 2, 0)), eqx.nn.Conv2d) == (
        "No node is Conv2d. There are: 1 Chain, 1 Linear, 2 Array."
    )
    assert message(gx.Chain(a=linear(2, 2, 0)), (eqx.nn.Conv1d, eqx.nn.Conv2d)).startswith(
        "No node is Conv1d or Conv2d."
    )


def test_a_predicate_that_nothing_passes_is_named():
    def is_huge(node):
        return False

    assert message(gx.Chain(a=jnp.sin), eqx.Module, is_huge).startswith(
        "No node is Module and something that is_huge accepts."
    )


def test_a_pattern_that_matches_nodes_of_another_type_says_which():
    assert message(net(), "encoder.*.mlp", eqx.nn.Linear) == (
        "2 nodes match 'encoder.*.mlp', and none is Linear. They are: 2 function."
    )


def test_two_patterns_that_match_apart_say_so():
    assert message(net(), "stem", "bottleneck") == (
        "2 nodes match 'stem' and 'bottleneck', and none is matched by all of it. "
        "They are: 1 Linear, 1 Chain."
    )


def test_a_regular_expression_that_matches_inside_only_says_so():
    assert message(net(), re.compile("que")) == (
        "No path matches the regular expression 'que'. It is found inside encoder.0.attention.query, "
        "encoder.0.attention.query.weight, encoder.0.attention.query.bias, and 3 more, but must match "
        "a whole path."
    )
    assert message(net(), re.compile("zzz")) == ("No path matches the regular expression 'zzz'.")


def test_of_several_criteria_the_one_that_fails_is_named():
    assert message(net(), "stem", "encodr").startswith("No label matches 'encodr'")
    assert message(net(), eqx.nn.Linear, "stemm").startswith("No label matches 'stemm'")
    assert message(net(), "stem", re.compile("zzz")).startswith("No path matches the regular")


# --- Fields that hold None ---


def bare():
    plain = eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0))
    return gx.Chain(stem=plain, head=gx.Remat(plain), block=gx.SkipConnection(a=jnp.sin))


def test_a_field_that_holds_none_is_named_with_the_way_in():
    assert message(bare(), "head.bias") == (
        "Nothing matches 'head.bias'. None stands at 'head.bias', and None is no node: "
        "select(model, 'head').update(bias=...) gives it a value."
    )
    assert message(bare(), "bias") == (
        "Nothing matches 'bias'. None stands at 'stem.bias', 'head.bias', and None is no node: "
        "select(model, 'stem').update(bias=...) gives it a value."
    )
    assert "select(model, 'block').update(shortcut=...)" in message(bare(), "block.shortcut")
    assert "select(model, '').update(bias=...)" in message(bare().stem, ".bias")
    assert "select(model, 'stem').update(bias=...)" in message(bare(), re.compile(r"stem\.b.*"))


def test_the_way_in_works():
    model = gx.select(bare(), "head").update(bias=jnp.ones(2))
    assert gx.select(model, "head.bias").one().shape == (2,)
    assert type(model.head) is gx.Remat


def test_a_narrowed_selection_names_the_whole_path_of_a_field_that_holds_none():
    with pytest.raises(
        gx.NoMatchError, match=r"^Inside 'stem': .* None stands at 'stem\.bias', and"
    ):
        gx.select(bare(), "stem").select("bias").set(0)


def test_what_is_no_field_is_not_said_to_hold_none():
    assert "None stands" not in message(bare(), "stem.bais")
    assert "Did you mean" not in message(bare(), "stem.bias.x")
    assert "None stands" not in message({"a": [None]}, "a.0")


# --- A node in a few words ---


def test_a_node_is_described_by_shape_or_by_type_and_first_fields():
    assert described(jnp.ones((2, 3))) == "f32[2,3]"
    assert described(linear(3, 2, 0)).startswith(
        "Linear(weight=f32[2,3], bias=f32[2], in_features=3"
    )
    assert len(described(net())) <= 100 and "\n" not in described(net())
