"""Labels cost nothing at run time: the compiled program is that of a hand-written Equinox module."""

import operator
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_calling import Attention, folded

KEY = jax.random.key(11)
KEYS = jax.random.split(KEY, 16)


def compiled(function, *arguments):
    """The text of the optimised program of `function(*arguments)`; all their arrays are its inputs."""
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    leaves, treedef = jax.tree.flatten(arrays)

    def program(*leaves):
        outputs = function(*eqx.combine(jax.tree.unflatten(treedef, leaves), rest))
        return [leaf for leaf in jax.tree.leaves(outputs) if eqx.is_array(leaf)]

    return jax.jit(program).lower(*leaves).compile().as_text()


TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


def stripped(text: str) -> str:
    """The text without metadata: where each instruction came from, and the tables of these places."""
    sections = text.split("\n\n")
    kept = [section for section in sections if section.strip().split("\n")[0] not in TABLES]
    return re.sub(r",? metadata=\{[^{}]*\}", "", "\n\n".join(kept))


def op_names(text: str) -> set[str]:
    return set(re.findall(r'op_name="([^"]*)"', text))


def instructions(text: str) -> int:
    return len(re.findall(r"^\s+(?:ROOT )?%?\S+ = ", text, re.MULTILINE))


def gradient(call):
    """The gradient of a loss with respect to the model, its value and what else `call` gives."""

    def run(model, *rest):
        def loss(model):
            y, *others = call(model, *rest)
            return jnp.sum(y**2), others

        return eqx.filter_value_and_grad(loss, has_aux=True)(model)

    return run


# --- An MLP with skips ---


def linear(i, before, after):
    return eqx.nn.Linear(before, after, key=KEYS[i])


def our_mlp(act=jax.nn.relu):
    return gx.Chain(
        stem=linear(0, 3, 8),
        block1=gx.SkipConnection(up=linear(1, 8, 16), act=act, down=linear(2, 16, 8)),
        block2=gx.SkipConnection(up=linear(3, 8, 5), act=act, shortcut=linear(4, 8, 5)),
        head=linear(5, 5, 2),
    )


class HandMLP(eqx.Module):
    stem: eqx.nn.Linear
    up1: eqx.nn.Linear
    down1: eqx.nn.Linear
    up2: eqx.nn.Linear
    shortcut2: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self):
        self.stem, self.up1, self.down1 = linear(0, 3, 8), linear(1, 8, 16), linear(2, 16, 8)
        self.up2, self.shortcut2, self.head = linear(3, 8, 5), linear(4, 8, 5), linear(5, 5, 2)

    def __call__(self, x):
        x = self.stem(x)
        x = self.down1(jax.nn.relu(self.up1(x))) + x
        x = jax.nn.relu(self.up2(x)) + self.shortcut2(x)
        return self.head(x)


# --- A residual convolution block with running statistics ---


def conv(i, before, after, size):
    return eqx.nn.Conv2d(before, after, size, padding="SAME", use_bias=False, key=KEYS[i])


def norm(channels):
    return eqx.nn.BatchNorm(channels, axis_name="batch", mode="batch", momentum=0.9)


class Residual(gx.SkipConnection):
    """The type of the block: nothing else is needed."""


def our_conv():
    return gx.Vmap(
        gx.Chain(
            block=Residual(
                conv1=conv(0, 2, 4, 3),
                norm1=norm(4),
                act=jax.nn.relu,
                conv2=conv(1, 4, 4, 3),
                norm2=norm(4),
                shortcut=gx.Chain(conv=conv(2, 2, 4, 1), norm=norm(4)),
            ),
            act=jax.nn.relu,
        ),
        axis_name="batch",
    )


class HandConv(eqx.Module):
    conv1: eqx.nn.Conv2d
    norm1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    norm2: eqx.nn.BatchNorm
    conv_around: eqx.nn.Conv2d
    norm_around: eqx.nn.BatchNorm

    def __init__(self):
        self.conv1, self.norm1 = conv(0, 2, 4, 3), norm(4)
        self.conv2, self.norm2 = conv(1, 4, 4, 3), norm(4)
        self.conv_around, self.norm_around = conv(2, 2, 4, 1), norm(4)

    def __call__(self, x, state):
        y, state = self.norm1(self.conv1(x), state)
        y, state = self.norm2(self.conv2(jax.nn.relu(y)), state)
        around, state = self.norm_around(self.conv_around(x), state)
        return jax.nn.relu(y + around), state


def run_hand_conv(model, x, state):
    return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)


# --- A transformer block with mask and dropout ---


def our_transformer():
    attention = gx.Parallel(
        query=gx.Vmap(linear(0, 8, 8)),
        key=gx.Vmap(linear(1, 8, 8)),
        value=gx.Vmap(linear(2, 8, 8)),
        op=Attention(0.2),
    )
    block = gx.Chain(
        attention=gx.SkipConnection(
            norm=gx.Vmap(eqx.nn.LayerNorm(8)),
            mix=attention,
            output=gx.Vmap(linear(3, 8, 8)),
            dropout=eqx.nn.Dropout(0.1),
        ),
        mlp=gx.SkipConnection(
            norm=gx.Vmap(eqx.nn.LayerNorm(8)),
            up=gx.Vmap(linear(4, 8, 16)),
            act=jax.nn.gelu,
            down=gx.Vmap(linear(5, 16, 8)),
            dropout=eqx.nn.Dropout(0.1),
        ),
    )
    return gx.Chain(encoder=gx.Chain(block))


class HandTransformer(eqx.Module):
    norm1: eqx.nn.LayerNorm
    query: eqx.nn.Linear
    key: eqx.nn.Linear
    value: eqx.nn.Linear
    attention: Attention
    output: eqx.nn.Linear
    dropout1: eqx.nn.Dropout
    norm2: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    dropout2: eqx.nn.Dropout

    def __init__(self):
        self.norm1, self.norm2 = eqx.nn.LayerNorm(8), eqx.nn.LayerNorm(8)
        self.query, self.key, self.value = linear(0, 8, 8), linear(1, 8, 8), linear(2, 8, 8)
        self.attention, self.output = Attention(0.2), linear(3, 8, 8)
        self.up, self.down = linear(4, 8, 16), linear(5, 16, 8)
        self.dropout1 = self.dropout2 = eqx.nn.Dropout(0.1)

    def __call__(self, x, mask, key):
        # The numbers drawn are those of graftax: a key folded with each label on the way.
        in_block = folded(key, "encoder", 0)
        into = folded(in_block, "attention")
        y = jax.vmap(self.norm1)(x)
        y = jax.vmap(self.query)(y), jax.vmap(self.key)(y), jax.vmap(self.value)(y)
        y = self.attention(y, mask=mask, key=folded(into, "mix", "op"))
        x = self.dropout1(jax.vmap(self.output)(y), key=folded(into, "dropout")) + x
        into = folded(in_block, "mlp")
        y = jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norm2)(x)))
        return self.dropout2(jax.vmap(self.down)(y), key=folded(into, "dropout")) + x


# --- The comparison ---

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
