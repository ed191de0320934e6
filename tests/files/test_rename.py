"""Rename rules: in order, at the borders of components, with captures."""

import pytest

import graftax as gx
from graftax.files.rename import Rename, any_template

CASES = [
    # rules, path, name
    ({}, "a.b.weight", "a.b.weight"),
    ({"a": "x"}, "a.b.weight", "x.b.weight"),
    ({"b": "x"}, "a.b.weight", "a.x.weight"),
    ({"a.b": "x"}, "a.b.weight", "x.weight"),
    ({"a": "x"}, "aa.a2.weight", "aa.a2.weight"),
    ({"a": "x"}, "ba.a.weight", "ba.x.weight"),
    ({"a": "x"}, "a.a.weight", "x.a.weight"),
    ({".b": "x"}, "a.b.weight", "a.b.weight"),
    ({".a": "x"}, "a.a.weight", "x.a.weight"),
    ({"a": "x", "x": "y"}, "a.weight", "y.weight"),
    ({"x": "y", "a": "x"}, "a.weight", "x.weight"),
    ({"": "module"}, "a.weight", "module.a.weight"),
    ({"a": "x", "": "m.n"}, "a.weight", "m.n.x.weight"),
    ({"a": ""}, "a.b.weight", "b.weight"),
    ({"b": ""}, "a.b.weight", "a.weight"),
    ({"e.{i}.q": "layer.{i}.self.q"}, "e.3.q.weight", "layer.3.self.q.weight"),
    ({"e.{i}.{p}": "{p}.{i}"}, "e.3.q.weight", "q.3.weight"),
    ({"e.{i}": "x.{i}"}, "e.3.4.weight", "x.3.4.weight"),
    ({"e.{i}": "x"}, "e", "e"),
    ({"stage{i}.{b}": "layer{i}.{b}"}, "stage2.0.conv", "layer2.0.conv"),
    ({"conv{k}": "c.{k}.conv"}, "a.conv1.weight", "a.c.1.conv.weight"),
    ({"a": r"x\1"}, "a.weight", r"x\1.weight"),
]


@pytest.mark.parametrize(("rules", "path", "name"), CASES)
def test_a_path_is_renamed(rules, path, name):
    assert Rename(rules)(path).name == name


def test_the_layout_of_the_rule_that_fits_goes_along():
    layout = gx.Layout("c.{i}", transpose=True, part=1, of=3)
    rename = Rename({"a.{i}": layout, "b": "c"})
    assert rename("a.2.weight").name == "c.2.weight"
    assert rename("a.2.weight").layout == layout
    assert rename("b.weight").layout is None


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"a.{i}": "b.{j}"}, r"\{j\}"),
        ({"a.{i}.{i}": "b"}, "used once"),
        ({"a.{1}": "b"}, "name in braces"),
        ({"a.{}": "b"}, "name in braces"),
    ],
)
def test_a_malformed_rule_points_at_the_place(rules, message):
    with pytest.raises(gx.PatternError, match=message) as error:
        Rename(rules)
    assert "^" in str(error.value)


def test_names_to_ignore_are_found_at_the_borders_of_components():
    ignored = any_template(["attn.bias", "position_ids", "h.{i}.mask"])
    assert ignored("h.0.attn.bias") and ignored("embeddings.position_ids") and ignored("h.3.mask")
    assert not ignored("h.0.xattn.bias") and not ignored("h.0.attn.bias2")
    assert not any_template([])("anything")
