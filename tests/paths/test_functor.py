"""`children` and `rebuild`: the one-level pair, and the laws it keeps."""

from collections import OrderedDict, defaultdict
from typing import Any

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings

import graftax as gx
from common_trees import Box, Dot, Gain, Pair, Place, Record, Row, places, trees


def linear(seed: int = 0) -> eqx.nn.Linear:
    return eqx.nn.Linear(2, 2, key=jax.random.key(seed))


def same(a: Any, b: Any) -> bool:
    """The same tree around the very same leaves."""
    alike = jax.tree.structure(a) == jax.tree.structure(b)
    return alike and all(
        x is y for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def every_node(tree: Any) -> list[Any]:
    return [node for _, node in gx.walk(tree)]


def below(node: Any) -> list[Place]:
    """The children of a node by the plainer account, what wrappers hold in their place."""
    found = [place for place in places(node) if len(place.trail) == 1 and not place.wrapped]
    # A field of a wrapper hides the child of its name inside, and comes last.
    return list({place.trail[0].key: place for place in found}.values())


# --- The laws, on random trees ---


@settings(max_examples=100)
@given(trees)
def test_children_are_those_of_the_definition_in_the_order_of_a_walk(plan):
    for node in every_node(plan()):
        found = gx.children(node)
        assert [(key, id(child)) for key, child in found.items()] == [
            (place.trail[0].key, id(place.node)) for place in below(node)
        ]


@settings(max_examples=100)
@given(trees)
def test_a_node_rebuilt_from_its_own_children_is_the_same(plan):
    for node in every_node(plan()):
        rebuilt = gx.rebuild(node, gx.children(node))
        assert type(rebuilt) is type(node)
        assert same(rebuilt, node)


@settings(max_examples=100)
@given(trees)
def test_the_children_of_a_rebuilt_node_are_those_it_was_given(plan):
    for node in every_node(plan()):
        new = {key: Dot() for key in gx.children(node)}
        before = dict(gx.children(node))
        rebuilt = gx.rebuild(node, new)
        assert gx.children(rebuilt) == new
        assert list(gx.children(rebuilt)) == list(before)
        # The old node is left as it is.
        assert list(map(id, gx.children(node).values())) == list(map(id, before.values()))


@settings(max_examples=60)
@given(trees, st.randoms(use_true_random=False))
def test_the_order_in_which_children_are_given_does_not_matter(plan, random):
    for node in every_node(plan()):
        items = list(gx.children(node).items())
        random.shuffle(items)
        assert same(gx.rebuild(node, dict(items)), node)


@settings(max_examples=60)
@given(trees)
def test_rebuilding_twice_is_rebuilding_with_the_last(plan):
    for node in every_node(plan()):
        first, last = ({key: Dot() for key in gx.children(node)} for _ in range(2))
        assert same(gx.rebuild(gx.rebuild(node, first), last), gx.rebuild(node, last))


def mapped(fn: Any, node: Any) -> Any:
    """`jax.tree.map`, from the pair."""
    if jtu.all_leaves([node]):
        return fn(node)
    return gx.rebuild(node, {key: mapped(fn, child) for key, child in gx.children(node).items()})


@settings(max_examples=60)
@given(trees)
def test_a_tree_map_is_a_few_lines_on_the_pair(plan):
    tree = plan()
    # What a wrapper holds has no key of its own, which leaves no way to a leaf or a hidden field.
    wrappers = [place.node for place in places(tree) if isinstance(place.node, gx.Wrapper)]
    assume(not any(isinstance(wrapper.layer, Dot | gx.Wrapper) for wrapper in wrappers))
    leaves = jax.tree.leaves(tree)
    fresh = dict(zip(map(id, leaves), [Dot() for _ in leaves], strict=True))
    renewed = lambda leaf: fresh[id(leaf)]
    assert same(mapped(renewed, tree), jax.tree.map(renewed, tree))


@settings(max_examples=60)
@given(trees, st.data())
def test_what_is_not_replaced_is_shared(plan, data):
    tree = plan()
    nodes = [node for node in every_node(tree) if gx.children(node)]
    assume(nodes)
    node = data.draw(st.sampled_from(nodes))
    children = gx.children(node)
    key = data.draw(st.sampled_from(list(children)))
    rebuilt = gx.rebuild(node, {**children, key: Dot()})
    for other, child in gx.children(rebuilt).items():
        assert (child is children[other]) is (other != key)


# --- Every kind of node ---

LEAVES = [1.0, "text", None, jax.nn.relu, np.ones(2), jnp.ones(2), object(), {1, 2}]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: type(leaf).__name__)
def test_a_leaf_has_no_children_and_is_its_own_rebuilding(leaf):
    assert gx.children(leaf) == {}
    assert gx.rebuild(leaf, {}) is leaf
    with pytest.raises(KeyError, match="unknown: \\['a'\\]"):
        gx.rebuild(leaf, {"a": 1.0})


EMPTY = [[], (), {}, OrderedDict(), gx.Chain(), optax.EmptyState(), jtu.Partial(abs)]


@pytest.mark.parametrize("node", EMPTY, ids=lambda node: type(node).__name__)
def test_a_node_of_no_leaves_is_rebuilt_too(node):
    rebuilt = gx.rebuild(node, gx.children(node))
    assert type(rebuilt) is type(node)
    assert jax.tree.structure(rebuilt) == jax.tree.structure(node)


def test_types_and_what_is_no_child_are_kept():
    counts = defaultdict(list, {"b": 1.0, "a": 2.0})
    rebuilt = gx.rebuild(counts, {"a": 3.0, "b": 4.0})
    assert type(rebuilt) is defaultdict
    assert rebuilt.default_factory is list
    assert list(rebuilt.items()) == [("b", 4.0), ("a", 3.0)]
    record = Record(1.0, None, size=7)
    assert gx.rebuild(record, {"a": 2.0}) == Record(2.0, None, size=7)
    box = Box(a=None, layers=1.0, size=7)
    assert gx.rebuild(box, {"layers": 2.0}).size == 7
    assert gx.rebuild(Pair(None, 1.0), {"b": 2.0}) == Pair(None, 2.0)
    assert gx.rebuild([1.0, None, 2.0], {0: 3.0, 2: 4.0}) == [3.0, None, 4.0]


def test_a_partial_is_rebuilt_around_its_arguments():
    partial = gx.rebuild(jtu.Partial(jnp.add, 1.0), {0: (3.0, 4.0), 1: {}})
    assert type(partial) is jtu.Partial
    assert partial() == 7.0


def test_static_fields_and_labels_of_a_container_are_kept():
    model = gx.SkipConnection(a=linear(), b=abs, op=max, shortcut=abs)
    rebuilt = gx.rebuild(model, {**gx.children(model), "b": jnp.tanh, "op": min})
    assert rebuilt.labels == ("a", "b")
    assert rebuilt.b is jnp.tanh and rebuilt.op is min
    assert rebuilt.a is model.a and rebuilt.shortcut is abs


class Bottleneck(gx.SkipConnection):
    """A block with a name."""


@pytest.mark.parametrize(
    "node",
    [
        gx.Chain(a=linear(), b=abs),
        gx.Parallel(linear(), abs, op=max),
        Bottleneck(a=linear(), shortcut=abs),
        gx.Repeat(abs, times=3),
        eqx.nn.MLP(2, 2, 2, depth=1, key=jax.random.key(0)),
        eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0)),
        optax.adam(1e-3).init({"w": jnp.ones(2)}),
        gx.Vmap(gx.Chain(a=linear())),
        gx.LoRA(linear(), rank=1, key=jax.random.key(0)),
    ],
    ids=lambda node: type(node).__name__,
)
def test_the_same_node_comes_back_and_new_children_stand_in_it(node):
    children = gx.children(node)
    rebuilt = gx.rebuild(node, children)
    assert type(rebuilt) is type(node)
    assert eqx.tree_equal(rebuilt, node)
    for key in children:
        marked = gx.rebuild(node, {**children, key: 5.0})
        assert gx.children(marked)[key] == 5.0
        assert [k for k, child in gx.children(marked).items() if child is not children[k]] == [key]


# --- Wrappers ---


def test_children_pass_through_wrappers_and_rebuilding_keeps_them():
    model = gx.Vmap(gx.Remat(gx.Chain(a=abs, b=linear())))
    assert gx.children(model) == {"a": abs, "b": model.b}
    rebuilt = gx.rebuild(model, {"a": jnp.tanh, "b": model.b})
    assert type(rebuilt) is gx.Vmap
    assert type(rebuilt.layer) is gx.Remat
    assert rebuilt.a is jnp.tanh
    assert rebuilt.b is model.b
    assert model.a is abs


def test_a_container_in_a_wrapper_is_rearranged_like_any_other():
    model = gx.Remat(gx.Chain(a=abs, b=jnp.tanh))
    longer = gx.rebuild(model, {"new": jnp.sin, **gx.children(model)})
    assert type(longer) is gx.Remat
    assert longer.labels == ("new", "a", "b")
    assert gx.rebuild(model, {"b": jnp.tanh}).labels == ("b",)


def test_a_wrapper_does_not_hide_a_child_of_what_it_wraps():
    inner = gx.Chain(gain=jnp.sin, b=abs)
    with pytest.raises(ValueError, match=r"Gain would hide 'gain' of the Chain it wraps"):
        Gain(inner, gain=2.0)


def test_a_wrapper_with_a_field_of_its_own_is_rebuilt_with_both_whatever_the_order_of_keys():
    model = gx.Chain(part=Gain(gx.Chain(a=abs, b=jnp.sin), gain=2.0)).part
    assert list(gx.children(model)) == ["a", "b", "gain"]
    rebuilt = gx.rebuild(model, {"gain": 5.0, "b": jnp.tanh, "a": jnp.cos})
    assert type(rebuilt) is Gain and type(rebuilt.layer) is gx.Chain
    assert (rebuilt.gain, rebuilt.layer.a, rebuilt.layer.b) == (5.0, jnp.cos, jnp.tanh)
    assert (model.gain, model.layer.a) == (2.0, abs)
    # More and fewer children are those of the chain, never of the wrapper.
    longer = gx.rebuild(model, {"a": abs, "new": jnp.exp, "b": jnp.sin, "gain": 2.0})
    assert longer.layer.labels == ("a", "new", "b") and longer.gain == 2.0


def test_a_wrapper_needs_its_own_fields():
    model = Gain(gx.Chain(b=abs), gain=2.0)
    with pytest.raises(KeyError, match=r"missing: \['gain'\]"):
        gx.rebuild(model, {"b": abs})


# --- Rearranging ---


def test_a_container_may_be_given_other_children():
    model = gx.Chain(stem=linear(), head=abs)
    longer = gx.rebuild(model, {"stem": model.stem, "body": jnp.tanh, "head": model.head})
    assert longer.labels == ("stem", "body", "head")
    assert longer.stem is model.stem
    assert gx.rebuild(model, {"head": abs}).labels == ("head",)
    assert len(gx.rebuild(model, {})) == 0
    x = jnp.ones(2)
    assert jnp.all(longer(x) == abs(jnp.tanh(model.stem(x))))


def test_a_container_keeps_its_options_when_rearranged():
    model = Bottleneck(a=linear(), op=max, shortcut=abs)
    children = gx.children(model)
    longer = gx.rebuild(model, {**children, "b": jnp.tanh})
    assert type(longer) is Bottleneck
    assert longer.labels == ("a", "b")
    assert longer.op is max and longer.shortcut is abs
    without = gx.rebuild(model, {"a": model.a, "op": max})
    assert without.shortcut is None
    assert without.op is max


def test_a_positional_container_may_grow_and_shrink():
    model = gx.Chain(abs, jnp.tanh)
    assert list(gx.rebuild(model, {0: abs, 1: jnp.sin, 2: jnp.tanh})) == [abs, jnp.sin, jnp.tanh]
    assert list(gx.rebuild(model, {1: jnp.tanh})) == [jnp.tanh]


def test_a_list_and_a_tuple_are_numbered_anew():
    assert gx.rebuild([1.0, 2.0, 3.0], {0: 1.0, 2: 3.0}) == [1.0, 3.0]
    assert gx.rebuild((1.0,), {0: 1.0, 1: 2.0}) == (1.0, 2.0)
    assert gx.rebuild([], {0: 1.0}) == [1.0]


def test_a_dict_may_be_given_other_keys():
    assert gx.rebuild({"a": 1.0}, {"b": 2.0, "a": 1.0}) == {"a": 1.0, "b": 2.0}
    assert gx.rebuild({"a": 1.0}, {}) == {}
    assert gx.rebuild({(0, 1): 1.0}, {(1, 2): 2.0}) == {(1, 2): 2.0}
    ordered = gx.rebuild(OrderedDict(b=1.0), {"c": 1.0, "a": 2.0})
    assert type(ordered) is OrderedDict
    assert list(ordered) == ["c", "a"]
    counts = gx.rebuild(defaultdict(list, a=1.0), {"b": 1.0})
    assert type(counts) is defaultdict and counts.default_factory is list


# --- Errors ---

WRONG = [
    (Pair(1.0, 2.0), {"a": 1.0}, "Pair has the children ['a', 'b']; unknown: [], missing: ['b']."),
    (
        Pair(1.0, 2.0),
        {"a": 1.0, "b": 2.0, "c": 3.0},
        "Pair has the children ['a', 'b']; unknown: ['c'], missing: [].",
    ),
    (
        linear(),
        {"wieght": 1.0, "bias": 2.0},
        "Linear has the children ['weight', 'bias']; unknown: ['wieght'], missing: ['weight']. "
        "Did you mean 'weight'?",
    ),
    (Row(1.0), {0: 1.0, 1: 2.0}, "Row has the children [0]; unknown: [1], missing: []."),
    (1.0, {0: 1.0}, "float has the children []; unknown: [0], missing: []."),
    ([1.0], {0.5: 1.0}, "list has the children [0]; unknown: [0.5], missing: [0]."),
    (
        gx.Vmap(linear()),
        {"weight": 1.0},
        "Linear has the children ['weight', 'bias']; unknown: [], missing: ['bias'].",
    ),
]


@pytest.mark.parametrize("node, children, message", WRONG, ids=lambda case: type(case).__name__)
def test_wrong_keys_are_named(node, children, message):
    with pytest.raises(KeyError) as caught:
        gx.rebuild(node, children)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "node, children, error, message",
    [
        ([1.0], {0: 1.0, "a": 2.0}, ValueError, "A list has positions, not labels: 'a'"),
        ((1.0,), {"a": 2.0}, ValueError, "A tuple has positions, not labels: 'a'"),
        (gx.Chain(a=abs), {"a": abs, 0: abs}, ValueError, "not both"),
        (gx.Chain(a=abs), {"a": abs, "for": abs}, ValueError, "'for' cannot be a label in Chain"),
        (gx.Chain(a=abs), {"a": abs, "layers": abs}, ValueError, "'layers' cannot be a label"),
        (gx.Parallel(a=abs), {"op": tuple}, ValueError, "at least one branch"),
    ],
)
def test_children_that_cannot_stand_in_a_node_are_refused(node, children, error, message):
    with pytest.raises(error, match=message):
        gx.rebuild(node, children)


def test_under_jit_and_grad_the_pair_is_a_pair():
    model = gx.Chain(stem=linear(0), head=linear(1))

    def doubled(model, x):
        stem = jax.tree.map(lambda leaf: 2 * leaf, model.stem)
        return jnp.sum(gx.rebuild(model, {**gx.children(model), "stem": stem})(x))

    x = jnp.array([1.0, -2.0])
    wanted = jnp.sum(model.head(2 * model.stem(x)))
    assert jnp.allclose(doubled(model, x), wanted, atol=1e-6)
    assert jnp.allclose(eqx.filter_jit(doubled)(model, x), wanted, atol=1e-6)
    gradient = eqx.filter_grad(doubled)(model, x)
    assert jnp.allclose(gradient.stem.bias, 2 * jnp.sum(model.head.weight, axis=0), atol=1e-6)
