"""Containers are pytrees: order, labels and equality survive a map."""

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
    linear,
    model,
    same,
    same_arrays,
    square,
)

# --- Flattening ---


@given(containers())
@settings(max_examples=150)
def test_the_identity_map_keeps_order_labels_and_equality(spec):
    m = build(spec)
    mapped = jax.tree.map(same, m)
    assert mapped == m and mapped is not m
    assert type(mapped) is type(m) and mapped.labels == m.labels
    assert mapped.items() == m.items() and type(mapped.layers) is type(m.layers)
    assert jax.tree.structure(mapped) == jax.tree.structure(m)
    assert repr(mapped) == repr(m) and mapped(2) == m(2)


@given(containers())
@settings(max_examples=100)
def test_leaves_come_in_the_order_of_the_layers(spec):
    m = build(spec)
    in_order = [leaf for layer in m for leaf in jax.tree.leaves(layer)]
    assert jax.tree.leaves(m)[: len(in_order)] == in_order
    leaves, treedef = jax.tree.flatten(m)
    assert jax.tree.unflatten(treedef, leaves) == m


@given(containers(), containers())
@settings(max_examples=100)
def test_models_are_equal_when_their_printed_forms_are(a, b):
    a, b = build(a), build(b)
    assert bool(a == b) == (repr(a) == repr(b))
    assert hash(a) == hash(jax.tree.map(same, a))


@given(containers(), st.integers(-3, 3))
@settings(max_examples=50)
def test_maps_compose(spec, n):
    m = build(spec)
    number = lambda fn: lambda leaf: fn(leaf) if isinstance(leaf, int) else leaf
    twice = jax.tree.map(number(lambda i: 2 * i), jax.tree.map(number(lambda i: i + n), m))
    assert twice == jax.tree.map(number(lambda i: 2 * (i + n)), m)
    assert jax.tree.structure(twice) == jax.tree.structure(m)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_tree_keeps_arrays_dtypes_and_functions(dtype):
    m = gx.Chain(a=linear(2, 2, dtype=dtype), act=jax.nn.gelu)
    leaves, treedef = jax.tree.flatten(m)
    again = jax.tree.leaves(jax.tree.unflatten(treedef, leaves))
    assert all(one is other for one, other in zip(leaves, again, strict=True))
    half = jax.tree.map(lambda leaf: leaf / 2 if eqx.is_array(leaf) else leaf, m)
    assert half.a.weight.dtype == half.a.bias.dtype == dtype and half.act is jax.nn.gelu
    assert (half.a.weight == m.a.weight / 2).all()


@pytest.mark.parametrize("value", [None, 0.0, 1, "text", jnp.ones(2), np.ones(2)], ids=repr)
def test_leaves_of_any_type_leave_the_container_usable(value):
    m = model()
    filled = jax.tree.map(lambda _: value, m)
    assert type(filled) is gx.Chain and filled.labels == m.labels and len(filled) == 4
    assert filled.stem.weight is value and filled["block"].up.bias is value
    assert filled[1] is value and filled.items()[1] == ("act", value)
    assert type(filled[1:]) is gx.Chain and filled[1:].labels == m.labels[1:]
    assert "act=" in repr(filled) and hasattr(filled, "act") and not hasattr(filled, "nothing")
    restored = jax.tree.unflatten(jax.tree.structure(m), jax.tree.leaves(m))
    assert same_arrays(restored, m)


def test_two_models_map_together():
    a, b = model(0), model(100)
    mean = jax.tree.map(lambda x, y: (x + y) / 2 if eqx.is_array(x) else x, a, b)
    assert (mean.stem.weight == (a.stem.weight + b.stem.weight) / 2).all()
    assert jax.tree.structure(mean) == jax.tree.structure(a)
    with pytest.raises(ValueError):
        jax.tree.map(lambda x, y: x, gx.Chain(a=double), gx.Chain(b=double))


def test_the_structure_says_labels_classes_and_static_fields():
    structure = jax.tree.structure
    pairs = [
        (gx.Chain(a=double), gx.Chain(b=double)),
        (gx.Chain(a=double), gx.Chain(double)),
        (gx.Chain(a=double), gx.SkipConnection(a=double)),
        (gx.SkipConnection(a=double), Bottleneck(a=double)),
        (gx.SkipConnection(a=double), gx.SkipConnection(a=double, shortcut=square)),
        (gx.Parallel(a=double), gx.branch(tuple, a=double, execution="scan")),
        (gx.Chain(a=double, b=square), gx.Chain(b=square, a=double)),
    ]
    for one, other in pairs:
        assert structure(one) != structure(other)
        assert structure(one) == structure(jax.tree.map(same, one))


def test_a_container_is_a_carry_of_scan_and_an_argument_of_grad():
    m = gx.Chain(a=linear(2, 2), b=linear(2, 2, 1))
    x = jnp.ones(2)

    def step(m, _):
        loss, gradient = jax.value_and_grad(lambda m: (m(x) ** 2).sum())(m)
        return jax.tree.map(lambda p, g: p - 0.05 * g, m, gradient), loss

    trained, losses = jax.lax.scan(step, m, None, length=5)
    assert type(trained) is gx.Chain and trained.labels == ("a", "b")
    assert losses[-1] < losses[0]
    expected = m
    for _ in range(5):
        expected, _ = step(expected, None)
    np.testing.assert_allclose(trained.a.weight, expected.a.weight, rtol=1e-4, atol=1e-6)


# --- Numbers as leaves ---


def test_python_numbers_stay_what_they_are():
    m = gx.Chain(a=Affine(2, 1), b=Affine(0.5, 0))
    assert jax.tree.leaves(m) == [2, 1, 0.5, 0]
    assert m(3) == 3.5 and type(jax.tree.map(same, m).a.scale) is int
    gradient = jax.grad(lambda scale: eqx.tree_at(lambda m: m.a.scale, m, scale)(3.0))(2.0)
    assert float(gradient) == 1.5
