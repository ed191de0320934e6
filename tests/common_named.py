"""Things that a model may hold, at the top of a module, where a name leads to them."""

import enum
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax

import graftax as gx


class Colour(enum.Enum):
    RED = "red"
    CRIMSON = "red"
    BLUE = 2


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Word(enum.StrEnum):
    YES = "yes"


class Text(str, enum.Enum):  # noqa: UP042 (before Python had StrEnum)
    NO = "no"


class Switch(enum.Flag):
    A = 1
    B = 2


class Bits(enum.IntFlag):
    X = 1
    Y = 4


class Fraction(float, enum.Enum):
    HALF = 0.5


ENUMS = (
    *(Colour.RED, Colour.CRIMSON, Colour.BLUE, Size.LARGE, Word.YES, Text.NO, Fraction.HALF),
    *(Switch.A, Switch.A | Switch.B, Switch(0), Bits.X, Bits.X | Bits.Y),
)


class Holder(eqx.Module):
    """Holds anything, where JAX looks and where it does not."""

    seen: Any
    unseen: Any = eqx.field(static=True)

    def __call__(self, x):
        return x

    def shifted(self, x):
        return x + self.seen

    @property
    def prop(self):
        raise AssertionError("run by nobody")


class Lazy(eqx.Module):
    """Leaves fields to the defaults of the class."""

    weight: jax.Array
    scale: float = 2.0
    name: str = eqx.field(static=True, default="lazy")

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return self.scale * self.weight * x


class Both(NamedTuple):
    """A pair."""

    mu: Any
    nu: Any


class Block(gx.Chain):
    """A block."""


def square(x):
    """The square."""
    return x * x


@functools.wraps(square)
def twice(x):
    """Goes by the name of another function, and is found under its own nowhere."""
    return 2 * x


@jax.jit
def jitted(x):
    """Decorated where it is defined: the name leads to the decorated function."""
    return x + 1


@functools.lru_cache
def cached(x):
    """Likewise."""
    return x


@jax.custom_jvp
def with_rule(x):
    """Likewise."""
    return x


@eqx.filter_jit
def filter_jitted(x):
    """Likewise."""
    return x - 1


def where(pair):
    """The node to share."""
    return pair[1].weight


def get(pair):
    """What it shares."""
    return pair[0].weight


class Outer:
    """A class around others."""

    class Inner(eqx.Module):
        """Found by way of the outer class."""

        x: int = 1

    @staticmethod
    def static(x):
        """A function of a class."""
        return x


def other_module():
    """A class of the same short name as `Block`, from another module, and a function as `square`."""
    cls = type("Block", (gx.Chain,), {"__module__": "elsewhere"})
    namesake = lambda x: -x
    namesake.__module__, namesake.__qualname__ = "elsewhere", "square"
    return cls, namesake
