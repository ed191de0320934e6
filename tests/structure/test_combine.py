"""How `op` puts the outputs of a Parallel together."""

import functools
import math
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_containers import double, increment, linear, square, without_annotation_checks


class Counting:
    """An `op` that remembers what it was called with."""

    def __init__(self, op):
        self.op, self.calls = op, []

    def __call__(self, outputs):
        self.calls.append(outputs)
        return self.op(outputs)


class CountingBinary(Counting):
    def __call__(self, a, b):
        self.calls.append((a, b))
        return self.op(a, b)


class Weighted(eqx.Module):
    """An `op` with parameters."""

    weights: jax.Array

    def __call__(self, outputs):
        return sum(w * y for w, y in zip(self.weights, outputs, strict=True))


class Gate(eqx.Module):
    """An `op` with parameters, of two arguments."""

    gate: jax.Array

    def __call__(self, a, b):
        return self.gate * a + (1 - self.gate) * b


# --- op ---


def test_the_default_op_is_the_tuple_of_outputs():
    m = gx.Parallel(double, square)
    assert m.op is tuple and type(m(3)) is tuple


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (sum, 19),
        (tuple, (6, 9, 4)),
        (list, [6, 9, 4]),
        (max, 9),
        (len, 3),
        (math.prod, 216),
        (lambda ys: ys[1], 9),
        (lambda ys, *, scale=10: scale * sum(ys), 190),
        (lambda ys, start=1: sum(ys, start), 20),
        (lambda *ys: ys, ((6, 9, 4),)),
        (functools.partial(sum, start=100), 119),
        (functools.partial(functools.reduce, operator.sub), -7),
        (np.sum, 19),
        (np.stack, np.array([6, 9, 4])),
        (jnp.stack, np.array([6, 9, 4])),
        (jax.jit(lambda ys: ys[0] - ys[2]), 2),
        (eqx.filter_jit(lambda ys: ys[0] - ys[2]), 2),
        (gx.Chain(pick=operator.itemgetter(1)), 9),
    ],
)
def test_an_op_that_is_not_binary_is_given_the_tuple_once(op, expected):
    m = gx.Parallel(double, square, increment, op=op)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), m(3), expected))
    assert type(m(3)) is type(expected) or isinstance(m(3), (np.integer, jax.Array))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_an_op_that_is_not_binary_is_called_exactly_once(count):
    op = Counting(sum)
    m = gx.Parallel(*[double] * count, op=op)
    assert m(3) == 6 * count
    assert op.calls == [(6,) * count]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (operator.add, 6 + 9 + 4),
        (operator.sub, (6 - 9) - 4),
        (operator.mul, 6 * 9 * 4),
        (operator.truediv, (6 / 9) / 4),
        (lambda a, b: a - b, (6 - 9) - 4),
        (lambda a, b=0, *, c=0: a, (6, 9, 4)),
        (lambda a, b, c=0: a - b, (6 - 9) - 4),
        (lambda a, b, /, *rest: a - b, (6 - 9) - 4),
        (functools.partial(lambda scale, a, b: scale * (a - b), 1), (6 - 9) - 4),
        (np.add, 19),
        (np.subtract, -7),
        (np.maximum, 9),
        (np.matmul, None),
        (jnp.add, 19),
        (jnp.subtract, -7),
        (jnp.multiply, 216),
        (jnp.maximum, 9),
        (jnp.minimum, 4),
        (jax.lax.sub, -7),
        (jax.jit(lambda a, b: a - b), -7),
        (eqx.filter_jit(lambda a, b: a - b), -7),
        (np.frompyfunc(lambda a, b: a - b, 2, 1), -7),
    ],
)
def test_an_op_of_two_required_arguments_is_folded_from_the_left(op, expected):
    if op is np.matmul:
        matrices = [np.array([[1, i], [i, 2]]) for i in range(3)]
        m = gx.Parallel(*(lambda x, a=a: a for a in matrices), op=op)
        assert (m(0) == matrices[0] @ matrices[1] @ matrices[2]).all()
        return
    m = gx.Parallel(double, square, increment, op=op)
    assert m(3) == expected


def test_a_fold_calls_op_once_less_than_there_are_outputs_and_never_for_one():
    op = CountingBinary(operator.sub)
    assert gx.Parallel(double, square, increment, op=op)(3) == -7
    assert op.calls == [(6, 9), (-3, 4)]
    op = CountingBinary(operator.sub)
    assert gx.Parallel(double, op=op)(3) == 6 and op.calls == []


def test_a_fold_starts_from_init():
    op = CountingBinary(operator.sub)
    assert gx.Parallel(double, square, op=op, init=100)(3) == 85
    assert op.calls == [(100, 6), (94, 9)]
    assert gx.Parallel(double, op=operator.sub, init=0)(3) == -6
    assert gx.Parallel(double, op=operator.add, init=5)(()) == 5
    m = gx.Parallel(a=double, b=square, op=jnp.add, init=jnp.zeros(2))
    assert (m(jnp.arange(2.0)) == jnp.array([0.0, 3.0])).all()


def test_init_is_a_leaf_with_a_gradient():
    m = gx.Parallel(a=linear(2, 2), op=jnp.multiply, init=jnp.ones(2))
    gradient = eqx.filter_grad(lambda m, x: m(x).sum())(m, jnp.ones(2))
    assert (gradient.init == m.a(jnp.ones(2))).all()
    assert jax.tree.map(lambda leaf: leaf, m) == m


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=6), st.none() | st.integers(-9, 9))
@settings(max_examples=100)
def test_law_of_folds(values, init):
    m = gx.Parallel(*(lambda x, v=v: v for v in values), op=lambda a, b: 2 * a - b, init=init)
    start = [] if init is None else [init]
    assert m(None) == functools.reduce(lambda a, b: 2 * a - b, [*start, *values])


def test_a_fold_over_nothing_is_an_error_that_gives_both_numbers():
    with pytest.raises(ValueError) as caught:
        gx.Parallel(double, op=operator.add)(())
    assert str(caught.value) == (
        "Parallel has 1 branch and was given a tuple of 0 inputs, which folds to nothing without init."
    )


@pytest.mark.parametrize("op", [sum, tuple, jnp.stack, lambda a: a, lambda a, b, c: a])
def test_an_init_that_no_fold_would_use_is_refused(op):
    with pytest.raises(ValueError) as caught:
        gx.Parallel(double, op=op, init=0)
    assert str(caught.value) == (
        f"init of Parallel is the start of a fold, and op={op!r} is not folded: it does not take "
        "exactly two required arguments."
    )


@pytest.mark.parametrize(("op", "printed"), [(3, "3 of type int"), (None, "None of type NoneType")])
def test_an_op_that_is_no_callable_is_refused(op, printed):
    with without_annotation_checks():
        for make in (gx.Parallel, lambda layer, op: gx.branch(op, layer)):
            with pytest.raises(TypeError) as caught:
                make(double, op=op)
            assert str(caught.value) == f"op of Parallel must be callable; got {printed}."


# --- op as a layer ---


@pytest.mark.parametrize("transform", [lambda f: f, eqx.filter_jit], ids=["eager", "jit"])
def test_an_op_with_parameters_gets_gradients(transform):
    m = gx.Parallel(a=linear(3, 2), b=linear(3, 2, 1), op=Weighted(jnp.array([2.0, -1.0])))
    x = jnp.arange(3.0)
    a, b = m.a(x), m.b(x)
    np.testing.assert_allclose(transform(m)(x), 2 * a - b, rtol=1e-6)
    gradient = transform(eqx.filter_grad(lambda m: m(x).sum()))(m)
    np.testing.assert_allclose(gradient.op.weights, jnp.stack([a.sum(), b.sum()]), rtol=1e-5)
    np.testing.assert_allclose(gradient.b.bias, -jnp.ones(2))


def test_a_binary_op_with_parameters_is_folded_and_gets_gradients():
    m = gx.Parallel(double, square, increment, op=Gate(jnp.array(0.25)))
    g = 0.25
    by_hand = lambda g: g * (g * 6 + (1 - g) * 9) + (1 - g) * 4
    np.testing.assert_allclose(m(3.0), by_hand(g))
    gradient = eqx.filter_grad(lambda m: m(3.0))(m)
    np.testing.assert_allclose(gradient.op.gate, jax.grad(by_hand)(g), rtol=1e-6)


def test_op_is_a_part_of_the_model_for_paths_and_edits():
    m = gx.Parallel(a=double, b=square, op=Weighted(jnp.array([2.0, -1.0])))
    assert gx.select(m, "op.weights").one() is m.op.weights
    assert m.replace_where("op", lambda _: sum)(3) == 15
    assert [path for path, _ in gx.walk(m)] == ["", "a", "b", "op", "op.weights"]


def test_op_takes_key_and_context_like_any_child():
    class Noisy(eqx.Module):
        def __call__(self, outputs, *, key, temperature=1.0):
            return sum(outputs) + temperature * jax.random.normal(key)

    m = gx.Parallel(a=double, b=square, op=Noisy())
    key = jax.random.key(0)
    y = m(3.0, key=key, temperature=0.5)
    assert y != 15 and m(3.0, key=key, temperature=0.5) == y
    assert m(3.0, key=jax.random.key(1), temperature=0.5) != y
    assert m(3.0, key=key, temperature=0.0) == 15
    assert m(3.0, key=key) - 15 == pytest.approx(2 * (y - 15))


def test_query_key_and_value_with_an_attention_op_is_attention():
    class DotProductAttention(eqx.Module):
        heads: int = eqx.field(static=True)

        def __call__(self, qkv, *, mask=None):
            q, k, v = (y.reshape(y.shape[0], self.heads, -1) for y in qkv)
            scores = jnp.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
            scores = scores if mask is None else jnp.where(mask, scores, -jnp.inf)
            weights = jax.nn.softmax(scores, axis=-1)
            return jnp.einsum("hqk,khd->qhd", weights, v).reshape(qkv[0].shape)

    reference = eqx.nn.MultiheadAttention(num_heads=2, query_size=4, key=jax.random.key(0))
    m = gx.Chain(
        attend=gx.Parallel(
            query=gx.Vmap(reference.query_proj),
            key=gx.Vmap(reference.key_proj),
            value=gx.Vmap(reference.value_proj),
            op=DotProductAttention(2),
        ),
        output=gx.Vmap(reference.output_proj),
    )
    x = jax.random.normal(jax.random.key(1), (5, 4))
    memory = jax.random.normal(jax.random.key(2), (7, 4))
    mask = jnp.tril(jnp.ones((5, 5), bool))

    @eqx.filter_jit
    def ours(m):
        gradient = eqx.filter_grad(lambda m: (m(x, mask=mask) ** 2).sum())(m)
        weights = [gradient.attend[label].weight for label in ("query", "key", "value")]
        return m(x), m(x, mask=mask), m(x, memory, memory), weights

    @eqx.filter_jit
    def theirs(r):
        gradient = eqx.filter_grad(lambda r: (r(x, x, x, mask) ** 2).sum())(r)
        weights = [getattr(gradient, f"{label}_proj").weight for label in ("query", "key", "value")]
        return r(x, x, x), r(x, x, x, mask), r(x, memory, memory), weights

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, ours(m), theirs(reference))
