"""Every path that `walk` prints is a pattern that finds its node, whatever the key."""

import decimal
import enum
import fractions
import math
from collections import OrderedDict
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax.tree_util as jtu
import numpy as np
import pytest
from hypothesis import example, given, settings

import graftax as gx
from graftax.paths.parse import parse
from graftax.paths.path import join
from graftax.paths.search import search


class Colour(enum.Enum):
    RED = 1
    ODD = "a]b>'"


class Shade(str, enum.Enum):  # noqa: UP042 - format() of a StrEnum is another
    DARK = "dark"
    SPACED = "dark red"


class Number(enum.IntEnum):
    ONE = 1
    LARGE = 10**30


class Flags(enum.Flag):
    A = 1
    B = 2


class Half(float, enum.Enum):
    HALF = 0.5


class Own(str):
    """A label with an equality of its own: no two are alike."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Loud(str):
    """A label that is alike in capitals, and shows otherwise."""

    def __eq__(self, other: object) -> bool:
        return str(self).upper() == str(other).upper()

    def __hash__(self) -> int:
        return hash(str(self).upper())

    def __repr__(self) -> str:
        return "LOUD"


class Point(NamedTuple):
    x: Any
    y: Any


class Thing:
    """A key that says of itself what it is told to."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


STRINGS: list[str] = [
    "", "a", "a.b", "a[0]", "a]", "[a", "it's", '"', "'\"", "\\", "\\'", "a\\", "\n", "\t", "\0", "\x7f",
    "**", "*", "?", "{a,b}", "{", "}", ",", " ", " a", "0", "01", "-1", "1", "12", "1.0", "True", "None",
    "class", "été", "नाम", "x-y", "€", "\ud800", "\U0001f600", "²", "١", "ª", "<a>", "[<a>]", "['a']",
    "e\u0301", "\u200d", "#", "\N{NO-BREAK SPACE}", "a" * 5000, "lambda: 0", "0x1", "1_0", "INNER",
]  # fmt: skip
OTHERS: list[Any] = [
    0, 1, -1, 12, 10**17, 10**18, -(10**18), 10**30, 2**1999, 2**2000, -(2**2000), 10**5000, -(10**5000),
    True, False, None, ..., 0.0, -0.0, 1.0, 2.5, -2.5, 1e300, 5e-324, math.inf, -math.inf, math.nan,
    1j, complex(-0.0, 1), (), (1,), (1, 2), ("a", (b"b", None)), (math.nan,), (10**5000, 1), (Colour.RED,),
    (True, 1.5, "]"), b"", b"a", b"']\\\n", b"\x00\xff", frozenset({1}), range(3), Colour.RED, Colour.ODD,
    Number.LARGE, Shade.DARK, Shade.SPACED, Flags.A, Flags.A | Flags.B, Half.HALF, np.int64(3),
    np.uint8(4), np.float64(0.25), np.float32(0.125), np.bool_(True), np.str_("np"), np.bytes_(b"np"),
    Own("own"), Own("b.c"), Loud("loud"), Loud("other one"), Point(1, 2), decimal.Decimal("1.5"),
    fractions.Fraction(1, 3), fractions.Fraction(3), int, abs, np.float32, object(), Thing(""), Thing("a"),
    Thing(">]"), Thing("<>"), Thing("<a>]b>"), Thing("\\]"), Thing("\\"), Thing("[<"), Thing("\n\0\u200d"),
    Thing("'"), Thing('"]'), Thing("<\\>"), Thing("'a'"), Thing("\ud800"), Thing("é" * 3000),
]  # fmt: skip


def pinned(path: str) -> str:
    return f".{path}" if path else ""


def check(tree: Any) -> None:
    """Each node at its path, and no other."""
    for path, node in gx.walk(tree):
        found = search(tree, parse(pinned(path)))
        assert [id(match.node) for match in found] == [id(node)], path
        assert found[0].path == path
        # Without the dot before a single component it is a label, which may stand elsewhere too.
        assert any(match.node is node for match in search(tree, parse(path))), path


@pytest.mark.parametrize("key", STRINGS + OTHERS, ids=lambda key: type(key).__name__)
def test_each_kind_of_key_is_found_by_its_path(key):
    check({key: [object(), {key: object()}]})
    check({"a": {key: object()}})


def test_all_kinds_of_keys_side_by_side_are_kept_apart():
    every = OrderedDict((key, object()) for key in STRINGS + OTHERS)
    assert len(every) > 120
    check(every)
    check([every, {"a": every}])
    for key, value in every.items():
        assert gx.select(every, pinned(join("", key))).one() is value


keys = st.one_of(
    st.text(),
    st.text(alphabet="ab01.[]{}*?'\"\\<>,:- \n"),
    st.integers(),
    st.integers(-(10**700), 10**700),
    st.booleans(),
    st.none(),
    st.floats(),
    st.complex_numbers(),
    st.binary(),
    st.dates(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.frozensets(st.integers(), max_size=2),
    st.sampled_from([*Colour, *Shade, *Number, *Flags]),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.text(alphabet="ab<>[]\\'\"\n.\0é", min_size=1).map(Thing),
)
keys = st.recursive(keys, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


@settings(max_examples=300, deadline=None)
@given(st.lists(keys, max_size=6, unique_by=(lambda key: key, lambda key: join("", key))))
@example([1, "1"])
@example(["1", True, 1.5])
def test_any_keys_side_by_side_are_found_by_their_paths(some):
    check(OrderedDict((key, [object()]) for key in some))


def test_a_number_is_the_number_where_there_is_one_and_else_its_digits():
    one, text = object(), object()
    assert gx.select(OrderedDict([("1", text), (1, one)]), ".1").nodes == (one,)
    assert gx.select(OrderedDict([("1", text), (1, one)]), "['1']").nodes == (text,)
    assert gx.select({"1": text}, ".1").nodes == (text,)


class Node:
    """A node of a user's own, with whatever keys it is given."""

    def __init__(self, keys: list[Any], children: list[Any]):
        self.keys, self.children = keys, children


jtu.register_pytree_with_keys(
    Node,
    lambda node: (list(zip(node.keys, node.children, strict=True)), node.keys),
    lambda keys, children: Node(keys, list(children)),
)


class Strange:
    """A key entry that JAX knows nothing of."""

    def __init__(self, text: str):
        self.text = text

    def __str__(self) -> str:
        return self.text


ENTRIES = {
    "attributes": [jtu.GetAttrKey("a"), jtu.GetAttrKey("b_1")],
    "attributes with odd names": [jtu.GetAttrKey("a.b"), jtu.GetAttrKey("0"), jtu.GetAttrKey("")],
    "numbers": [jtu.FlattenedIndexKey(0), jtu.FlattenedIndexKey(1)],
    "a sequence": [jtu.SequenceKey(0), jtu.SequenceKey(1)],
    "keys of a dict": [jtu.DictKey("a"), jtu.DictKey(1), jtu.DictKey(2.5), jtu.DictKey((1, 2))],
    "of several kinds": [jtu.SequenceKey(0), jtu.DictKey("0"), jtu.GetAttrKey("a")],
    "of its own": [Strange(".x"), Strange("[0]"), Strange("")],
    "the same twice": [jtu.GetAttrKey("a"), jtu.GetAttrKey("a")],
    "a number twice": [jtu.SequenceKey(1), jtu.DictKey(1)],
    "none that a dict can hold": [jtu.DictKey([1]), jtu.DictKey("a")],
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_the_keys_of_a_registered_node_are_found(kind):
    node = Node(ENTRIES[kind], [{"w": object()} for _ in ENTRIES[kind]])
    check(node)
    check({"a": [node, node.children[0]]})
    children = gx.children(node)
    assert list(map(id, children.values())) == list(map(id, node.children))
    new = {key: object() for key in children}
    assert gx.children(gx.rebuild(node, new)) == new
