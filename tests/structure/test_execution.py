"""branch: Parallel as a function, and its three ways to run."""

import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_containers import double, increment, linear, same_arrays, square

PROGRAMS = ("vmap", "scan")
each_execution = pytest.mark.parametrize("execution", ("sequential", *PROGRAMS))
each_program = pytest.mark.parametrize("execution", PROGRAMS)


def mlp(seed):
    return gx.Chain(up=linear(3, 4, seed), act=jax.nn.gelu, down=linear(4, 2, seed + 10))


def branches(execution, op=jnp.concatenate):
    return gx.branch(op, a=mlp(0), b=mlp(1), c=mlp(2), execution=execution)


def test_branch_is_parallel_as_a_function():
    m = gx.branch(sum, double, square)
    assert type(m) is gx.Parallel and m.execution == "sequential" and m(3) == 15
    assert m == gx.Parallel(double, square, op=sum)
    assert jax.tree.structure(m) == jax.tree.structure(gx.Parallel(double, square, op=sum))
    labelled = gx.branch(operator.sub, a=double, b=square, c=increment)
    assert labelled.labels == ("a", "b", "c") and labelled(3) == 6 - 9 - 4
    assert gx.branch(tuple, {"op_": double, "execution_": square})(3) == (6, 9)
    assert gx.branch(tuple, [double, square])((1, 2)) == (2, 4)


def test_branch_takes_the_labels_that_its_own_arguments_look_like():
    m = gx.branch(sum, self=double, cls=square, layers_=increment)
    assert m.labels == ("self", "cls", "layers_") and m(3) == 19


@pytest.mark.parametrize("execution", ["pmap", "", "Sequential"])
def test_an_unknown_execution_names_the_known_ones(execution):
    with pytest.raises(ValueError) as caught:
        gx.branch(sum, double, execution=execution)
    assert str(caught.value) == (
        f"execution must be one of sequential, vmap, scan; got {execution!r}."
    )


# --- The same function, whatever the execution ---


@each_execution
@pytest.mark.parametrize("op", [tuple, jnp.concatenate, sum, operator.sub, jnp.multiply, list])
def test_every_execution_gives_the_same_outputs(execution, op):
    x = jnp.linspace(-1, 1, 3)
    y, expected = branches(execution, op)(x), gx.Parallel(a=mlp(0), b=mlp(1), c=mlp(2), op=op)(x)
    assert jax.tree.structure(y) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), y, expected)


@each_program
def test_every_execution_gives_the_same_gradients_under_jit_and_vmap(execution):
    xs = jnp.linspace(-1, 1, 6).reshape(2, 3)

    @eqx.filter_jit
    def run(m):
        loss = lambda m: (eqx.filter_vmap(m)(xs) ** 2).sum()
        return eqx.filter_value_and_grad(loss)(m)

    (value, gradient), (expected, reference) = run(branches(execution)), run(branches("sequential"))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.tree.leaves(gradient),
        jax.tree.leaves(reference),
    )
    assert float(jnp.abs(gradient.c.up.weight).sum()) > 0


@each_program
def test_inputs_go_to_the_branches_as_in_sequence(execution):
    m, reference = branches(execution, tuple), branches("sequential", tuple)
    xs = tuple(jnp.full(3, float(i)) for i in range(3))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, m(xs), reference(xs))
    one = gx.branch(tuple, only=mlp(0), execution=execution)
    jax.tree.map(close, one(xs), tuple(mlp(0)(x) for x in xs))
    with pytest.raises(ValueError, match="has 3 branches and was given a tuple of 2 inputs"):
        m(xs[:2])


@each_program
def test_random_keys_are_those_of_the_sequence_to_the_bit(execution):
    layers = {"a": eqx.nn.Dropout(0.5), "b": eqx.nn.Dropout(0.5)}
    x, key = jnp.ones(32), jax.random.key(0)
    m = gx.branch(tuple, layers, execution=execution)
    expected = gx.Parallel(layers)(x, key=key)
    assert same_arrays(m(x, key=key), expected) and not same_arrays(*expected)
    silent = eqx.nn.inference_mode(m)
    assert same_arrays(silent(x), (x, x)) and same_arrays(silent(x, key=key), (x, x))


@each_program
def test_branches_that_differ_in_a_number_run_with_their_own(execution):
    class Power(eqx.Module):
        exponent: float

        def __call__(self, x, *, scale=1.0):
            return scale * x**self.exponent

    m = gx.branch(tuple, Power(2.0), Power(3.0), execution=execution)
    np.testing.assert_allclose(jnp.stack(m(jnp.array(2.0))), [4, 8], rtol=1e-6)
    np.testing.assert_allclose(jnp.stack(m(jnp.array(2.0), scale=10.0)), [40, 80], rtol=1e-6)
    np.testing.assert_allclose(jnp.stack(m((2.0, 3.0))), [4, 27], rtol=1e-6)


@each_program
def test_branches_without_any_array_run_too(execution):
    m = gx.branch(tuple, double, double, execution=execution)
    assert [int(y) for y in m(3)] == [6, 6] and [int(y) for y in m((3, 4))] == [6, 8]
    assert [y.tolist() for y in m(jnp.arange(2))] == [[0, 2], [0, 2]]


@each_program
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_dtypes_are_kept(execution, dtype):
    m = gx.branch(tuple, linear(3, 2, 0, dtype), linear(3, 2, 1, dtype), execution=execution)
    x = jnp.ones(3, dtype)
    for y, layer in zip(m(x), m, strict=True):
        assert y.dtype == dtype
        np.testing.assert_allclose(y.astype(float), layer(x).astype(float), rtol=1e-2, atol=1e-2)


@each_program
def test_outputs_may_be_any_pytree(execution):
    layer = gx.Chain(linear=linear(3, 2), split=lambda y: {"y": y, "pair": (y[0], y[1])})
    m = gx.branch(tuple, layer, layer, execution=execution)
    first, second = m(jnp.ones(3))
    assert first.keys() == {"y", "pair"} and float(second["pair"][1]) == float(second["y"][1])


@each_program
def test_norms_that_pass_a_state_on_but_keep_none_run_too(execution):
    layers = {"a": eqx.nn.LayerNorm(3), "b": eqx.nn.LayerNorm(3)}
    m, x = gx.branch(jnp.stack, layers, execution=execution), jnp.arange(3.0)
    state = eqx.nn.State(m)
    expected = gx.Parallel(layers, op=jnp.stack)(x)
    np.testing.assert_allclose(m(x), expected, rtol=1e-6)
    np.testing.assert_allclose(m(x, state)[0], expected, rtol=1e-6)


@each_program
def test_op_may_keep_a_state(execution):
    class Count(eqx.Module):
        index: eqx.nn.StateIndex

        def __init__(self):
            self.index = eqx.nn.StateIndex(jnp.array(0))

        def __call__(self, ys, state):
            return sum(ys), state.set(self.index, state.get(self.index) + 1)

    m = gx.branch(Count(), double, double, execution=execution)
    y, state = m(jnp.array(3), eqx.nn.State(m))
    assert int(y) == 12 and int(state.get(m.op.index)) == 1


@each_program
def test_the_program_is_traced_once_for_all_branches(execution):
    traced = []

    class Layer(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            traced.append(1)
            return self.weight * x

    layers = [Layer(jnp.array(float(i))) for i in range(5)]
    assert float(gx.branch(sum, *layers, execution=execution)(jnp.array(2.0))) == 20
    assert len(traced) == 1
    gx.branch(sum, *layers)(jnp.array(2.0))
    assert len(traced) == 6


@each_execution
def test_execution_survives_tree_maps_slices_and_edits(execution):
    m = branches(execution)
    for other in (
        jax.tree.map(lambda leaf: leaf, m),
        m[:2],
        m.replace_where("a", lambda layer: layer),
    ):
        assert other.execution == execution and type(other) is gx.Parallel
    assert jax.tree.structure(m) == jax.tree.structure(branches(execution))


# --- What cannot be one program ---


@each_program
@pytest.mark.parametrize(
    ("a", "b", "x", "types"),
    [
        (linear(3, 2), linear(3, 4), jnp.ones(3), ("Linear", "Linear")),
        (linear(3, 2), eqx.nn.LayerNorm(3), jnp.ones(3), ("Linear", "LayerNorm")),
        (
            linear(3, 2),
            eqx.nn.Linear(3, 2, use_bias=False, key=jax.random.key(0)),
            jnp.ones(3),
            None,
        ),
        (linear(3, 2), linear(3, 2, dtype=jnp.bfloat16), jnp.ones(3), ("Linear", "Linear")),
        (double, square, jnp.ones(3), ("double", "square")),
        (double, double, (jnp.ones(3), jnp.ones(2)), None),
        (double, double, (jnp.ones(3), jnp.arange(3)), None),
        (double, double, (1, 2.0), ("int", "float")),
        (eqx.nn.Dropout(0.5), eqx.nn.Dropout(0.5, inference=True), jnp.ones(3), None),
    ],
)
def test_branches_or_inputs_that_differ_are_refused_by_label(execution, a, b, x, types):
    m = gx.branch(tuple, left=a, right=b, execution=execution)
    with pytest.raises(ValueError) as caught:
        m(x)
    message = str(caught.value)
    assert message.startswith(
        f"execution={execution!r} of Parallel needs branches and inputs of one "
    )
    assert message.endswith("Use 'sequential'.")
    assert "'right' with" in message and "differs from 'left' with" in message
    if types is not None:
        assert f"'right' with {types[1]} differs from 'left' with {types[0]}" in message


@each_program
def test_a_state_is_refused(execution):
    norm = eqx.nn.BatchNorm(3, "batch", mode="batch")
    m = gx.branch(tuple, norm, norm, execution=execution)
    with pytest.raises(ValueError) as caught:
        m(jnp.ones(3), eqx.nn.State(m))
    assert str(caught.value) == (
        f"execution={execution!r} runs all branches of Parallel as one program, which cannot thread a "
        "state through them. Use 'sequential'."
    )


@each_execution
@pytest.mark.parametrize("inner", [lambda: linear(3, 2), lambda: gx.Chain(up=linear(3, 2))])
def test_an_error_inside_a_branch_carries_one_note_with_its_path(execution, inner):
    m = gx.Chain(block=gx.branch(tuple, a=inner(), b=inner(), execution=execution))
    with pytest.raises(TypeError) as caught:
        m(jnp.ones(4))
    (note,) = [note for note in caught.value.__notes__ if note.startswith("In ")]
    deeper = ".up" if isinstance(inner(), gx.Chain) else ""
    assert note == f"In block.a{deeper}: Linear was given f32[4]"


def test_parallel_takes_an_execution_and_every_edit_of_it_is_checked():
    m = gx.Parallel(a=mlp(0), b=mlp(1), op=sum, execution="vmap")
    assert m.execution == "vmap" and gx.select(m, "").update(execution="scan").execution == "scan"
    message = "execution must be one of sequential, vmap, scan; got 'typo'"
    for make in (
        lambda: gx.Parallel(a=mlp(0), execution="typo"),
        lambda: gx.update(m, execution="typo"),
        lambda: gx.select(m, "").update(execution="typo"),
        lambda: gx.select(gx.Chain(part=m), "part").update(execution="typo"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
