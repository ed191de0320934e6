"""SkipConnection: layers, and the way round them."""

import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

import graftax as gx
from common_containers import (
    Bottleneck,
    double,
    increment,
    linear,
    same_arrays,
    square,
    without_annotation_checks,
)


class Residual(eqx.Module):
    """The hand-written block that the containers below must agree with."""

    up: eqx.nn.Linear
    down: eqx.nn.Linear
    way_round: eqx.nn.Linear

    def __call__(self, x):
        return self.down(jax.nn.gelu(self.up(x))) + self.way_round(x)


def blocks(dtype=None):
    up, down, round_ = linear(3, 5, 0, dtype), linear(5, 2, 1, dtype), linear(3, 2, 2, dtype)
    return Residual(up, down, round_), gx.SkipConnection(
        up=up, act=jax.nn.gelu, down=down, shortcut=round_
    )


def test_the_input_is_added_to_the_output():
    assert gx.SkipConnection(double)(3) == 9
    assert gx.SkipConnection(double, square, increment)(3) == 37 + 3
    assert (
        gx.SkipConnection(double).op is operator.add and gx.SkipConnection(double).shortcut is None
    )


def test_op_is_given_the_output_first_and_the_shortcut_second():
    calls = []

    def op(y, around):
        calls.append((y, around))
        return y - around

    assert gx.SkipConnection(double, op=op)(3) == 3
    assert gx.SkipConnection(double, op=op, shortcut=square)(3) == -3
    assert calls == [(6, 3), (6, 9)]


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9))
def test_law_of_the_skip_connection(a, b, x):
    m = gx.SkipConnection(
        first=lambda x: x - a,
        second=lambda x: b * x,
        op=lambda y, around: 2 * y - around,
        shortcut=lambda x: a * x + b,
    )
    assert m(x) == 2 * (b * (x - a)) - (a * x + b)


def test_layers_are_those_of_a_chain():
    layers = {"up": linear(3, 5), "act": jnp.tanh, "down": linear(5, 3)}
    x = jnp.arange(3.0)
    expected = gx.Chain(layers)(x) + x
    assert (gx.SkipConnection(layers)(x) == expected).all()
    assert (gx.SkipConnection(*layers.values())(x) == expected).all()
    assert (gx.SkipConnection(gx.Chain(layers))(x) == expected).all()
    assert (gx.Parallel(gx.Chain(layers), gx.Chain(), op=operator.add)(x) == expected).all()


def test_without_layers_op_is_given_the_input_twice():
    assert gx.SkipConnection()(3) == 6
    assert gx.SkipConnection(op=operator.sub, shortcut=double)(3) == -3
    assert (gx.SkipConnection({})(jnp.ones(2)) == 2).all()


def test_a_tuple_goes_through_whole():
    assert gx.SkipConnection(lambda x: x[::-1])((1, 2)) == (2, 1, 1, 2)
    assert gx.SkipConnection(sum, op=lambda y, x: (y, x))(1, 2) == (3, (1, 2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_block_is_the_hand_written_one_to_the_bit_in_every_dtype(dtype):
    reference, m = blocks(dtype)
    xs = jnp.linspace(-1, 1, 12, dtype=dtype).reshape(4, 3)
    assert m(xs[0]).dtype == dtype and same_arrays(m(xs[0]), reference(xs[0]))
    run = lambda model: eqx.filter_jit(eqx.filter_vmap(model))(xs)
    assert same_arrays(run(m), run(reference))


def test_gradients_are_those_of_the_hand_written_block():
    reference, m = blocks()
    x = jnp.linspace(-1, 1, 3)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda model: (model(x) ** 2).sum()))
    of_m, of_reference = gradient(m), gradient(reference)
    pairs = [("up", "up"), ("down", "down"), ("shortcut", "way_round")]
    for ours, theirs in pairs:
        assert same_arrays(getattr(of_m, ours), getattr(of_reference, theirs))
    assert float(jnp.abs(of_m.shortcut.weight).sum()) > 0


def test_shortcut_is_a_labelled_child_for_paths_and_edits():
    _, m = blocks()
    assert [path for path, _ in gx.walk(m)] == [
        "",
        *("up", "up.weight", "up.bias", "act", "down", "down.weight", "down.bias", "op"),
        *("shortcut", "shortcut.weight", "shortcut.bias"),
    ]
    assert gx.select(m, "shortcut.weight").one() is m.shortcut.weight is m["shortcut"].weight
    x = jnp.ones(3)
    swapped = m.replace_where("shortcut", lambda layer: gx.Chain(layer, jnp.negative))
    np.testing.assert_allclose(
        swapped(x) + m.shortcut(x), m(x) - m.shortcut(x), rtol=1e-5, atol=1e-6
    )


def test_shortcut_and_op_draw_from_keys_of_their_own():
    drop = eqx.nn.Dropout(0.5)
    m = gx.SkipConnection(a=drop, op=lambda y, around: (y, around), shortcut=drop)
    x = jnp.ones(64)
    y, around = m(x, key=jax.random.key(0))
    assert not (y == around).all()
    again = gx.SkipConnection(b=double, a=drop, op=m.op, shortcut=drop)(x, key=jax.random.key(0))
    assert (again[0] == 2 * y).all() and (again[1] == around).all()


def test_an_op_with_parameters_gets_gradients():
    class Gate(eqx.Module):
        gate: jax.Array

        def __call__(self, y, x):
            return self.gate * y + (1 - self.gate) * x

    m = gx.SkipConnection(square, op=Gate(jnp.array(0.25)))
    assert float(m(3.0)) == 0.25 * 9 + 0.75 * 3
    assert float(eqx.filter_grad(lambda m: m(3.0))(m).op.gate) == 9 - 3


def test_a_subclass_is_a_block_with_a_type_of_its_own():
    m = Bottleneck(conv=double, shortcut=square, op=operator.sub)
    assert isinstance(m, Bottleneck) and isinstance(m, gx.SkipConnection) and m(3) == 6 - 9
    assert type(jax.tree.map(lambda leaf: leaf, m)) is Bottleneck


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"op": 3}, "op of SkipConnection must be callable; got 3 of type int."),
        ({"op": None}, "op of SkipConnection must be callable; got None of type NoneType."),
        (
            {"shortcut": "identity"},
            "Layer 'shortcut' of SkipConnection must be callable or None; got 'identity' of type str.",
        ),
    ],
)
def test_an_op_or_shortcut_that_is_no_callable_is_refused(keywords, message):
    with without_annotation_checks(), pytest.raises(TypeError) as caught:
        gx.SkipConnection(double, **keywords)
    assert str(caught.value) == message


def test_shapes_that_do_not_add_up_are_noted_at_op():
    with pytest.raises(TypeError, match="add got incompatible shapes") as caught:
        gx.Chain(block=gx.SkipConnection(linear=linear(3, 2)))(jnp.ones(3))
    (note,) = [note for note in caught.value.__notes__ if note.startswith("In ")]
    assert note == "In block.op: add was given f32[2], f32[3]"


# --- One rule for every op ---


def test_an_op_of_a_tuple_is_given_the_output_and_the_shortcut_as_one():
    x = jnp.arange(3.0)
    dense = gx.SkipConnection(conv=linear(3, 2), op=jnp.concatenate)
    assert jnp.array_equal(dense(x), jnp.concatenate([linear(3, 2)(x), x]))
    assert gx.SkipConnection(double, op=tuple)(3) == (6, 3)
    assert gx.SkipConnection(double, shortcut=square, op=max)(3) == 9
    assert gx.PairwiseFusion(double, increment, op=max)((3, 100)) == (6, 101)


def test_an_op_that_is_a_layer_is_given_the_tuple_and_takes_context():
    class Weighted(eqx.Module):
        share: jax.Array

        def __call__(self, pair, *, more=0.0):
            y, around = pair
            return self.share * y + around + more

    block = gx.SkipConnection(double, op=Weighted(jnp.array(10.0)))
    assert float(block(3.0)) == 63.0 and float(block(3.0, more=1.0)) == 64.0
    inside = gx.SkipConnection(double, op=gx.Chain(pick=operator.itemgetter(0), more=increment))
    assert inside(3) == 7


@pytest.mark.parametrize("wrap", [gx.Wrapper, gx.Remat, lambda f: gx.Cast(f, jnp.float32)])
def test_a_wrapped_op_of_two_arguments_is_one_of_two_arguments(wrap):
    subtract = lambda a, b: a - b
    assert float(gx.SkipConnection(double, op=wrap(subtract))(jnp.array(3.0))) == 3.0
    three = [lambda x: x, double, square]
    assert float(gx.Parallel(*three, op=wrap(subtract))(jnp.array(3.0))) == 3 - 6 - 9


@pytest.mark.parametrize("make", [gx.SkipConnection, gx.Parallel, gx.PairwiseFusion])
def test_op_and_shortcut_are_reached_like_any_child(make):
    model = make(a=double, op=max)
    assert model.op is model["op"] is max and "op" in model
    assert gx.select(model, ".op").one() is max
    block = gx.SkipConnection(a=double, shortcut=square)
    assert block.shortcut is block["shortcut"] is square and "shortcut" in block
    assert "shortcut" not in gx.SkipConnection(a=double)
    assert set(block._ipython_key_completions_()) == {"a", "op", "shortcut"}


@pytest.mark.parametrize(
    "make", [gx.SkipConnection, gx.Parallel, gx.PairwiseFusion, gx.Chain, gx.Repeat]
)
def test_an_async_function_is_no_layer(make):
    async def later(x):
        return x

    with pytest.raises(TypeError, match=r"Layer 'a' of .* cannot be an async function: later"):
        make(a=later)
    if make not in (gx.Chain, gx.Repeat):
        with pytest.raises(TypeError, match=r"Layer 'op' of .* cannot be an async function"):
            make(a=double, op=later)
