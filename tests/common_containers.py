"""What tests of containers share: exact layers, typed blocks, random nested containers."""

import contextlib
import functools
import keyword
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import hypothesis.strategies as st
import jax
import jaxtyping
import pytest

import graftax as gx

# Words that are names of arguments, of methods of tuples, or soft keywords: all are fine as labels.
AWKWARD_LABELS = (
    "self",
    "cls",
    "key",
    "x",
    "count",
    "index",
    "state",
    "inputs",
    "args",
    "match",
    "é",
)
RESERVED_LABELS = frozenset(
    [
        "layers",
        "op",
        "init",
        "execution",
        "times",
        "shortcut",
        "items",
        "labels",
        "is_stateful",
        "replace_where",
        "inference",
    ]
)


class Affine(eqx.Module):
    """`x -> scale * x + shift`. Its numbers are leaves, and exact on Python integers."""

    scale: Any = 1
    shift: Any = 0

    def __call__(self, x):
        return self.scale * x + self.shift


class Bottleneck(gx.SkipConnection):
    """A block with a type of its own: nothing else is needed."""


class Stem(NamedTuple):
    """Children with types that a type checker knows."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm


def linear(n_in: int, n_out: int, seed: int = 0, dtype: Any = None) -> eqx.nn.Linear:
    return eqx.nn.Linear(n_in, n_out, dtype=dtype, key=jax.random.key(seed))


def double(x):
    return 2 * x


def increment(x):
    return x + 1


def square(x):
    return x * x


MAKERS = {
    "Chain": gx.Chain,
    "Parallel": gx.Parallel,
    "SkipConnection": gx.SkipConnection,
    "PairwiseFusion": gx.PairwiseFusion,
    "Repeat": gx.Repeat,
    "branch": functools.partial(gx.branch, tuple),
}
each_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
CONTAINERS = (gx.Chain, gx.Parallel, gx.SkipConnection, gx.PairwiseFusion, gx.Repeat)


@contextlib.contextmanager
def without_annotation_checks() -> Iterator[None]:
    """As users run graftax: what only an annotation forbids must have a message of our own."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def same_arrays(a: Any, b: Any) -> bool:
    """Equal structure, and equal leaves down to the bit and dtype."""
    return bool(eqx.tree_equal(a, b, typematch=True))


def same(leaf):
    return leaf


def pick(ys):
    return ys[0] + ys[1][0]


def model(seed=0, dtype=None):
    """Every container, wrappers, and layers in `op` and `shortcut`."""
    return gx.Chain(
        stem=linear(3, 4, seed, dtype),
        act=jax.nn.gelu,
        block=Bottleneck(
            up=linear(4, 5, seed + 1, dtype),
            down=gx.Remat(linear(5, 4, seed + 2, dtype)),
            shortcut=linear(4, 4, seed + 3, dtype),
        ),
        heads=gx.Parallel(
            a=gx.Repeat(inner=linear(4, 4, seed + 4, dtype), times=2),
            b=gx.PairwiseFusion(only=linear(4, 4, seed + 5, dtype)),
            op=gx.Chain(pick=pick, last=linear(4, 2, seed + 6, dtype)),
        ),
    )


class Written(eqx.Module):
    """The same model, written by hand."""

    stem: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    shortcut: eqx.nn.Linear
    a: eqx.nn.Linear
    b: eqx.nn.Linear
    last: eqx.nn.Linear

    def __call__(self, x):
        x = jax.nn.gelu(self.stem(x))
        x = self.down(self.up(x)) + self.shortcut(x)
        return self.last(self.a(self.a(x)) + self.b(x))


def by_hand(m):
    return Written(
        m.stem,
        m.block.up,
        m.block.down.layer,
        m.block.shortcut,
        m.heads.a.inner,
        m.heads.b.only,
        m.heads.op.last,
    )


# Kept to plain values: beartype draws random numbers, which hypothesis forbids inside a strategy.
labels = st.one_of(
    st.sampled_from(AWKWARD_LABELS),
    st.from_regex(r"[a-z][a-z0-9_]{0,4}", fullmatch=True),
).filter(lambda label: not keyword.iskeyword(label) and label not in RESERVED_LABELS)

_MAKERS = {
    "chain": gx.Chain,
    "skip": gx.SkipConnection,
    "bottleneck": Bottleneck,
    "parallel": functools.partial(gx.Parallel, op=sum),
    "repeat": functools.partial(gx.Repeat, times=2),
}


class Spec(NamedTuple):
    """A container, said in plain words: `build` makes it."""

    kind: str
    labels: tuple[str, ...] | None
    children: list


@st.composite
def _specs(draw: Any, children: Any) -> Spec:
    kind = draw(st.sampled_from(tuple(_MAKERS)))
    inside = draw(st.lists(children, min_size=1, max_size=1 if kind == "repeat" else 4))
    names = st.lists(labels, min_size=len(inside), max_size=len(inside), unique=True).map(tuple)
    return Spec(kind, draw(st.none() | names), inside)


def containers(max_leaves: int = 8) -> st.SearchStrategy[Spec]:
    """Containers nested at random, labelled or not, with `Affine` layers in them; for `build`."""
    numbers = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
    return _specs(st.recursive(numbers, _specs, max_leaves=max_leaves))


def build(spec: Spec | tuple[int, int]) -> Any:
    if not isinstance(spec, Spec):
        return Affine(*spec)
    children, make = [build(child) for child in spec.children], _MAKERS[spec.kind]
    if spec.labels is None:
        return make(*children)
    return make(dict(zip(spec.labels, children, strict=True)))


def evaluate(layer: Any, x: Any) -> Any:
    """What a random container computes, said again without graftax's call."""
    children = tuple(layer) if isinstance(layer, gx.StructuralLayer) else ()
    in_order = functools.partial(functools.reduce, lambda value, child: evaluate(child, value))
    match layer:
        case Affine():
            return layer.scale * x + layer.shift
        case gx.Chain():
            return in_order(children, x)
        case gx.SkipConnection():
            return in_order(children, x) + x
        case gx.Parallel():
            return sum(evaluate(child, x) for child in children)
        case gx.Repeat():
            return in_order(children * layer.times, x)
    raise AssertionError(f"no rule for {layer}")
