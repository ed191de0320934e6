"""One level of a tree: what is a node, what are its children, and the node with others."""

import functools
from collections import OrderedDict
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest
from hypothesis import given, settings

import graftax as gx
from common_trees import Box, Dot, Gain, Pair, Row, trees
from graftax.paths.tree import (
    any_type,
    kind_of,
    level_of,
    map_children,
    nodes_of,
    replaced,
)

LEAVES = [
    *(1, 1.0, 1j, True, "a", b"a", None, int, ..., object(), abs, len, lambda: 0, "".join),
    *(np.ones(2), np.float32(1), jnp.ones(2), jax.random.key(0), jnp.float32, np.dtype("int8")),
    *(
        jax.nn.relu,
        jnp.tanh,
        jax.jit(abs),
        functools.partial(abs, 1),
        frozenset(),
        range(3),
        {1, 2},
    ),
    jax.ShapeDtypeStruct((2,), jnp.float32),
]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: type(leaf).__name__)
def test_a_leaf_has_no_children_and_stays_itself(leaf: Any):
    assert kind_of(leaf) is None
    assert tuple(level_of(leaf).children) == ()
    assert replaced(leaf, {}) is leaf
    assert map_children(lambda child: 0, leaf) is leaf


def test_a_tracer_is_a_leaf():
    kinds = []
    jax.eval_shape(lambda x: kinds.append(kind_of(x)) or x, 1.0)
    assert kinds == [None]


class Words(str):
    """A leaf of a class that may yet be told of to JAX."""


class Late:
    def __init__(self, child: Any):
        self.child = child


def test_a_class_that_is_registered_after_it_was_asked_about_is_a_node_from_then_on():
    late = Late(1.0)
    assert kind_of(late) is None and kind_of(Words("a")) is None
    jtu.register_pytree_node(Late, lambda late: ((late.child,), None), lambda _, new: Late(*new))
    assert level_of(late).children == [1.0]
    assert replaced(late, {0: 2.0}).child == 2.0 and late.child == 1.0


class Fields(NamedTuple):
    a: Any
    b: Any


@pytest.mark.parametrize(
    "node, keys, children, positions",
    [
        ([1, 2], [0, 1], [1, 2], 2),
        ((1, None), [0, 1], [1, None], 2),
        (Fields(1, 2), ["a", "b"], [1, 2], 2),
        ({"b": 1, "a": 2}, ["a", "b"], [2, 1], 0),
        (OrderedDict(b=1, a=2), ["b", "a"], [1, 2], 0),
        (Box(1, 2), ["a", "layers"], [1, 2], 0),
        (Row(1, 2), [0, 1], [1, 2], 2),
        (gx.Chain(a=abs), ["a"], [abs], 1),
        (jtu.Partial(abs, 1, b=2), [0, 1], [(1,), {"b": 2}], 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_level_holds_keys_children_and_how_many_have_a_position(node, keys, children, positions):
    level = level_of(node)
    assert (list(level.keys), list(level.children), level.positions) == (keys, children, positions)


@settings(max_examples=100)
@given(trees)
def test_the_node_with_its_own_children_is_the_node(plan):
    for _, node in nodes_of(plan()):
        level = level_of(node)
        again = replaced(node, dict(enumerate(level.children)))
        assert type(again) is type(node)
        assert list(map(id, level_of(again).children)) == list(map(id, level.children))
        assert map_children(lambda child: child, node) is node


@settings(max_examples=100)
@given(trees)
def test_leaves_changed_one_level_at_a_time_are_changed_as_by_jax(plan):
    tree = plan()

    def changed(node: Any) -> Any:
        return (node,) if kind_of(node) is None else map_children(changed, node)

    wanted = jax.tree.map(lambda leaf: (leaf,), tree)
    new = changed(tree)
    assert jax.tree.structure(new) == jax.tree.structure(wanted)
    assert list(map(id, jax.tree.leaves(new))) == list(map(id, jax.tree.leaves(tree)))


@settings(max_examples=50)
@given(trees)
def test_every_node_comes_with_an_address_that_leads_to_it(plan):
    tree = plan()
    for address, node in nodes_of(tree):
        at = tree
        for i in address:
            at = level_of(at).children[i]
        assert at is node


def test_a_type_is_found_wherever_it_stands():
    tree = gx.Remat(gx.Chain(a=Gain(abs, gain=Pair(1, [Dot()]))))
    for cls in (gx.Remat, gx.Chain, Gain, Pair, list, Dot, int):
        assert any_type(tree, lambda other, cls=cls: other is cls)
    assert not any_type(tree, lambda other: issubclass(other, eqx.nn.Linear))
