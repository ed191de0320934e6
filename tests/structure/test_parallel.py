"""Parallel: how inputs reach the branches, against hand-written Equinox."""

import operator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_containers import double, increment, linear, same_arrays, square

# --- Inputs and branches ---


def test_one_input_goes_to_every_branch():
    assert gx.Parallel(double, square, increment)(3) == (6, 9, 4)
    m = gx.Parallel(a=linear(3, 2), b=linear(3, 4))
    x = jnp.arange(3.0)
    assert same_arrays(m(x), (m.a(x), m.b(x)))


def test_a_tuple_of_n_goes_one_to_each_of_n_branches():
    assert gx.Parallel(a=double, b=square)((3, 5)) == (6, 25)
    assert gx.Parallel(a=double, b=square)(3, 5) == (6, 25)
    assert gx.Parallel(double)((3,)) == (6,)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_one_branch_maps_over_a_tuple(n):
    m = gx.Parallel(only=square)
    assert m(tuple(range(n))) == tuple(i * i for i in range(n))
    assert gx.Parallel(only=square, op=sum)(tuple(range(n))) == sum(i * i for i in range(n))


def test_one_branch_that_maps_shares_its_weights():
    m = gx.Parallel(embed=linear(3, 2), op=jnp.subtract)
    a, b = jnp.arange(3.0), jnp.ones(3)
    assert (m((a, b)) == m.embed(a) - m.embed(b)).all()
    gradient = eqx.filter_grad(lambda m: m((a, b)).sum())(m)
    expected = eqx.filter_grad(lambda layer: (layer(a) - layer(b)).sum())(m.embed)
    assert same_arrays(gradient.embed, expected)


@pytest.mark.parametrize(("branches", "inputs"), [(2, 1), (2, 3), (2, 0), (3, 2), (3, 1), (5, 4)])
@pytest.mark.parametrize("labelled", [True, False])
def test_any_other_count_is_an_error_that_gives_both_numbers(branches, inputs, labelled):
    layers = {f"branch{i}": double for i in range(branches)}
    m = gx.Parallel(layers) if labelled else gx.Parallel(*layers.values())
    with pytest.raises(ValueError) as caught:
        m(tuple(range(inputs)))
    assert str(caught.value) == (
        f"Parallel has {branches} branches and was given a tuple of {inputs} inputs. It takes one "
        "input for all branches, or a tuple with one for each."
    )


@given(st.integers(1, 5), st.integers(0, 5))
@settings(max_examples=50)
def test_law_of_counts(branches, inputs):
    m = gx.Parallel(*(lambda x, i=i: (i, x) for i in range(branches)))
    xs = tuple(range(10, 10 + inputs))
    assert m("x") == tuple((i, "x") for i in range(branches))
    if inputs == branches:
        assert m(xs) == tuple(enumerate(xs))
    elif branches == 1:
        assert m(xs) == tuple((0, x) for x in xs)
    else:
        with pytest.raises(
            ValueError, match=f"has {branches} branches .* tuple of {inputs} inputs"
        ):
            m(xs)


def test_a_wrong_count_deep_inside_is_noted_with_its_path():
    m = gx.Chain(encoder=gx.Chain(split=lambda x: (x, x, x), heads=gx.Parallel(a=double, b=square)))
    with pytest.raises(
        ValueError, match="has 2 branches and was given a tuple of 3 inputs"
    ) as caught:
        m(1)
    assert [str(note) for note in caught.value.__notes__] == [
        "In encoder.heads: Parallel was given (1, 1, 1)"
    ]


@pytest.mark.parametrize(
    "make",
    [gx.Parallel, lambda: gx.Parallel({}), lambda: gx.Parallel([]), lambda: gx.Parallel(op=sum)],
)
def test_no_branches_are_an_error(make):
    with pytest.raises(ValueError, match=r"^Parallel needs at least one branch; it got none\.$"):
        make()


def test_only_a_plain_tuple_is_several_inputs():
    class Pair(NamedTuple):
        a: int
        b: int

    m = gx.Parallel(a=len, b=type)
    for x in (Pair(1, 2), [1, 2], {"a": 1, "b": 2}, jnp.arange(2)):
        assert m(x) == (2, type(x))


# --- Against hand-written Equinox ---


class TwoHeads(eqx.Module):
    a: eqx.nn.Linear
    b: eqx.nn.Linear

    def __call__(self, x):
        return jnp.concatenate((self.a(x), self.b(x)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_parallel_is_the_hand_written_module_to_the_bit_in_every_dtype(dtype):
    a, b = linear(3, 2, 0, dtype), linear(3, 4, 1, dtype)
    m, reference = gx.Parallel(a=a, b=b, op=jnp.concatenate), TwoHeads(a, b)
    xs = jnp.linspace(-1, 1, 12, dtype=dtype).reshape(4, 3)
    assert m(xs[0]).dtype == dtype and same_arrays(m(xs[0]), reference(xs[0]))
    run = lambda model: eqx.filter_jit(eqx.filter_vmap(model))(xs)
    assert same_arrays(run(m), run(reference))
    loss = lambda model: (model(xs[0]).astype(jnp.float32) ** 2).sum()
    of_m, of_reference = eqx.filter_grad(loss)(m), eqx.filter_grad(loss)(reference)
    assert same_arrays((of_m.a, of_m.b), (of_reference.a, of_reference.b))
    assert of_m.op is None


def test_parallel_positional_labelled_and_mapped_forms_agree():
    x = jnp.arange(3.0)
    a, b = linear(3, 2), linear(3, 2, 1)
    forms = [
        gx.Parallel(a, b, op=operator.sub),
        gx.Parallel(a=a, b=b, op=operator.sub),
        gx.Parallel({"z": a, "y": b}, op=operator.sub),
        gx.Parallel([a, b], op=operator.sub),
    ]
    for m in forms:
        assert (m(x) == a(x) - b(x)).all()
        assert (jax.tree.map(lambda leaf: leaf, m)(x) == a(x) - b(x)).all()


def test_branches_draw_different_random_numbers_that_depend_on_the_label_alone():
    drop = eqx.nn.Dropout(0.5)
    x, key = jnp.ones(64), jax.random.key(0)
    m = gx.Parallel(a=drop, b=drop)
    a, b = m(x, key=key)
    assert not (a == b).all()
    more = gx.Parallel(new=drop, a=drop, other=drop, b=drop)(x, key=key)
    assert (more[1] == a).all() and (more[3] == b).all()
