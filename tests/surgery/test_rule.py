"""What a rule is for, and which of several is the more specific."""

import re
import types

import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import same_arrays, without_annotation_checks
from common_rules import Base, Leaf, Middle, Tag, Virtual, nested, tag_at, tagging


def test_a_full_path_goes_before_a_pattern():
    for rules in (("encoder.0.query", "encoder.*.query"), ("encoder.*.query", "encoder.0.query")):
        model = tagging(*rules)(nested())
        assert tag_at(model, "encoder.0.query") == str(rules.index("encoder.0.query"))
        assert tag_at(model, "encoder.1.query") == str(rules.index("encoder.*.query"))


@pytest.mark.parametrize("path", ["encoder[0].query", "encoder[-2].query", "encoder.0['query']"])
def test_a_full_path_may_be_spelt_in_any_way(path):
    model = tagging(path, "encoder.*.query")(nested())
    assert tag_at(model, "encoder.0.query") == "0" and tag_at(model, "encoder.1.query") == "1"


def test_a_pattern_with_more_literal_components_goes_first():
    for rules in (("encoder.*.query", "*.*.*"), ("*.*.*", "encoder.*.query")):
        model = tagging(*rules)(nested())
        assert tag_at(model, "encoder.0.query") == str(rules.index("encoder.*.query"))
        assert tag_at(model, "encoder.0.value") == str(rules.index("*.*.*"))
    model = tagging("encoder.*.query", "encoder.0.*")(nested())
    # As many literal components: the one registered last.
    assert tag_at(model, "encoder.0.query") == "1" and tag_at(model, "encoder.1.query") == "0"


@pytest.mark.parametrize("pattern", ["**.query", "{query,key}", "quer?", "encoder.**.query"])
def test_a_pattern_goes_before_a_label(pattern):
    model = tagging(pattern, "query")(nested())
    assert tag_at(model, "encoder.0.query") == "0"


def test_a_label_goes_before_a_type():
    for rules in (("query", Leaf), (Leaf, "query")):
        model = tagging(*rules)(nested())
        assert tag_at(model, "encoder.1.query") == str(rules.index("query"))
        assert tag_at(model, "encoder.1.value") == str(rules.index(Leaf))


def test_a_nearer_type_in_the_mro_goes_first():
    for rules in ((Leaf, Middle, Base), (Base, Middle, Leaf)):
        model = tagging(*rules)(gx.Chain(a=Leaf(), b=Middle(), c=Base()))
        assert [layer.rule for layer in model] == [
            str(rules.index(t)) for t in (Leaf, Middle, Base)
        ]


def test_a_virtual_base_class_is_farther_than_a_real_one():
    for rules in ((Base, Virtual), (Virtual, Base)):
        model = tagging(*rules)(gx.Chain(a=Leaf()))
        assert model.a.rule == str(rules.index(Base))
    assert tagging(Virtual)(gx.Chain(a=Leaf())).a.rule == "0"


def test_a_type_goes_before_the_default():
    @gx.dispatch
    def tag(layer):
        return layer if isinstance(layer, gx.Chain) else Tag("default")

    tag.register(Leaf, lambda layer: Tag("leaf"))
    model = tag(gx.Chain(a=Leaf(), b=Base(), c=jnp.sin))
    assert [layer.rule for layer in model] == ["leaf", "default", "default"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("encoder.0.query", "encoder[0].query"),
        ("encoder.*.query", "encoder.0.*"),
        ("query", "query"),
        (Leaf, Leaf),
        (re.compile(r".*query"), re.compile(r"encoder.*query")),
        (re.compile(r".*query"), "quer?"),
    ],
)
def test_of_equals_the_rule_registered_last_wins(one, other):
    assert tag_at(tagging(one, other)(nested()), "encoder.0.query") == "1"
    assert tag_at(tagging(other, one)(nested()), "encoder.0.query") == "1"


def test_a_compiled_expression_is_a_pattern_without_literal_components():
    rules = (re.compile(r"encoder\.0\..*"), "query", "encoder.*.value")
    model = tagging(*rules)(nested())
    assert tag_at(model, "encoder.0.query") == "0" and tag_at(model, "encoder.1.query") == "1"
    assert tag_at(model, "encoder.0.value") == "2"


def test_a_leading_dot_makes_a_label_a_full_path():
    model = gx.Chain(query=Leaf(), inner=gx.Chain(query=Leaf()))
    tagged = tagging(".query", "query")(model)
    assert tagged.query.rule == "0" and tagged.inner.query.rule == "1"


def test_the_empty_path_is_the_root():
    assert tagging("", gx.Chain)(nested()).rule == "0"


def test_register_is_a_decorator_and_gives_the_function_back():
    @gx.dispatch
    def tag(layer):
        """What it does."""
        return layer

    @tag.register("stem")
    def by_label(layer):
        return Tag("label")

    def by_type(layer):
        return Tag("type")

    assert tag.register(Leaf, by_type) is by_type
    assert by_label(None).rule == "label"
    assert tag.__doc__ == "What it does." and tag.__name__ == "tag"
    assert tag(nested()).stem.rule == "label"


def test_register_reads_the_type_from_the_annotation_as_singledispatch_does():
    @gx.dispatch
    def tag(layer):
        return layer

    @tag.register
    def _(layer: Leaf):
        return Tag("leaf")

    @tag.register
    def _(layer: Base | types.FunctionType):
        return Tag("several")

    model = tag(gx.Chain(a=Leaf(), b=Base(), c=lambda x: x))
    assert [layer.rule for layer in model] == ["leaf", "several", "several"]


@pytest.mark.parametrize("types", [(Middle, Tag), Middle | Tag])
def test_a_tuple_or_union_of_types_is_a_rule_for_each(types):
    model = tagging(types)(gx.Chain(a=Leaf(), b=Tag("b"), c=Base()))
    assert model.a.rule == model.b.rule == "0" and type(model.c) is Base


@pytest.mark.parametrize("criterion", [3, None, ("stem", "head"), ["stem"], (), (Leaf, 3), Leaf()])
def test_a_rule_registered_on_nonsense_is_refused_at_once(criterion):
    tag = tagging()
    message = (
        "^A rule is registered for a pattern, a compiled regular expression, a type or a tuple of"
    )
    with pytest.raises(TypeError, match=message):
        tag.register(criterion)
    with pytest.raises(TypeError, match=message):
        tag.register(criterion, lambda layer: layer)
    assert same_arrays(tag(nested()), nested())


def test_a_malformed_pattern_is_refused_at_once():
    with pytest.raises(gx.PatternError, match=r"never closed"):
        tagging().register("encoder[")


def test_a_rule_without_a_criterion_or_annotation_is_refused():
    with pytest.raises(
        TypeError, match=r"^<lambda> is registered without a criterion: annotate its first"
    ):
        tagging().register(lambda layer: layer)


def test_what_is_no_function_is_refused():
    with without_annotation_checks():
        with pytest.raises(TypeError, match=r"^A rule is a function of the layer; got 3.$"):
            tagging().register("stem", 3)
        with pytest.raises(
            TypeError, match=r"^The default of a dispatch is a function of the layer"
        ):
            gx.dispatch(3)
