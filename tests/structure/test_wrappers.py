"""Remat computes again, Cast computes in another precision; neither changes anything else."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx

KEY = jax.random.key(3)
K1, K2 = jax.random.split(KEY)
STEM, HEAD = eqx.nn.Linear(3, 4, key=K1), eqx.nn.Linear(4, 3, key=K2)
CHAIN = gx.Chain(stem=STEM, act=jnp.tanh, head=HEAD)
XS = jax.random.normal(KEY, (5, 3))


# --- Remat ---


def primitives(jaxpr):
    """The names of all primitives, at any depth."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inside in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: isinstance(leaf, jax.extend.core.Jaxpr)
        ):
            inside = getattr(inside, "jaxpr", inside)
            if isinstance(inside, jax.extend.core.Jaxpr):
                yield from primitives(inside)


def test_remat_computes_its_insides_again_in_the_backward_pass():
    slow = gx.Chain(a=gx.Chain(jnp.sin, jnp.exp))
    count = lambda m: list(
        primitives(jax.make_jaxpr(jax.grad(lambda x: m(x).sum()))(XS[0]).jaxpr)
    ).count("sin")
    assert count(slow) == 1
    assert count(gx.Chain(a=gx.Remat(slow.a))) == 2


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_remat_with_a_key_has_the_gradient_of_the_layer(p):
    inside = gx.Chain(stem=STEM, drop=eqx.nn.Dropout(p), act=jnp.tanh)
    loss = lambda m, x: jnp.sum(m(x, key=KEY) ** 2)
    ours = eqx.filter_grad(loss)(gx.Chain(a=gx.Remat(inside)), XS[0])
    theirs = eqx.filter_grad(loss)(gx.Chain(a=inside), XS[0])
    assert jnp.allclose(ours.a.stem.weight, theirs.a.stem.weight, atol=1e-6)
    assert jnp.abs(ours.a.stem.weight).max() > 0


def test_remat_takes_context_that_is_no_array_and_gives_any_pytree():
    m = gx.Remat(gx.Chain(a=lambda x, *, mode: {"y": x, "mode": mode}))
    y = m(XS, mode="loud")
    assert jnp.array_equal(y["y"], XS) and y["mode"] == "loud"


# --- Cast ---


def cast(tree, dtype):
    is_floating = lambda leaf: eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if is_floating(leaf) else leaf, tree)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, "float16", np.float16])
def test_cast_runs_the_layer_in_another_precision(dtype):
    m, x = gx.Cast(CHAIN, dtype), XS[0]
    expected = cast(CHAIN, dtype)(cast(x, dtype))
    for run in (m, jax.tree.map(lambda leaf: leaf, m)):
        y = run(x)
        assert y.dtype == jnp.dtype(dtype)
        assert jnp.array_equal(y, expected)
    assert jnp.allclose(eqx.filter_jit(m)(x), expected, atol=0.02)
    assert not jnp.array_equal(m(x).astype(jnp.float32), CHAIN(x))


def test_what_cast_stores_and_its_gradient_keep_their_precision():
    m = gx.Chain(a=gx.Cast(STEM, jnp.bfloat16), b=lambda y: y.astype(jnp.float32))
    assert m.a.weight is STEM.weight
    gradient = eqx.filter_grad(lambda m: m(XS[0]).sum())(m)
    assert gradient.a.weight.dtype == jnp.float32
    rounded = XS[0].astype(jnp.bfloat16).astype(jnp.float32)
    assert jnp.array_equal(gradient.a.weight, jnp.broadcast_to(rounded, (4, 3)))


def test_cast_leaves_alone_what_is_no_floating_point_number():
    x = {
        "int": jnp.arange(3),
        "bool": jnp.array([True]),
        "complex": jnp.ones(2, jnp.complex64),
        "key": KEY,
        "text": "text",
        "float": 1.5,
        "array": jnp.ones(2),
        "numpy": np.ones(2, np.float32),
        "numpy scalar": np.float32(1.0),
    }
    y = gx.Cast(gx.Chain(), jnp.bfloat16)(x)
    for name in ("int", "bool", "complex", "key", "text", "float"):
        assert y[name] is x[name]
    for name in ("array", "numpy", "numpy scalar"):
        assert y[name].dtype == jnp.bfloat16


def test_the_innermost_cast_wins():
    inner = gx.Chain(a=jnp.sin, b=gx.Cast(jnp.cos, jnp.float32))
    y = gx.Cast(inner, jnp.float16)(XS[0])
    assert y.dtype == jnp.float32
    assert jnp.array_equal(y, jnp.cos(jnp.sin(XS[0].astype(jnp.float16)).astype(jnp.float32)))


def test_the_state_of_a_cast_layer_keeps_its_precision():
    norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
    make = lambda: gx.Chain(a=gx.Cast(gx.Vmap(norm, axis_name="batch"), jnp.bfloat16))
    model, state = eqx.nn.make_with_state(make)()
    before = [leaf.dtype for leaf in jax.tree.leaves(state)]
    y, state = model(jax.random.normal(KEY, (6, 4)), state=state)
    assert y.dtype == jnp.bfloat16
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == before


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (jnp.int32, "floating-point dtype; got int32"),
        (jnp.complex64, "floating-point dtype; got complex64"),
        (bool, "floating-point dtype; got bool"),
        ("no dtype", "takes a dtype, e.g. jnp.bfloat16; got 'no dtype'"),
    ],
)
def test_cast_takes_floating_point_dtypes_only(dtype, message):
    with pytest.raises(TypeError, match=message):
        gx.Cast(STEM, dtype)
