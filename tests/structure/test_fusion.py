"""PairwiseFusion (n inputs, n outputs) and Repeat (one layer, its weights shared)."""

import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_containers import (
    double,
    increment,
    linear,
    same_arrays,
    square,
    without_annotation_checks,
)

# --- PairwiseFusion ---


def test_each_output_is_of_the_output_before_and_the_input():
    m = gx.PairwiseFusion(double, square, increment, op=lambda before, x: 10 * before + x)
    y0 = double(1)
    y1 = square(10 * y0 + 2)
    assert m((1, 2, 3)) == m(1, 2, 3) == (y0, y1, increment(10 * y1 + 3))


def test_one_input_stands_for_all():
    m = gx.PairwiseFusion(a=double, b=double, c=double)
    assert m(1) == m((1, 1, 1)) == (2, 6, 14)
    assert m([1])[0] == [1, 1]


def test_one_layer_has_nothing_to_fuse():
    assert gx.PairwiseFusion(double)(3) == gx.PairwiseFusion(only=double)((3,)) == (6,)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-9, 9)), min_size=1, max_size=5))
@settings(max_examples=50)
def test_law_of_pairwise_fusion(cases):
    op = lambda before, x: before - 2 * x
    m = gx.PairwiseFusion(*(lambda x, a=a: a * x + 1 for a, _ in cases), op=op)
    expected = []
    for i, (a, x) in enumerate(cases):
        expected.append(a * (op(expected[-1], x) if i else x) + 1)
    assert m(tuple(x for _, x in cases)) == tuple(expected)


def test_op_is_called_once_less_than_there_are_layers_the_output_first():
    calls = []

    def op(before, x):
        calls.append((before, x))
        return before + x

    gx.PairwiseFusion(double, double, double, op=op)((1, 10, 100))
    assert calls == [(2, 10), (24, 100)]


@pytest.mark.parametrize(("layers", "inputs"), [(1, 0), (1, 2), (2, 1), (2, 3), (3, 0), (4, 2)])
def test_a_wrong_number_of_inputs_is_an_error_that_gives_both_numbers(layers, inputs):
    m = gx.PairwiseFusion(*[double] * layers)
    with pytest.raises(ValueError) as caught:
        m(tuple(range(inputs)))
    assert str(caught.value) == (
        f"PairwiseFusion has {layers} layers and was given {inputs} inputs. It takes one for each, "
        "or one for all."
    )


def test_no_layers_are_an_error():
    for make in (gx.PairwiseFusion, lambda: gx.PairwiseFusion({})):
        with pytest.raises(
            ValueError, match=r"^PairwiseFusion needs at least one layer; it got none"
        ):
            make()


def test_an_op_that_is_no_callable_is_refused():
    with without_annotation_checks(), pytest.raises(TypeError) as caught:
        gx.PairwiseFusion(double, op=3)
    assert str(caught.value) == "op of PairwiseFusion must be callable; got 3 of type int."


def test_a_res2net_split_is_the_hand_written_one_with_its_gradients():
    a, b = linear(2, 2), linear(2, 2, 1)
    m = gx.PairwiseFusion(a=a, b=b)
    xs = (jnp.arange(2.0), jnp.ones(2))

    def by_hand(layers, xs):
        first = layers[0](xs[0])
        return first, layers[1](first + xs[1])

    assert same_arrays(m(xs), by_hand((a, b), xs))
    total = lambda ys: sum((y**2).sum() for y in ys)
    of_m = eqx.filter_jit(eqx.filter_grad(lambda m: total(m(xs))))(m)
    of_hand = eqx.filter_jit(eqx.filter_grad(lambda layers: total(by_hand(layers, xs))))((a, b))
    assert same_arrays((of_m.a, of_m.b), of_hand)
    batch = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), xs)
    np.testing.assert_allclose(jax.vmap(m)(batch)[1][0], m(xs)[1], rtol=1e-6)


def test_an_op_with_parameters_gets_gradients():
    class Scaled(eqx.Module):
        scale: jax.Array

        def __call__(self, before, x):
            return self.scale * before + x

    m = gx.PairwiseFusion(double, double, op=Scaled(jnp.array(3.0)))
    assert [float(y) for y in m((1.0, 5.0))] == [2, 22]
    assert float(eqx.filter_grad(lambda m: m((1.0, 5.0))[1])(m).op.scale) == 4


# --- Repeat ---


@pytest.mark.parametrize("times", [0, 1, 2, 5])
def test_repeat_is_the_layer_applied_that_many_times(times):
    expected = 3 * 2**times
    assert gx.Repeat(double, times)(3) == expected
    assert gx.Repeat(double, times=times)(3) == expected
    assert gx.Repeat(twice=double, times=times)(3) == expected
    assert gx.Repeat({"twice": double}, times)(3) == expected
    assert gx.Repeat([double], times)(3) == expected
    assert gx.Chain([double] * times)(3) == expected


def test_repeat_stores_its_layer_once_and_sums_its_gradients():
    layer = linear(3, 3)
    m, x = gx.Repeat(layer=layer, times=3), jnp.arange(3.0)
    assert len(jax.tree.leaves(m)) == 2 and m.labels == ("layer",) and len(m) == 1
    assert (m(x) == layer(layer(layer(x)))).all()
    ours = eqx.filter_jit(eqx.filter_grad(lambda m: m(x).sum()))(m)
    by_hand = eqx.filter_jit(eqx.filter_grad(lambda f: f(f(f(x))).sum()))(layer)
    assert same_arrays(ours.layer, by_hand)


def test_each_application_draws_from_a_key_of_its_own():
    drop, x, key = eqx.nn.Dropout(0.5), jnp.ones(256), jax.random.key(0)
    kept = [(gx.Repeat(drop, n)(x, key=key) != 0).sum() for n in (1, 2, 3)]
    assert kept[0] > kept[1] > kept[2]
    assert (gx.Repeat(drop, 2)(x, key=key) == gx.Repeat(drop, 2)(x, key=key)).all()


def test_repeat_passes_the_state_on():
    class Counter(eqx.nn.StatefulLayer):
        index: eqx.nn.StateIndex

        def __init__(self):
            self.index = eqx.nn.StateIndex(jnp.array(0))

        def __call__(self, x, state, *, key=None):
            count = state.get(self.index)
            return x + count, state.set(self.index, count + 1)

    m, state = eqx.nn.make_with_state(lambda: gx.Repeat(count=Counter(), times=4))()
    y, state = m(jnp.array(0), state)
    assert int(y) == 0 + 1 + 2 + 3 and int(state.get(m.count.index)) == 4


def test_the_number_of_times_is_static():
    m = gx.Repeat(double, 3)
    assert m.times not in jax.tree.leaves(m)
    assert jax.tree.structure(m) != jax.tree.structure(gx.Repeat(double, 4))
    assert jax.tree.structure(m) == jax.tree.structure(gx.Repeat(increment, 3))


def test_a_tuple_goes_through_a_repeat_whole():
    fibonacci = gx.Repeat(step=lambda pair: (pair[1], pair[0] + pair[1]), times=10)
    assert fibonacci(0, 1) == fibonacci((0, 1)) == (55, 89)


@pytest.mark.parametrize("times", ["3", 2.0, None, True, jnp.array(3)], ids=repr)
def test_times_that_is_no_integer_is_refused(times):
    with without_annotation_checks(), pytest.raises(TypeError) as caught:
        gx.Repeat(double, times)
    assert str(caught.value) == f"times of Repeat must be an int; got {times!r}."


def test_bad_repeats_are_refused():
    with pytest.raises(ValueError, match=r"^times of Repeat cannot be negative: -1\.$"):
        gx.Repeat(double, -1)
    with pytest.raises(ValueError, match=r"^Repeat takes one layer; it got 2\.$"):
        gx.Repeat(a=double, b=square, times=2)
    with pytest.raises(ValueError, match=r"^Repeat takes one layer; it got 2\.$"):
        gx.Repeat([double, square], 2)
    with pytest.raises(ValueError, match=r"^Repeat takes one layer; it got 0\.$"):
        gx.Repeat(times=2)
    with pytest.raises(
        TypeError, match=r"^Layer 0 of Repeat must be callable.*; got 3 of type int\.$"
    ):
        gx.Repeat(3, 3)


def test_slices_of_a_repeat_keep_times():
    assert gx.Repeat(a=double, times=3)[["a"]](1) == gx.Repeat(a=double, times=3)[:](1) == 8
    assert operator.itemgetter("a", 0)(gx.Repeat(a=double, times=3)) == (double, double)
