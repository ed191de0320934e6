"""What tests of the calling convention share: layers that show what they were given."""

import functools
import zlib
from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def folded(key: Any, *labels: Hashable) -> Any:
    """The law for keys, written out: `fold_in(key, crc32(label))`, or `fold_in(key, position)`."""
    for label in labels:
        data = zlib.crc32(label.encode()) if isinstance(label, str) else label
        key = jax.random.fold_in(key, data)
    return key


def draw(seen: list, *, key: Any) -> list:
    """A layer that takes a key and shows it: it appends the key to a list."""
    return [*seen, key]


def join(lists: tuple) -> list:
    """An `op` that is called once: the lists one after the other."""
    return functools.reduce(list.__add__, lists)


def same_keys(got: list, expected: list) -> bool:
    """Whether two lists hold the same keys in the same order."""
    data = [[jax.random.key_data(key).tolist() for key in keys] for keys in (got, expected)]
    return data[0] == data[1]


class Tally(eqx.nn.StatefulLayer):
    """Writes its digit into the state: the state then spells the order of all calls."""

    index: eqx.nn.StateIndex
    digit: int = eqx.field(static=True)

    def __call__(self, x, state, *, key=None):
        seen = state.get(self.index)
        return x + self.digit, state.set(self.index, 10 * seen + self.digit)


class OwnTally(eqx.Module):
    """A user's own module that declares `state` and is no `StatefulLayer`."""

    index: eqx.nn.StateIndex
    digit: int = eqx.field(static=True)

    def __call__(self, x, state):
        return x + self.digit, state.set(self.index, 10 * state.get(self.index) + self.digit)

    def method(self, x, *, state):
        return self(x, state)


class TallyOfTwo(eqx.Module):
    """A stateful `op` of two inputs."""

    index: eqx.nn.StateIndex
    digit: int = eqx.field(static=True)

    def __call__(self, a, b, state):
        return a + b, state.set(self.index, 10 * state.get(self.index) + self.digit)


# One index for all, so that layers in different places write into the same state.
INDEX = eqx.nn.StateIndex(jnp.array(0))


def tally(digit: int) -> Tally:
    return Tally(INDEX, digit)


def own(digit: int) -> OwnTally:
    return OwnTally(INDEX, digit)


def of_two(digit: int) -> TallyOfTwo:
    return TallyOfTwo(INDEX, digit)


class Attention(eqx.Module):
    """Attention with one head and dropout, as an `op`: it gets `(query, key, value)`."""

    dropout: eqx.nn.Dropout

    def __init__(self, p: float = 0.0):
        self.dropout = eqx.nn.Dropout(p)

    def __call__(
        self,
        projected: tuple,
        *,
        mask: Bool[Array, "to of"] | None = None,
        key: Any = None,
    ) -> Float[Array, "to dim"]:
        query, keys, value = projected
        scores = query @ keys.T / jnp.sqrt(query.shape[-1])
        if mask is not None:
            scores = jnp.where(mask, scores, -1e9)
        return self.dropout(jax.nn.softmax(scores, axis=-1), key=key) @ value
