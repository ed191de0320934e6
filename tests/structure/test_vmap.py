"""Vmap: a layer over the leading axis, with keys, context and state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_calling import folded

KEY = jax.random.key(3)
K1, K2 = jax.random.split(KEY)
STEM, HEAD = eqx.nn.Linear(3, 4, key=K1), eqx.nn.Linear(4, 3, key=K2)
CHAIN = gx.Chain(stem=STEM, act=jnp.tanh, head=HEAD)
XS = jax.random.normal(KEY, (5, 3))


def test_vmap_maps_over_the_leading_axis():
    m = gx.Vmap(CHAIN)
    for run in (m, eqx.filter_jit(m), jax.tree.map(lambda leaf: leaf, m)):
        ys = run(XS)
        assert ys.shape == (5, 3)
        for i in range(5):
            assert jnp.allclose(ys[i], CHAIN(XS[i]), atol=1e-6)


def test_vmap_in_vmap_maps_over_two_axes():
    xs = jnp.stack([XS, 2 * XS])
    expected = jax.vmap(jax.vmap(STEM))(xs)
    assert jnp.array_equal(gx.Vmap(gx.Vmap(STEM))(xs), expected)
    assert jnp.allclose(jax.vmap(gx.Vmap(STEM))(xs), expected, atol=1e-6)


def test_vmap_takes_and_gives_any_pytree():
    m = gx.Vmap(lambda x: {"sum": x["a"] + x["b"][0].sum(), "pair": (x["a"], x["a"])})
    a, b = jnp.arange(4.0), jnp.ones((4, 2))
    y = m({"a": a, "b": [b]})
    assert jnp.array_equal(y["sum"], a + 2.0) and jnp.array_equal(y["pair"][1], a)


def test_vmap_takes_arrays_of_numpy():
    assert jnp.array_equal(gx.Vmap(jnp.sum)(np.ones((3, 2), np.float32)), jnp.full(3, 2.0))


@pytest.mark.parametrize(
    ("inputs", "shapes"),
    [
        ((jnp.ones(3), jnp.ones(4)), r"\[\(3,\), \(4,\)\]"),
        ((jnp.ones(3), jnp.array(1.0)), r"\[\(3,\), \(\)\]"),
        ((jnp.array(1.0),), r"\[\(\)\]"),
        (({},), r"\[\]"),
    ],
    ids=["unequal", "a scalar among arrays", "scalar", "no array"],
)
def test_vmap_needs_one_leading_axis_that_all_inputs_share(inputs, shapes):
    with pytest.raises(ValueError, match=f"Vmap maps over the leading axis.*shapes {shapes}"):
        gx.Vmap(lambda x: x)(*inputs)


def test_vmap_gives_each_element_a_key_of_its_own():
    m = gx.Chain(a=gx.Vmap(gx.Chain(b=lambda x, *, key: jax.random.key_data(key))))
    keys = jax.random.split(folded(KEY, "a"), 5)
    expected = [jax.random.key_data(folded(key, "b")).tolist() for key in keys]
    assert m(XS, key=KEY).tolist() == expected
    assert len({tuple(data) for data in expected}) == 5
    assert eqx.filter_jit(m)(XS, key=KEY).tolist() == expected


def test_dropout_in_a_vmap_differs_between_elements():
    ys = gx.Vmap(eqx.nn.Dropout())(jnp.ones((4, 64)), key=KEY)
    assert len({tuple(y.tolist()) for y in ys}) == 4


def test_vmap_gives_the_same_context_to_all_elements():
    bias = jnp.arange(3.0)
    m = gx.Chain(a=gx.Vmap(lambda x, *, bias: x + bias))
    assert jnp.array_equal(m(XS, bias=bias), XS + bias[None])


def norm(mode="batch"):
    return eqx.nn.BatchNorm(4, axis_name="batch", mode=mode, momentum=0.9)


class ByHand(eqx.Module):
    """`Linear`, `BatchNorm`, `tanh`, `Linear`, as one writes it in Equinox."""

    stem: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __call__(self, x, state):
        y, state = self.norm(self.stem(x), state)
        return self.head(jnp.tanh(y)), state


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("wrap", [lambda m: m, gx.Remat, gx.Wrapper], ids=["", "Remat", "Wrapper"])
def test_batch_norm_in_a_named_vmap_is_that_of_equinox(mode, wrap):
    make = lambda: gx.Chain(
        batch=wrap(
            gx.Vmap(
                gx.Chain(stem=STEM, norm=wrap(norm(mode)), act=jnp.tanh, head=HEAD),
                axis_name="batch",
            )
        )
    )
    model, state = eqx.nn.make_with_state(make)()
    hand, hand_state = eqx.nn.make_with_state(ByHand)(STEM, norm(mode), HEAD)

    @eqx.filter_value_and_grad(has_aux=True)
    def ours(model, state):
        ys, state = model(XS, state=state)
        return jnp.sum(ys**2), (ys, state)

    @eqx.filter_value_and_grad(has_aux=True)
    def theirs(hand, state):
        run = jax.vmap(hand, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        ys, state = run(XS, state)
        return jnp.sum(ys**2), (ys, state)

    for _ in range(2):
        (_, (ys, state)), grad = eqx.filter_jit(ours)(model, state)
        (_, (hand_ys, hand_state)), hand_grad = eqx.filter_jit(theirs)(hand, hand_state)
        assert jnp.allclose(ys, hand_ys, atol=1e-5)
        leaves = lambda tree: jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
        for a, b in zip(leaves(grad), leaves(hand_grad), strict=True):
            assert jnp.allclose(a, b, atol=1e-4)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(hand_state), strict=True):
            assert a.shape == b.shape and jnp.allclose(a, b, atol=1e-5)

    quiet, hand_quiet = eqx.nn.inference_mode((model, hand))
    ys, state = quiet(XS, state=state)
    hand_run = jax.vmap(hand_quiet, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    assert jnp.allclose(ys, hand_run(XS, hand_state)[0], atol=1e-5)


def test_a_state_that_would_differ_between_elements_is_an_error_with_its_path():
    class Sum(eqx.Module):
        index: eqx.nn.StateIndex

        def __call__(self, x, state):
            return x, state.set(self.index, x.sum())

    model, state = eqx.nn.make_with_state(
        lambda: gx.Chain(a=gx.Vmap(Sum(eqx.nn.StateIndex(jnp.zeros(())))))
    )()
    with pytest.raises(ValueError, match="out_axes") as caught:
        model(XS, state=state)
    assert any(note.startswith("In a: Vmap(Sum)") for note in caught.value.__notes__)


def test_vmap_is_stateful_as_its_layer():
    assert gx.Vmap(norm(), axis_name="batch").is_stateful()
    assert not gx.Vmap(STEM).is_stateful()
