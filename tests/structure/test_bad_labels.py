"""Labels that are refused, each with the reason, and mixtures of labels and positions."""

import collections
import functools
import inspect
from typing import NamedTuple

import pytest

import graftax as gx
from common_containers import CONTAINERS, double, each_maker, increment, square

# --- Labels that are refused ---


@each_maker
@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("class", "it is a Python keyword"),
        ("None", "it is a Python keyword"),
        ("lambda", "it is a Python keyword"),
        ("_hidden", "it starts with '_'"),
        ("__call__", "it starts with '_'"),
        ("_", "it starts with '_'"),
        ("my layer", "it is not a Python identifier"),
        ("a.b", "it is not a Python identifier"),
        ("0", "it is not a Python identifier"),
        ("3d", "it is not a Python identifier"),
        ("conv-1", "it is not a Python identifier"),
        ("", "it is not a Python identifier"),
        (3, "it is of type int, not a string"),
        (None, "it is of type NoneType, not a string"),
        (("a", "b"), "it is of type tuple, not a string"),
        ("ﬁlter", "Python reads it as 'filter'"),
        ("op", "it is how Parallel and SkipConnection combine"),
        ("inference", "Equinox sets every attribute of this name in eqx.nn.inference_mode"),
    ],
)
def test_a_bad_label_is_refused_with_the_reason(make, label, reason):
    with pytest.raises(ValueError) as caught:
        make({label: double})
    owner = "Parallel" if isinstance(make, functools.partial) else make.__name__
    assert str(caught.value) == f"{label!r} cannot be a label in {owner}: {reason}."


def public_attributes(cls):
    options = set(inspect.signature(cls).parameters)
    return sorted(name for name in dir(cls) if not name.startswith("_") and name not in options)


@pytest.mark.parametrize("cls", CONTAINERS)
def test_a_label_that_hides_an_attribute_of_the_class_is_refused(cls):
    names = public_attributes(cls)
    assert {"layers", "labels", "items", "is_stateful", "replace_where"} <= {*names, "layers"}
    for name in {*names, "layers"} - {"op"}:
        with pytest.raises(ValueError) as caught:
            cls({name: double})
        reason = f"{cls.__name__}.{name} is an attribute of the class"
        assert str(caught.value) == f"{name!r} cannot be a label in {cls.__name__}: {reason}."


@pytest.mark.parametrize(
    ("cls", "option"),
    [
        (gx.Parallel, "init"),
        (gx.Parallel, "execution"),
        (gx.SkipConnection, "shortcut"),
        (gx.Repeat, "times"),
    ],
)
def test_a_field_of_the_class_is_no_label_even_in_a_mapping(cls, option):
    with pytest.raises(ValueError, match=f"'{option}' cannot be a label in {cls.__name__}: "):
        cls({option: double})


def test_what_a_subclass_defines_is_reserved_too():
    class Block(gx.Chain):
        width: int = 3

        def describe(self):
            return self.width

        @property
        def area(self):
            return self.width**2

    for name in ("width", "describe", "area"):
        with pytest.raises(ValueError, match=f"Block.{name} is an attribute of the class"):
            Block({name: double})
    assert gx.Chain(width=double, describe=square, area=increment)(3) == 37


def test_one_bad_label_among_good_ones_is_the_one_named():
    with pytest.raises(ValueError, match="'_b' cannot be a label in Chain: it starts with '_'"):
        gx.Chain({"a": double, "_b": square, "c": increment})


def test_a_named_tuple_with_a_reserved_label_is_refused():
    class Bad(NamedTuple):
        stem: object
        items: object

    with pytest.raises(
        ValueError, match=r"'items' cannot be a label in Chain: Chain\.items is an "
    ):
        gx.Chain(Bad(double, square))
    renamed = collections.namedtuple("Renamed", ["a", "a"], rename=True)
    with pytest.raises(ValueError, match="'_1' cannot be a label in Chain: it starts with '_'"):
        gx.Chain(renamed(double, square))


def test_a_label_used_twice_is_refused():
    m = gx.Chain(a=double, b=square)
    with pytest.raises(ValueError, match="'a' cannot be a label in Chain: it is used twice"):
        m[["a", "b", "a"]]
    with pytest.raises(ValueError, match="'a' cannot be a label in Chain: it is used twice"):
        gx.select(m, "b").rename("a")
    with pytest.raises(ValueError, match="'b' cannot be a label in Chain: it is used twice"):
        gx.select(m, "a").insert_after(b=increment)
    with pytest.raises(TypeError, match="multiple values for keyword argument 'a'"):
        gx.Chain(**{"a": double}, **{"a": square})


# --- Mixtures ---


@each_maker
@pytest.mark.parametrize("label", ["body", "cls", "self"])
def test_positions_and_labels_do_not_mix(make, label):
    owner = "Parallel" if isinstance(make, functools.partial) else make.__name__
    expected = (
        f"{owner} takes its layers by position or by label, not both: got 1 by position and "
        f"{label} by label."
    )
    for first in (double, {"stem": double}, [double]):
        with pytest.raises(TypeError) as caught:
            make(first, **{label: square})
        assert str(caught.value) == expected


def test_a_mixture_in_a_rebuilt_container_is_refused_too():
    with pytest.raises(ValueError, match=r"by position or by label, not both: a would be labelled"):
        gx.rebuild(gx.Chain(), {"a": double, 1: square})
