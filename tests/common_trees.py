"""Random trees of every kind of node, and what is in them by a second, plainer account.

Nothing here asks graftax what a tree is made of: `entries` is the definition that tests hold it to.
"""

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import hypothesis.strategies as st
import jax.tree_util as jtu

import graftax as gx

LABELS = ("a", "b", "ab", "stem", "norm1", "n1")


class Dot:
    """A leaf like no other: equal to itself alone, and callable, so that it can stand anywhere."""

    def __call__(self, x: Any) -> Any:
        return x


class Box(eqx.Module):
    """A module of a user's own. Its field `layers` is a field like any other."""

    a: Any
    layers: Any
    size: int = eqx.field(static=True, default=3)

    def __call__(self, x: Any) -> Any:
        return x


class Gain(gx.Wrapper):
    """A wrapper with a field of its own."""

    gain: Any

    def __init__(self, layer: Any, gain: Any):
        super().__init__(layer)
        self.gain = gain


class Pair(NamedTuple):
    a: Any
    b: Any


@jtu.register_dataclass
@dataclasses.dataclass
class Record:
    a: Any
    norm1: Any
    size: int = dataclasses.field(default=3, metadata={"static": True})


@jtu.register_pytree_with_keys_class
class Row:
    """A sequence that JAX knows of by registration only."""

    def __init__(self, *items: Any):
        self.items = items

    def tree_flatten_with_keys(self):
        return [(jtu.SequenceKey(i), item) for i, item in enumerate(self.items)], None

    @classmethod
    def tree_unflatten(cls, _, items):
        return cls(*items)


class Entry(NamedTuple):
    """A child: its key, its place among the positions of its parent (-1: it has none), their number."""

    key: Hashable
    place: int
    count: int
    child: Any


def _places(keys: Any, children: Any) -> list[Entry]:
    pairs = zip(keys, children, strict=True)
    return [Entry(key, i, len(children), child) for i, (key, child) in enumerate(pairs)]


def _fields(node: Any, *names: str) -> list[Entry]:
    return [Entry(name, -1, 0, getattr(node, name)) for name in names]


def entries(node: Any) -> list[Entry]:
    """The children of a node that is no wrapper, as the design has them; none for a leaf."""
    match node:
        case gx.StructuralLayer():
            found = _places(node.labels or range(len(node)), list(node))
            names = {gx.Parallel: ["op", "init"], gx.SkipConnection: ["op", "shortcut"]}
            found += _fields(node, *names.get(type(node), []))
        case Pair():
            found = _places(("a", "b"), node)
        case list() | tuple():
            found = _places(range(len(node)), node)
        case OrderedDict():
            found = [Entry(key, -1, 0, child) for key, child in node.items()]
        case dict():
            found = [Entry(key, -1, 0, node[key]) for key in sorted(node)]
        case Box():
            found = _fields(node, "a", "layers")
        case Record():
            found = _fields(node, "a", "norm1")
        case Row():
            found = _places(range(len(node.items)), node.items)
        case _:
            found = []
    return [entry for entry in found if entry.child is not None]


class Place(NamedTuple):
    """A node, and the way to it. What wrappers hold has the same way as the wrapper."""

    trail: tuple[Entry, ...]
    node: Any
    wrapped: bool


def places(node: Any, trail: tuple[Entry, ...] = (), wrapped: bool = False) -> list[Place]:
    """Every node, parents first."""
    found = [Place(trail, node, wrapped)]
    if isinstance(node, gx.Wrapper):
        found += places(node.layer, trail, True)
        if isinstance(node, Gain) and node.gain is not None:
            entry = Entry("gain", -1, 0, node.gain)
            found += places(node.gain, (*trail, entry))
        return found
    for entry in entries(node):
        found += places(entry.child, (*trail, entry))
    return found


# --- Random trees ---

# Each group can be sorted, as JAX asks of the keys of a dict. Some keys are equal across groups, and
# yet are not the same key: 1, True, 1.0 and "1".
_KEYS = (
    LABELS,
    ("my key", "a.b", "0", "1", "a", "*", "", "x-y", "None", "é", "नाम"),
    (-1, 0, 1, 2),
    (False, True),
    ((0,), (1, 2)),
    (0.0, 1.0, 2.5),
)


def _keys_may_be_none() -> bool:
    """Older JAX cannot flatten an OrderedDict that has the key None: a fault of its own, mended since."""
    try:
        return jtu.DictKey(None).key is None
    except TypeError:
        return False


NONE = (None,) if _keys_may_be_none() else ()
"""None, where it can be a key."""
_MIXED_KEYS = (0, 1, 2, "a", "b", "n1", "my key", *NONE, (1, 2), b"a", 2.5)


class Plan(NamedTuple):
    """A tree still to be made: beartype draws random numbers, which a strategy must not."""

    make: Callable[..., Any]
    children: Sequence[Any]

    def __call__(self) -> Any:
        return self.make([child() if isinstance(child, Plan) else child for child in self.children])


def _some(keys: Sequence[Any], count: int = 3) -> st.SearchStrategy:
    return st.lists(st.sampled_from(keys), unique=True, max_size=count)


def _default_dict(pairs: Iterable[tuple[Any, Any]]) -> defaultdict:
    return defaultdict(list, pairs)


@st.composite
def _dicts(draw: Any, anything: st.SearchStrategy) -> Plan:
    kind = draw(st.sampled_from([dict, OrderedDict, _default_dict]))
    keys = draw(_some(_MIXED_KEYS if kind is OrderedDict else draw(st.sampled_from(_KEYS))))
    children = [draw(anything) for _ in keys]
    return Plan(lambda made: kind(zip(keys, made, strict=True)), children)


@st.composite
def _containers(draw: Any, layers: st.SearchStrategy) -> Plan:
    kind = draw(st.sampled_from([gx.Chain, gx.Parallel, gx.SkipConnection]))
    children = draw(st.lists(layers, min_size=int(kind is gx.Parallel), max_size=4))
    labels = draw(st.permutations(LABELS))[: len(children)] if draw(st.booleans()) else None
    extra = () if kind is gx.Chain else ("op",)
    if kind is gx.SkipConnection and draw(st.booleans()):
        extra += ("shortcut",)

    def make(made: list) -> Any:
        layers, others = made[: len(children)], made[len(children) :]
        options = dict(zip(extra, others, strict=True))
        if labels is None:
            return kind(*layers, **options)
        return kind(**dict(zip(labels, layers, strict=True)), **options)

    return Plan(make, [*children, *(draw(layers) for _ in extra)])


def _plans(make: Callable[..., Any], *children: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(*children).map(lambda drawn: Plan(lambda made: make(*made), drawn))


_dots = _plans(Dot)


def _with_gain(layer: Any, gain: Any) -> Any:
    # A wrapper does not hide a name of what it holds.
    return layer if "gain" in gx.children(layer) else Gain(layer, gain)


def _layers(layers: st.SearchStrategy, anything: st.SearchStrategy) -> st.SearchStrategy:
    """What can be called, and so can stand in a container."""
    return st.one_of(
        _containers(layers),
        _containers(layers),
        _plans(gx.Vmap, layers),
        _plans(_with_gain, layers, _dots),
        _plans(Box, anything, anything),
    )


def _others(anything: st.SearchStrategy) -> st.SearchStrategy:
    several = st.lists(anything, max_size=3)
    return st.one_of(
        several.map(lambda drawn: Plan(list, drawn)),
        several.map(lambda drawn: Plan(tuple, drawn)),
        several.map(lambda drawn: Plan(lambda made: Row(*made), drawn)),
        _plans(Pair, anything, anything),
        _plans(Record, anything, anything),
        _dicts(anything),
        _dicts(anything),
    )


def _nodes(depth: int) -> tuple[st.SearchStrategy, st.SearchStrategy]:
    """(layers, nodes of any kind), both at most `depth` levels deep."""
    if depth == 0:
        return _dots, st.one_of(_dots, _dots, _dots, st.none())
    layers, anything = _nodes(depth - 1)
    upper = _layers(layers, anything)
    return st.one_of(upper, _dots), st.one_of(upper, _others(anything), _dots)


trees = st.one_of(_layers(*_nodes(3)), _layers(*_nodes(3)), _others(_nodes(3)[1]))
"""Plans of random trees of containers, wrappers, modules, sequences, dicts and registered nodes."""
