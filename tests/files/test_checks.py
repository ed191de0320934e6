"""What a node must be is what its constructor asks for; a hole may stand anywhere."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_files import linear, models
from graftax.files.checks import fault, levels
from graftax.paths.tree import shallow_copy


def walked(model):
    return [node for _, node in gx.walk(model) if isinstance(node, eqx.Module)]


@pytest.mark.parametrize("name", models())
def test_no_model_has_a_fault(name):
    model = models()[name]
    for tree in (model, *eqx.partition(model, eqx.is_array), jax.tree.map(lambda _: None, model)):
        assert [fault(node) for node in walked(tree) if fault(node)] == []


BROKEN = {
    "text": (shallow_copy(linear(2, 2), weight="x"), "weight of Linear is the text 'x'"),
    "bytes": (shallow_copy(linear(2, 2), bias=b"x"), "bias of Linear is the text"),
    "times": (shallow_copy(gx.Repeat(abs, 2), times=-1), "negative"),
    "child": (shallow_copy(gx.Chain(a=abs), layers=(3,)), "layer 0 of Chain must be callable"),
    "held": (
        shallow_copy(gx.Remat(abs), layer=jnp.ones(1)),
        "layer 'layer' of Remat must be callable",
    ),
    "op": (shallow_copy(gx.Parallel(abs, op=sum), op=1), "op of Parallel must be callable"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_is_named(name):
    node, message = BROKEN[name]
    assert message in fault(node)


def test_text_may_stand_where_text_is_declared():
    conv = eqx.nn.Conv2d(1, 1, 3, padding="SAME", padding_mode="REFLECT", key=jax.random.key(0))
    assert fault(conv) is None
    scalar = eqx.nn.Linear("scalar", 2, key=jax.random.key(0))
    assert fault(scalar) is None


def test_a_container_is_two_levels_to_jax():
    node = gx.Chain(a=gx.Chain())
    assert jax.tree.structure(node).num_nodes == 4
    assert (levels(True), levels(False)) == (2, 1)
