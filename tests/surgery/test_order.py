"""Where layers stand in no order."""

import operator

import equinox as eqx
import jax.numpy as jnp
import pytest

import graftax as gx
from common_surgery import Bottleneck, labelled_model, mlp


@pytest.mark.parametrize("init", [None, 1.0])
def test_then_does_not_stand_inside_of_a_fold(init):
    branches = [lambda x: x] * (3 if init is None else 2)
    folded = gx.Chain(p=gx.Parallel(*branches, op=operator.add, init=init))
    with pytest.raises(
        ValueError, match=r"^'p\.op' is a function of two .* would run after each step"
    ):
        gx.select(folded, "op").then(neg=operator.neg)


def test_nothing_is_inserted_before_or_after_a_branch():
    model = labelled_model()
    message = (
        r"^'sides\.left' is a branch of a Parallel: .* none is before or after another\. "
        r"`\.then\(label=layer\)` puts a layer behind it\.$"
    )
    for method in ("insert_before", "insert_after"):
        with pytest.raises(ValueError, match=message):
            getattr(gx.select(model, "sides.left"), method)(new=jnp.sin)
        wrapped = gx.select(model, ["sides", "sides.left"]).apply(gx.Remat)
        with pytest.raises(ValueError, match=message):
            getattr(gx.select(wrapped, "sides.left", eqx.nn.Linear), method)(new=jnp.sin)
        with pytest.raises(ValueError, match=r"^'left' is a branch of a Parallel"):
            getattr(gx.select(model.sides, "left"), method)(new=jnp.sin)


def test_op_and_shortcut_have_no_neighbours_and_then_is_named():
    block = Bottleneck(a=jnp.sin, shortcut=jnp.tanh)
    for path in ("op", "shortcut"):
        with pytest.raises(
            ValueError, match=r"no layer in an order\. `\.then\(label=layer\)` puts"
        ):
            gx.select(block, path).insert_after(b=jnp.cos)
    with pytest.raises(ValueError, match=r"fixed\. .* `\.then\(label=layer\)` puts"):
        gx.select(mlp(), "activation").insert_after(jnp.sin)
