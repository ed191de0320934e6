"""`load(file, types_of(model))` is the model."""

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import common_named as named
import graftax as gx
from common_files import linear, models, same_bits


def test_it_lists_what_load_does_not_know_once_and_in_order():
    model = gx.Chain(
        a=named.Block(named.square, linear(2, 2)),
        b=named.square,
        c=named.Holder(named.Size.SMALL, 0),
    )
    assert gx.types_of(model) == (named.Block, named.square, named.Holder, named.Size)
    assert gx.types_of(models()["nested"]) == ()


def test_it_raises_what_save_would():
    with pytest.raises(gx.UnsavableError, match="'a' is <lambda>"):
        gx.types_of(gx.Chain(a=lambda x: x))


LEAVES = (
    *(jnp.ones(2), jnp.asarray(1.0), 1, 2.5, "text", None, True, 1j, jax.random.key(0)),
    *(named.square, jnp.tanh, named.Colour.RED, named.Switch(3), jnp.bfloat16, float),
    *(
        named.Outer.Inner,
        named.Outer.Inner(2),
        named.Word.YES,
        np.float16(2),
        np.arange(3, dtype=">i4"),
    ),
)
NODES = (
    lambda a, b: [a, b],
    lambda a, b: (a,),
    lambda a, b: {"b": a, "c.d": b, "": a},
    lambda a, b: named.Both(a, b),
    lambda a, b: named.Holder(a, (named.Size.LARGE, named.square)),
    lambda a, b: gx.Chain(x=named.Holder(a, 0), y=named.Block(named.square, named.Holder(b, None))),
    lambda a, b: gx.Remat(eqx.Partial(named.square, a, b)),
)
PLANS = st.recursive(
    st.integers(0, len(LEAVES) - 1),
    lambda inner: st.tuples(st.integers(0, len(NODES) - 1), inner, inner),
    max_leaves=8,
)


def built(plan):
    """The tree of a plan: the number of a leaf, or that of a node and the plans of what it holds."""
    return LEAVES[plan] if isinstance(plan, int) else NODES[plan[0]](*map(built, plan[1:]))


@hypothesis.settings(max_examples=100)
@hypothesis.given(PLANS)
def test_its_law_holds_for_every_model(tmp_path_factory, plan):
    file, tree = tmp_path_factory.getbasetemp() / "law", built(plan)
    gx.save(file, tree)
    assert same_bits(gx.load(file, gx.types_of(tree)), tree)
