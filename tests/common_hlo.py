"""What tests of compiled programs share: their text, and three models with their twins by hand."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp

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
