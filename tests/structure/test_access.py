"""Reaching into a container: attributes, labels, positions, slices."""

import dataclasses
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_containers import Bottleneck, double, increment, linear, square


def subtract(a, b):
    return a - b


def three():
    return gx.Chain(stem=double, body=square, head=increment)


# --- One name for one thing ---


def test_attribute_label_and_position_are_the_same_layer():
    m = gx.Chain(stem=linear(2, 3), body=jnp.tanh, head=linear(3, 2))
    for i, label in enumerate(("stem", "body", "head")):
        assert getattr(m, label) is m[label] is m[i] is m[i - 3] is m.layers[i] is tuple(m)[i]
        assert label in m
    assert m.labels == ("stem", "body", "head")
    assert m.items() == (("stem", m.stem), ("body", m.body), ("head", m.head))
    assert len(m) == 3 and list(m) == [m.stem, m.body, m.head]


def test_without_labels_there_are_positions_only():
    m = gx.Chain(double, square)
    assert m.labels == () and m.items() == ((0, double), (1, square))
    assert m[0] is m[-2] is double and len(m) == 2
    assert "0" not in m and 0 not in m and double not in m


@pytest.mark.parametrize("index", [1, -2, np.int32(1), np.array(1), jnp.array(1), "body"])
def test_any_integer_is_a_position(index):
    assert three()[index] is square


def test_access_chains_through_nested_containers():
    m = gx.Chain(
        encoder=gx.Chain(gx.SkipConnection(attention=gx.Parallel(query=double, value=square)))
    )
    assert m.encoder[0].attention.query is m["encoder"][0]["attention"]["query"] is double
    assert m[0][0][0][1] is square


def test_access_works_on_tracers_and_on_holes():
    m = gx.Chain(stem=linear(2, 2), act=jnp.tanh)

    @jax.jit
    def first_row(arrays):
        return eqx.combine(arrays, rest).stem.weight[0] + arrays["stem"].weight[0]

    arrays, rest = eqx.partition(m, eqx.is_array)
    assert (first_row(arrays) == 2 * m.stem.weight[0]).all()
    assert arrays.act is arrays["act"] is arrays[1] is None
    assert rest.stem.weight is None and rest.act is jnp.tanh
    assert arrays["act":].items() == (("act", None),)


def test_tab_completion_lists_labels_and_methods():
    m = gx.Parallel(query=double, value=square)
    assert {"query", "value", "labels", "items", "replace_where", "op"} <= set(dir(m))
    assert "query" not in dir(gx.Parallel(double))


# --- Slices ---


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 3), ("body", "head")),
        (slice(None), ("stem", "body", "head")),
        (slice(-1, None), ("head",)),
        (slice(None, -1), ("stem", "body")),
        (slice(None, None, 2), ("stem", "head")),
        (slice(None, None, -1), ("head", "body", "stem")),
        (slice(5, 9), ()),
        (slice(2, 1), ()),
        (slice("stem", "head"), ("stem", "body")),
        (slice("body", None), ("body", "head")),
        (slice(None, "body"), ("stem",)),
        (slice("head", "stem"), ()),
        (slice("stem", "stem"), ()),
        (slice("head", None, -1), ("head", "body", "stem")),
        (slice("stem", -1), ("stem", "body")),
        (slice(1, "head"), ("body",)),
        (["stem", "head"], ("stem", "head")),
        (["head", "stem"], ("head", "stem")),
        ([0, -1], ("stem", "head")),
        (["body", 2], ("body", "head")),
        (("stem", "body"), ("stem", "body")),
        ([], ()),
    ],
    ids=str,
)
def test_slices_and_lists_are_half_open_and_keep_the_labels(index, expected):
    m = three()
    part = m[index]
    assert type(part) is gx.Chain
    assert part.items() == tuple((label, m[label]) for label in expected)


def test_slices_compute_what_their_children_do():
    m = three()
    assert m[1:](3) == 10 and m[:"head"](3) == 36 and m["body":"head"](3) == 9
    assert m[["head", "stem"]](3) == 8 and m[::-1](3) == 32 and m[3:](3) == 3


def test_slices_keep_class_op_and_every_other_field():
    p = gx.Parallel(a=double, b=square, c=increment, op=subtract, init=100)
    assert type(p[:2]) is gx.Parallel and p[:2].op is subtract and p[:2].init == 100
    assert p[:2](3) == 100 - 6 - 9 and p["b":](3) == 100 - 9 - 4

    s = gx.SkipConnection(a=double, b=square, op=subtract, shortcut=increment)
    assert s[:1].op is subtract and s[:1].shortcut is increment
    assert s[:1](3) == 6 - 4 and s[:0](3) == 3 - 4

    f = gx.PairwiseFusion(a=double, b=square, op=operator.mul)
    assert f[1:].op is operator.mul and f[::-1].labels == ("b", "a")

    r = gx.Repeat(a=double, times=5)
    assert r[:].times == 5 and r[["a"]](1) == 32

    b = gx.branch(subtract, double, double, double, execution="scan")
    assert b[:2].execution == "scan" and b[:2].op is subtract and int(b[:2](3)) == 0


def test_slices_keep_a_class_of_ones_own_and_its_fields():
    class Scaled(gx.Chain):
        factor: float

        def __init__(self, factor, **labelled):
            super().__init__(**labelled)
            self.factor = factor

        def __call__(self, x, **context):
            return self.factor * super().__call__(x, **context)

    m = Scaled(10, a=double, b=increment)
    assert type(m[1:]) is Scaled and m[1:].labels == ("b",) and m[1:].factor == 10
    assert m[1:](3) == 40 and m(3) == 70
    assert type(Bottleneck(a=double, b=square)["a":"b"]) is Bottleneck


def test_a_slice_shares_its_layers_and_leaves_the_model_alone():
    m = gx.Chain(stem=linear(2, 2), head=linear(2, 2))
    before = jax.tree.leaves(m)
    assert m[:1].stem is m.stem
    assert all(a is b for a, b in zip(jax.tree.leaves(m), before, strict=True)) and len(m) == 2


def test_shortcut_is_a_labelled_child():
    m = gx.SkipConnection(a=double, shortcut=square)
    assert m.shortcut is m["shortcut"] is square and "shortcut" in m
    plain = gx.SkipConnection(a=double)
    assert plain.shortcut is None and "shortcut" not in plain
    with pytest.raises(KeyError, match="SkipConnection has no layer 'shortcut'"):
        plain["shortcut"]


# --- Values ---


@pytest.mark.parametrize("name", ["stem", "layers", "labels", "new"])
def test_a_container_is_immutable(name):
    m = three()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(m, name, double)
    with pytest.raises(TypeError, match="does not support item assignment"):
        m[name] = double
    assert m.items() == three().items()


def test_a_container_is_true_even_if_empty():
    assert gx.Chain() and three() and gx.SkipConnection()
