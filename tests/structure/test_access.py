"""Reaching into a container: attributes, labels, positions, slices; and what is not there."""

import dataclasses
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_containers import (
    Affine,
    Bottleneck,
    build,
    containers,
    double,
    evaluate,
    increment,
    linear,
    square,
)


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


# --- What is not there ---


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (
            three,
            "stm",
            "Chain has no attribute 'stm' and no layer of this label. Its labels are: stem, body, "
            "head. Did you mean 'stem'?",
        ),
        (
            three,
            "xyzzy",
            "Chain has no attribute 'xyzzy' and no layer of this label. Its labels are: stem, body, "
            "head.",
        ),
        (
            lambda: gx.Chain(double),
            "stem",
            "Chain has no attribute 'stem' and no layer of this label. Its labels are: none.",
        ),
        (
            lambda: Bottleneck(conv=double),
            "cov",
            "Bottleneck has no attribute 'cov' and no layer of this label. Its labels are: conv. "
            "Did you mean 'conv'?",
        ),
        (
            lambda: gx.Chain({f"layer{i}": double for i in range(20)}),
            "layer33",
            "Chain has no attribute 'layer33' and no layer of this label. Its labels are: layer0, "
            "layer1, layer2, layer3, layer4, layer5, layer6, layer7, layer8, layer9, layer10, "
            "layer11, and 8 more. Did you mean 'layer3'?",
        ),
        (three, "_private", "Chain has no attribute '_private'"),
        (three, "__array__", "Chain has no attribute '__array__'"),
    ],
)
def test_an_unknown_attribute_names_the_labels_and_the_nearest(make, name, message):
    m = make()
    with pytest.raises(AttributeError) as caught:
        getattr(m, name)
    assert str(caught.value) == message
    assert caught.value.name == name and caught.value.obj is m
    assert not hasattr(m, name) and getattr(m, name, None) is None


@pytest.mark.parametrize(
    "index",
    ["stm", slice("stm", None), slice(None, "stm"), ["body", "stm"], ("stm", "body")],
    ids=str,
)
def test_an_unknown_label_names_the_labels_and_the_nearest(index):
    with pytest.raises(KeyError) as caught:
        three()[index]
    assert str(caught.value) == (
        "Chain has no layer 'stm'. Its labels are: stem, body, head. Did you mean 'stem'?"
    )


def test_an_unknown_label_without_a_near_one_makes_no_guess():
    with pytest.raises(KeyError) as caught:
        three()["xyzzy"]
    assert str(caught.value) == "Chain has no layer 'xyzzy'. Its labels are: stem, body, head."
    with pytest.raises(KeyError) as caught:
        gx.Parallel(double)["stem":]
    assert str(caught.value) == "Parallel has no layer 'stem'. Its labels are: none."


@pytest.mark.parametrize("index", [3, -4, 100, [0, 3], np.int64(7)], ids=str)
def test_an_unknown_position_says_how_many_there_are(index):
    wrong = index[-1] if isinstance(index, list) else index
    with pytest.raises(IndexError) as caught:
        three()[index]
    assert str(caught.value) == f"Chain has 3 layers: there is no position {wrong}."


def test_the_empty_chain_has_no_position_0():
    for index in (0, -1):
        with pytest.raises(IndexError, match=f"^Chain has 0 layers: there is no position {index}"):
            gx.Chain()[index]


@pytest.mark.parametrize("index", [None, 1.5, double, {"stem"}, b"stem", [1.5], [None]], ids=str)
def test_anything_else_is_no_index(index):
    wrong = index[0] if isinstance(index, list) else index
    with pytest.raises(TypeError) as caught:
        three()[index]
    assert str(caught.value) == (
        f"Chain is indexed by label, position, slice or a list of these, not by {wrong!r}."
    )


def test_a_slice_steps_by_integers_as_slices_do():
    for step in ("body", 1.5):
        with pytest.raises(TypeError, match="slice indices must be integers or None"):
            three()[::step]
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        three()[::0]
    with pytest.raises(TypeError, match="slice indices must be integers or None"):
        three()[1.5:]


def test_a_slice_that_its_class_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"^Parallel needs at least one branch; it got none"):
        gx.Parallel(a=double)[1:]
    with pytest.raises(ValueError, match=r"^PairwiseFusion needs at least one layer; it got none"):
        gx.PairwiseFusion(a=double)[:0]
    with pytest.raises(ValueError, match=r"^Repeat takes one layer; it got 0"):
        gx.Repeat(a=double, times=2)[:0]


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


# --- Laws ---


@given(containers(), st.data())
@settings(max_examples=100)
def test_law_of_indices(spec, data):
    m = build(spec)
    everything = tuple(m)
    assert len(m) == len(everything) == len(m.items())
    assert m.labels == () or tuple(label for label, _ in m.items()) == m.labels
    for i, (key, layer) in enumerate(m.items()):
        assert m[i] is m[i - len(m)] is m[key] is layer is everything[i]
        if m.labels:
            assert getattr(m, key) is layer and key in m and key in dir(m)
    i = data.draw(st.integers(-9, 9))
    if -len(m) <= i < len(m):
        assert m[i] is everything[i]
    else:
        with pytest.raises(IndexError):
            m[i]


@given(containers(), st.data())
@settings(max_examples=150)
def test_law_of_slices(spec, data):
    m = build(spec)
    bound = st.none() | st.integers(-6, 6)
    if m.labels:
        bound = bound | st.sampled_from(m.labels)
    start, stop = data.draw(bound), data.draw(bound)
    step = data.draw(st.none() | st.integers(-3, 3).filter(bool))
    as_int = [m.labels.index(b) if isinstance(b, str) else b for b in (start, stop)]
    items = m.items()[slice(*as_int, step)]
    least = 1 if isinstance(m, (gx.Parallel, gx.Repeat)) else 0
    if len(items) < least:
        with pytest.raises(ValueError, match="it got"):
            m[start:stop:step]
        return
    part = m[start:stop:step]
    assert type(part) is type(m) and part.labels == tuple(k for k, _ in items if m.labels)
    assert tuple(part) == tuple(layer for _, layer in items)
    if m.labels:
        assert part.items() == items
    x = data.draw(st.integers(-3, 3))
    assert part(x) == evaluate(part, x)


@given(containers(), st.data())
@settings(max_examples=100)
def test_law_of_lists(spec, data):
    m = build(spec)
    chosen = data.draw(st.lists(st.sampled_from(range(len(m))), unique=True, min_size=1))
    if isinstance(m, gx.Repeat):
        chosen = [0]
    spelled = [data.draw(st.sampled_from([i, i - len(m), m.items()[i][0]])) for i in chosen]
    part = m[spelled]
    assert type(part) is type(m)
    assert tuple(part) == tuple(m[i] for i in chosen)
    assert part.labels == tuple(m.labels[i] for i in chosen if m.labels)


@given(st.lists(st.integers(-3, 3), max_size=6), st.integers(-1, 7), st.integers(-3, 3))
@settings(max_examples=100)
def test_a_chain_is_its_two_parts_one_after_the_other(scales, cut, x):
    m = gx.Chain({f"layer{i}": Affine(scale, i) for i, scale in enumerate(scales)})
    assert m(x) == m[cut:](m[:cut](x))
    assert gx.Chain(dict(m[:cut].items() + m[cut:].items())) == m
