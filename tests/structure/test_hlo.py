"""Labels cost nothing at run time: the compiled program is that of a hand-written Equinox module."""

import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_calling import Attention
from common_hlo import (
    KEY,
    TABLES,
    HandConv,
    HandMLP,
    HandTransformer,
    compiled,
    gradient,
    instructions,
    linear,
    op_names,
    our_conv,
    our_mlp,
    our_transformer,
    run_hand_conv,
    stripped,
)

TOKENS = jax.random.normal(KEY, (6, 8))
MASK = jnp.tril(jnp.ones((6, 6), bool))


def with_state(make) -> tuple[Any, Any]:
    return eqx.nn.make_with_state(make)()


def cases():
    """name: (our call, our arguments, the call by hand, its arguments). A call gives a list."""
    x = jnp.arange(3.0)
    yield (
        "MLP with skips",
        (lambda m, x: [m(x)], (our_mlp(), x)),
        (lambda m, x: [m(x)], (HandMLP(), x)),
    )
    yield (
        "MLP with skips, a batch",
        (lambda m, x: [jax.vmap(m)(x)], (our_mlp(), jnp.ones((4, 3)))),
        (lambda m, x: [jax.vmap(m)(x)], (HandMLP(), jnp.ones((4, 3)))),
    )
    (ours, state), (hand, hand_state) = with_state(our_conv), with_state(HandConv)
    images = jax.random.normal(KEY, (3, 2, 5, 5))
    yield (
        "residual convolution with state",
        (lambda m, x, state: m(x, state=state), (ours, images, state)),
        (run_hand_conv, (hand, images, hand_state)),
    )
    yield (
        "transformer with mask and dropout",
        (
            lambda m, x, mask, key: [m(x, mask=mask, key=key)],
            (our_transformer(), TOKENS, MASK, KEY),
        ),
        (lambda m, x, mask, key: [m(x, mask, key)], (HandTransformer(), TOKENS, MASK, KEY)),
    )


CASES = {name: sides for name, *sides in cases()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("direction", ["forward", "gradient"])
def test_the_program_is_the_one_of_a_hand_written_module(name, direction):
    (our_call, ours), (hand_call, hand) = CASES[name]
    if direction == "gradient":
        our_call, hand_call = gradient(our_call), gradient(hand_call)
    our_text, hand_text = compiled(our_call, *ours), compiled(hand_call, *hand)
    assert our_text != hand_text
    assert instructions(stripped(our_text)) > 10
    assert "metadata" not in stripped(our_text)
    assert stripped(our_text) == stripped(hand_text)


@pytest.mark.parametrize("name", CASES)
def test_both_programs_are_given_the_same_numbers(name):
    """So that programs of the same text have the same outputs."""
    (_, ours), (_, hand) = CASES[name]
    ours, hand = (jax.tree.leaves(eqx.filter(side, eqx.is_array)) for side in (ours, hand))
    assert len(ours) > 5 and all(eqx.tree_equal(a, b) for a, b in zip(ours, hand, strict=True))


def test_stripping_takes_away_the_metadata_and_nothing_else():
    text = compiled(lambda m, x: m(x), our_mlp(), jnp.arange(3.0))
    bare = stripped(text)
    assert "op_name" in text and "stem" in text
    for trace in ("metadata", "op_name", "source", "stack_frame", "stem", ".py", *TABLES):
        assert trace not in bare
    assert instructions(bare) == instructions(text)
    assert bare.splitlines()[0] == text.splitlines()[0]
    assert stripped(bare) == bare


DIFFERENT = {
    "another activation": lambda m: m.replace_where("block1.act", lambda act: jax.nn.silu),
    "another operation": lambda m: gx.select(m, "block1").update(op=operator.mul),
    "another order of parameters": lambda m: m[["head", "stem", "block1", "block2"]],
    "one layer more": lambda m: gx.select(m, "head").insert_after(extra=jnp.sin),
    "one layer less": lambda m: gx.select(m, "block1").remove(),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_comparison_tells_another_program(name):
    same = stripped(compiled(lambda m, x: m(x), HandMLP(), jnp.arange(3.0)))
    assert stripped(compiled(lambda m, x: m(x), our_mlp(), jnp.arange(3.0))) == same
    other = DIFFERENT[name](our_mlp())
    call = lambda m, x: m(x)
    if name == "another order of parameters":
        call = lambda m, x: m[["stem", "block1", "block2", "head"]](x)
        assert jnp.array_equal(call(other, jnp.arange(3.0)), our_mlp()(jnp.arange(3.0)))
    assert stripped(compiled(call, other, jnp.arange(3.0))) != same


def test_nesting_naming_and_wrapping_cost_nothing():
    layers = lambda: (linear(0, 3, 8), jnp.tanh, linear(1, 8, 3))
    a, b, c = layers()
    nested = gx.Chain(
        gx.Chain(),
        gx.Wrapper(gx.Chain(x=gx.Chain(y=gx.Chain(z=a)))),
        gx.Parallel(only=b, op=lambda outputs: outputs[0]),
        gx.Repeat(gx.SkipConnection(w=gx.Cast(c, jnp.float32), op=lambda y, x: y), times=1),
        eqx.nn.Sequential([gx.Chain()]),
    )
    texts = [
        stripped(compiled(lambda m, x: m(x), model, jnp.arange(3.0)))
        for model in (nested, gx.Chain(*layers()), eqx.nn.Sequential([a, eqx.nn.Lambda(b), c]))
    ]
    assert texts[0] == texts[1] == texts[2]


# --- The labels are there, in the metadata ---


def test_encoder_3_attention_query_is_found_in_an_operation():
    def block(i):
        return gx.Chain(
            attention=gx.Parallel(
                query=gx.Vmap(linear(i, 8, 8)),
                key=gx.Vmap(linear(i + 1, 8, 8)),
                value=gx.Vmap(linear(i + 2, 8, 8)),
                op=Attention(),
            ),
            mlp=gx.Vmap(linear(i + 3, 8, 8)),
        )

    model = gx.Chain(encoder=gx.Chain(*[block(i) for i in range(4)]))
    call = lambda m, x, mask: [m(x, mask=mask)]
    names = op_names(compiled(call, model, TOKENS, MASK))
    for i in range(4):
        assert any(f"/encoder/{i}/attention/query/" in name for name in names)
        assert any(f"/encoder/{i}/attention/op/" in name for name in names)
        assert any(f"/encoder/{i}/mlp/" in name for name in names)
    assert not any("encoder/4" in name for name in names)
    names = op_names(compiled(gradient(call), model, TOKENS, MASK))
    assert any("jvp(encoder)/3/attention/query/" in name for name in names)
    assert any("transpose(jvp(encoder))/3/attention/query/" in name for name in names)


def test_every_label_on_the_way_is_a_scope():
    """Before the compiler fuses anything, each operation is named by the path of its layer."""
    multiply = lambda x: x * 3.0
    model = gx.Chain(
        stem=multiply,
        body=gx.SkipConnection(
            up=gx.Parallel(multiply, gx.Remat(multiply), op=gx.Chain(sum=sum, out=multiply)),
            again=gx.Repeat(inside=multiply, times=1),
            shortcut=multiply,
            op=lambda y, x: y * x,
        ),
        fused=gx.Chain(gx.PairwiseFusion(only=multiply), lambda outputs: outputs[0]),
    )
    jaxpr = jax.make_jaxpr(lambda x: model(x))(jnp.arange(3.0))
    found = set()
    for equation in jaxpr.eqns:
        names = [str(equation.source_info.name_stack)]
        if "jaxpr" in equation.params:
            inside = equation.params["jaxpr"].eqns
            names = [f"{names[0]}/{each.source_info.name_stack}" for each in inside]
        found |= {name.rstrip("/") for name in names}
    assert found == {
        "stem",
        "body/up/0",
        "body/up/1",
        "body/up/op/sum",
        "body/up/op/out",
        "body/again/inside",
        "body/shortcut",
        "body/op",
        "fused/0/only",
    }
