"""How containers take their children, and the labels that are fine."""

import collections
import keyword
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, strategies as st

import graftax as gx
from common_containers import (
    AWKWARD_LABELS,
    Affine,
    Stem,
    double,
    each_maker,
    increment,
    linear,
    square,
)

# --- The forms ---


def test_all_positional_forms_are_one():
    forms = [gx.Chain(double, square), gx.Chain([double, square]), gx.Chain((double, square))]
    for m in forms:
        assert type(m.layers) is tuple
        assert m.layers == (double, square)
        assert m.labels == ()
        assert m.items() == ((0, double), (1, square))
        assert m(3) == 36
        assert jax.tree.structure(m) == jax.tree.structure(forms[0])


@pytest.mark.parametrize(
    "mapping",
    [
        {"up": double, "down": square},
        collections.OrderedDict(up=double, down=square),
        types.MappingProxyType({"up": double, "down": square}),
        collections.ChainMap({"up": double, "down": square}),
    ],
    ids=lambda mapping: type(mapping).__name__,
)
def test_a_mapping_is_the_keywords_it_spells(mapping):
    m, reference = gx.Chain(mapping), gx.Chain(**mapping)
    assert m.items() == reference.items() == tuple(mapping.items())
    assert type(m.layers) is type(reference.layers)
    assert jax.tree.structure(m) == jax.tree.structure(reference)
    assert m(3) == reference(3)


def test_a_mapping_is_copied_not_kept():
    mapping = {"up": double}
    m = gx.Chain(mapping)
    mapping["down"] = square
    assert m.labels == ("up",)


def test_a_named_tuple_is_kept_as_it_is():
    k1, k2 = jax.random.split(jax.random.key(0))
    stem = Stem(eqx.nn.Conv2d(1, 4, 3, padding=1, key=k1), eqx.nn.GroupNorm(2, 4))
    m = gx.Chain(stem)
    assert m.layers is stem
    assert m.layers.conv is m.conv is m["conv"] is m[0] is stem.conv
    assert m.labels == ("conv", "norm")
    image = jax.random.normal(k2, (1, 5, 5))
    assert (m(image) == stem.norm(stem.conv(image))).all()
    assert (m(image) == gx.Chain(conv=stem.conv, norm=stem.norm)(image)).all()


def test_a_named_tuple_survives_a_tree_map_and_its_slices_keep_the_labels():
    stem = Stem(eqx.nn.Conv2d(1, 4, 3, key=jax.random.key(0)), eqx.nn.GroupNorm(2, 4))
    m = gx.Chain(stem)
    mapped = jax.tree.map(lambda leaf: leaf, m)
    assert type(mapped.layers) is Stem
    assert jax.tree.structure(mapped) == jax.tree.structure(m)
    assert m["conv":"norm"].items() == m[:1].items() == (("conv", stem.conv),)
    assert m[1:].items() == (("norm", stem.norm),)
    assert m[["norm", "conv"]].labels == ("norm", "conv")
    assert type(m[:]) is gx.Chain and m[:].items() == m.items()
    assert m.replace_where("conv", lambda conv: square).layers == Stem(square, stem.norm)


@each_maker
def test_the_order_is_the_one_written_not_the_sorted_one(make):
    names = ("z",) if make is gx.Repeat else ("z", "a", "m")
    children = {name: Affine(i) for i, name in enumerate(names)}
    m = make(children)
    assert m.labels == names
    assert jax.tree.map(lambda leaf: leaf, m).items() == m.items()
    leaves = jax.tree.leaves(tuple(children.values()))
    assert jax.tree.leaves(m)[: len(leaves)] == leaves


def test_every_spelling_of_no_children_is_the_empty_chain():
    nothing = collections.namedtuple("Nothing", [])
    forms = [
        gx.Chain(),
        gx.Chain([]),
        gx.Chain(()),
        gx.Chain({}),
        gx.Chain(nothing()),
        gx.Chain(**{}),
    ]
    for m in forms:
        assert len(m) == 0 and m.labels == () and m.items() == ()
        assert m == forms[0] and jax.tree.structure(m) == jax.tree.structure(forms[0])
        assert gx.rebuild(m, {"added": double})(2) == 4


@each_maker
def test_one_child_by_position_by_label_and_in_a_list_compute_the_same(make):
    forms = [
        make(double),
        make([double]),
        make((double,)),
        make(only=double),
        make({"only": double}),
    ]
    assert len({repr(m(3)) for m in forms}) == 1
    assert [m.labels for m in forms] == [(), (), (), ("only",), ("only",)]


def test_labels_are_cached_so_that_equal_labels_give_one_class_and_one_structure():
    a, b = gx.Chain(up=linear(2, 3), act=jnp.tanh), gx.Chain(up=linear(2, 3, seed=1), act=jnp.tanh)
    assert type(a.layers) is type(b.layers)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert hash(jax.tree.structure(a)) == hash(jax.tree.structure(b))
    assert jax.tree.structure(a) != jax.tree.structure(gx.Chain(act=jnp.tanh, up=linear(2, 3)))
    assert jax.tree.structure(a) != jax.tree.structure(gx.Chain(up2=linear(2, 3), act=jnp.tanh))
    assert jax.tree.structure(a) != jax.tree.structure(gx.Chain(linear(2, 3), jnp.tanh))


def test_equal_labels_share_one_compilation():
    traced = []

    @eqx.filter_jit
    def run(m, x):
        traced.append(m.labels)
        return m(x)

    x = jnp.ones(2)
    for seed in range(3):
        run(gx.Chain(up=linear(2, 3, seed), act=jnp.tanh), x)
    assert traced == [("up", "act")]


def test_a_block_of_300_labels_works():
    m = gx.Chain({f"layer{i}": increment for i in range(300)})
    assert m(0) == 300 and len(m.labels) == 300 and m.layer299 is m[-1]


# --- Labels that are fine ---


@each_maker
@pytest.mark.parametrize("label", AWKWARD_LABELS)
def test_a_label_that_looks_like_an_argument_is_a_label(make, label):
    for m in (make(**{label: double}), make({label: double})):
        assert m.labels == (label,)
        assert getattr(m, label) is m[label] is m[0] is double
        assert label in m and label in dir(m)
        assert repr(m(3)) == repr(make(double)(3))
        mapped = jax.tree.map(lambda leaf: leaf, m)
        assert mapped.labels == (label,) and mapped == m
        assert m[:].labels == (label,)


def test_all_awkward_labels_live_in_one_chain_in_order():
    m = gx.Chain({label: Affine(1, i) for i, label in enumerate(AWKWARD_LABELS)})
    assert m(0) == sum(range(len(AWKWARD_LABELS)))
    assert [getattr(m, label).shift for label in m.labels] == list(range(len(AWKWARD_LABELS)))
    assert tuple(m) == m.layers
    by_keyword = gx.Chain(**dict(m.items()))
    assert by_keyword == m and by_keyword.labels == m.labels


@each_maker
def test_the_label_cls_keeps_its_place_among_the_others(make):
    names = ("cls",) if make is gx.Repeat else ("a", "cls", "self", "b")
    assert make(**dict.fromkeys(names, double)).labels == names


def test_options_are_told_from_labels_when_a_label_is_cls():
    assert gx.Parallel(cls=double, self=square, op=lambda a, b: a - b, init=100)(3) == 100 - 6 - 9
    assert gx.SkipConnection(cls=double, op=lambda y, x: y - x, shortcut=square)(5) == 10 - 25
    assert gx.Repeat(cls=double, times=4)(1) == 16
    assert gx.PairwiseFusion(cls=double, self=double, op=lambda a, b: a * b)((1, 5)) == (2, 20)


def test_a_subclass_passes_on_labels_of_every_name():
    class Doubled(gx.Chain):
        def __init__(self, first, **labelled):
            super().__init__(first=first, **labelled)

    m = Doubled(double, cls=square, self_=increment)
    assert m.labels == ("first", "cls", "self_") and m(2) == 17


def test_names_of_options_of_other_containers_are_labels_where_they_mean_nothing():
    m = gx.Chain(times=double, init=square, shortcut=increment, execution=double)
    assert m(3) == 74 and m.shortcut is increment and m["times"] is double


@given(st.text(min_size=1, max_size=6))
def test_a_text_is_a_label_or_is_refused_by_name(text):
    try:
        m = gx.Chain({text: double})
    except ValueError as error:
        assert repr(text) in str(error)
    else:
        assert getattr(m, text) is double
        assert text.isidentifier() and not keyword.iskeyword(text) and not text.startswith("_")
        assert eval(f"m.{text}", {"m": m}) is double
