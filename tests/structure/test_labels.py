"""How containers take their children, and what they refuse."""

import collections
import functools
import inspect
import keyword
import types
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, strategies as st

import graftax as gx
from common_containers import AWKWARD_LABELS, Affine, Stem, double, increment, linear, square

MAKERS = {
    "Chain": gx.Chain,
    "Parallel": gx.Parallel,
    "SkipConnection": gx.SkipConnection,
    "PairwiseFusion": gx.PairwiseFusion,
    "Repeat": gx.Repeat,
    "branch": functools.partial(gx.branch, tuple),
}
each_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
CONTAINERS = (gx.Chain, gx.Parallel, gx.SkipConnection, gx.PairwiseFusion, gx.Repeat)


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


# --- Children ---


class Callable:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x

    def method(self, x):
        return self.factor * x


CALLABLES = {
    "lambda": lambda x: 2 * x,
    "function": double,
    "partial": functools.partial(lambda factor, x: factor * x, 2),
    "bound method": Callable(2).method,
    "instance with __call__": Callable(2),
    "equinox layer": Affine(2),
    "container": gx.Chain(twice=double),
    "wrapper": gx.Vmap(double),
    "jax.jit": jax.jit(double),
    "eqx.filter_jit": eqx.filter_jit(double),
    "jax.vmap": jax.vmap(double),
    "jax.tree_util.Partial": jax.tree_util.Partial(double),
    "eqx.nn.Lambda": eqx.nn.Lambda(double),
    "eqx.nn.Sequential": eqx.nn.Sequential([eqx.nn.Lambda(double)]),
}


@each_maker
@pytest.mark.parametrize("child", CALLABLES.values(), ids=CALLABLES.keys())
def test_a_child_is_any_callable_as_it_is(make, child):
    m = make(twice=child)
    assert m.twice is m[0] is child
    x = jnp.arange(3.0)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), m(x), make(double)(x)))


@pytest.mark.parametrize("act", [jax.nn.relu, jax.nn.gelu, jnp.tanh, jax.nn.silu, abs])
def test_an_activation_is_a_child_without_a_wrapper(act):
    x = jnp.linspace(-1, 1, 5)
    assert (gx.Chain(act=act)(x) == act(x)).all()


def test_a_class_is_a_callable_and_so_a_child():
    assert gx.Chain(make=list)((1, 2)) == [1, 2]


@each_maker
@pytest.mark.parametrize(
    ("child", "printed"),
    [(3, "3 of type int"), (None, "None of type NoneType"), ("relu", "'relu' of type str")],
)
def test_a_child_that_is_no_callable_is_refused_by_its_label(make, child, printed):
    owner = "Parallel" if isinstance(make, functools.partial) else make.__name__
    with pytest.raises(TypeError) as caught:
        make(stem=child)
    assert str(caught.value) == (
        f"Layer 'stem' of {owner} must be callable, as every Equinox layer and function is; got "
        f"{printed}."
    )
    with pytest.raises(TypeError, match=f"^Layer 0 of {owner} must be callable"):
        make([child])


@pytest.mark.parametrize(
    "make",
    [
        lambda bad: gx.Chain(double, bad),
        lambda bad: gx.Chain([double, bad]),
        lambda bad: gx.Chain((double, bad)),
    ],
)
def test_a_child_that_is_no_callable_is_refused_by_its_position(make):
    with pytest.raises(
        TypeError, match=r"^Layer 1 of Chain must be callable, .* of type ArrayImpl"
    ):
        make(jnp.ones(2))


def test_a_child_that_is_no_callable_is_refused_in_a_named_tuple_and_a_mapping():
    for given_as in (Stem(double, 4), {"conv": double, "norm": 4}):  # pyright: ignore
        with pytest.raises(TypeError, match=r"^Layer 'norm' of Chain must be callable"):
            gx.Chain(given_as)


def test_a_generator_two_lists_or_two_mappings_are_no_children():
    for bad in ((double for _ in range(2)), {double}, range(2)):
        with pytest.raises(TypeError, match=r"^Layer 0 of Chain must be callable"):
            gx.Chain(bad)
    for pair in (([double], [square]), ({"a": double}, {"b": square})):
        with pytest.raises(TypeError, match=r"^Layer 0 of Chain must be callable"):
            gx.Chain(*pair)


def test_a_subclass_is_named_in_the_message():
    class Bottleneck(gx.SkipConnection):
        """A block."""

    with pytest.raises(TypeError, match=r"^Layer 'conv' of Bottleneck must be callable"):
        Bottleneck(conv=3)
    with pytest.raises(ValueError, match="cannot be a label in Bottleneck"):
        Bottleneck({"in": double})


def test_children_are_shared_never_copied():
    layer = linear(2, 2)
    assert gx.Chain(layer, layer)[0] is gx.Chain(a=layer).a is layer
