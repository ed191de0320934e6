"""`search` and `search_all`: which nodes, and where they stand."""

import equinox as eqx
import jax
from hypothesis import given, settings

import graftax as gx
from common_trees import trees
from graftax.paths.edit import at
from graftax.paths.parse import parse
from graftax.paths.search import search, search_all


@settings(max_examples=50)
@given(trees)
def test_everything_is_what_walk_yields(plan):
    tree = plan()
    found = search_all(tree, lambda node: True)
    assert [(match.path, id(match.node)) for match in found] == [
        (path, id(node)) for path, node in gx.walk(tree)
    ]


@settings(max_examples=50)
@given(trees)
def test_an_address_leads_to_its_node_and_is_in_order(plan):
    tree = plan()
    found = search_all(tree, eqx.is_array)
    assert all(at(tree, match.address) is match.node for match in found)
    assert [match.address for match in found] == sorted(match.address for match in found)
    assert len(found) == sum(eqx.is_array(node) for _, node in gx.walk(tree))


def test_the_outermost_that_passes_stands_for_a_path():
    inner = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    tree = gx.Chain(a=gx.Remat(inner))
    assert [
        m.node for m in search_all(tree, lambda node: isinstance(node, gx.Remat | eqx.nn.Linear))
    ] == [tree.layers.a]
    (found,) = search_all(tree, lambda node: isinstance(node, eqx.nn.Linear))
    assert found.node is inner and found.path == "a"


def test_all_tests_must_pass():
    tree = {"a": 1, "b": [2, 3]}
    odd, large = (lambda node: node in (1, 3)), (lambda node: node in (2, 3))
    assert [match.path for match in search(tree, None, [odd, large])] == ["b.1"]
    assert [match.path for match in search(tree, parse("a"), [odd])] == ["a"]
