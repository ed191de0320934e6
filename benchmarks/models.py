"""The models that are measured: the same blocks from graftax's parts, and written by hand."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

import graftax as gx

WIDTH = 4
LEAVES_PER_BLOCK = 20

_LINEAR = eqx.nn.Linear(WIDTH, WIDTH, key=jax.random.key(0))
_NORM = eqx.nn.LayerNorm(WIDTH)


def linear() -> eqx.nn.Linear:
    """A layer with arrays of its own, made without drawing random numbers."""
    return jax.tree.map(jnp.copy, _LINEAR)


def norm() -> eqx.nn.LayerNorm:
    """A normalisation with arrays of its own."""
    return jax.tree.map(jnp.copy, _NORM)


def mixed(values: tuple) -> jax.Array:
    """What stands for attention: the cost of a step is not measured here."""
    query, key, value = values
    return query * key + value


def block() -> gx.Chain:
    """A transformer block: 20 leaves, 6 of them layers with a weight and a bias."""
    mix = gx.Parallel(query=linear(), key=linear(), value=linear(), op=mixed)
    return gx.Chain(
        attention=gx.SkipConnection(norm=norm(), mix=mix, out=linear()),
        mlp=gx.SkipConnection(norm=norm(), up=linear(), act=jax.nn.gelu, down=linear()),
    )


def encoder(leaves: int) -> gx.Chain:
    """A labelled model of about so many leaves: most are in blocks that stand by position."""
    blocks = [block() for _ in range(leaves // LEAVES_PER_BLOCK)]
    return gx.Chain(embed=linear(), encoder=gx.Chain(*blocks), head=linear())


class Attention(eqx.Module):
    """The same by hand."""

    norm: eqx.nn.LayerNorm
    query: eqx.nn.Linear
    key: eqx.nn.Linear
    value: eqx.nn.Linear
    out: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.norm(x)
        return self.out(mixed((self.query(y), self.key(y), self.value(y)))) + x


class MLP(eqx.Module):
    """The same by hand."""

    norm: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    act: Callable
    down: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(self.act(self.up(self.norm(x)))) + x


class Block(eqx.Module):
    """The same by hand."""

    attention: Attention
    mlp: MLP

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.mlp(self.attention(x))


class Encoder(eqx.Module):
    """The same by hand."""

    embed: eqx.nn.Linear
    encoder: list[Block]
    head: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.embed(x)
        for each in self.encoder:
            x = each(x)
        return self.head(x)


def as_parts(model: gx.Chain) -> gx.Chain:
    """The containers of `encoder` made anew around the layers of one."""
    blocks = []
    for each in model.encoder:
        attention, mlp = each.attention, each.mlp
        query, key, value = attention.mix
        mix = gx.Parallel(query=query, key=key, value=value, op=mixed)
        blocks.append(
            gx.Chain(
                attention=gx.SkipConnection(norm=attention.norm, mix=mix, out=attention.out),
                mlp=gx.SkipConnection(norm=mlp.norm, up=mlp.up, act=mlp.act, down=mlp.down),
            )
        )
    return gx.Chain(embed=model.embed, encoder=gx.Chain(*blocks), head=model.head)


def by_hand(model: gx.Chain) -> Encoder:
    """The modules written by hand around the layers of `encoder`."""
    blocks = []
    for each in model.encoder:
        attention, mlp = each.attention, each.mlp
        query, key, value = attention.mix
        blocks.append(
            Block(
                attention=Attention(attention.norm, query, key, value, attention.out),
                mlp=MLP(norm=mlp.norm, up=mlp.up, act=mlp.act, down=mlp.down),
            )
        )
    return Encoder(model.embed, blocks, model.head)
