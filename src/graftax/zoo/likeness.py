"""Whether a model is one that a configuration describes, and if not, where it first differs."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax

from ..paths.fields import is_static
from ..paths.path import join
from ..paths.tree import INNER, level_of
from ..structure import Remat
from ..surgery.state import is_index
from ..surgery.tied import opened

_ARRAYS = (jax.Array, jax.ShapeDtypeStruct)


class Difference(NamedTuple):
    """Where a model differs from another, and how."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path or 'the whole'} {self.why}"


def difference(model: Any, expected: Any) -> Difference | None:
    """Where and how a model first differs from another, but for the numbers in it; None if nowhere.

    `Remat`, which changes no number, and the running statistics of layers are passed over.

    **Arguments:**

    - `model`: the model.
    - `expected`: the other, in the same mode; `jax.ShapeDtypeStruct` may stand for arrays.
    """
    (found, ties), (other, expected_ties) = opened(model), opened(expected)
    for first in _differences(found, other, ""):
        return first
    ours, theirs = (
        {frozenset(_path(found, end) for end in link) for link in links}
        for links in (ties, expected_ties)
    )
    for link in ours ^ theirs:
        one, another = sorted(link)
        is_tied = "is tied" if link in ours else "is not tied"
        return Difference(another, f"{is_tied} to {one}")
    return None


def _path(model: Any, address: tuple[int, ...]) -> str:
    path = ""
    for i in address:
        level = level_of(model)
        model = level.children[i]
        path = path if level.keys[i] is INNER else join(path, level.keys[i])
    return path


def _differences(found: Any, expected: Any, path: str) -> Iterator[Difference]:
    found, expected = _bare(found), _bare(expected)
    if isinstance(expected, _ARRAYS) and isinstance(found, _ARRAYS):
        if found.shape != expected.shape:
            yield Difference(path, f"has shape {found.shape}, not {expected.shape}")
        return
    if type(found) is not type(expected):
        yield Difference(path, f"is {_named(found)}, not {_named(expected)}")
        return
    if is_index(expected):
        return
    for name in _settings(expected):
        ours, theirs = getattr(found, name, None), getattr(expected, name, None)
        if not _is_same(ours, theirs):
            yield Difference(path, f"has {name}={ours!r}, not {theirs!r}")
    level, other = level_of(found), level_of(expected)
    if not other.keys and not _is_same(found, expected):
        yield Difference(path, f"is {_named(found)}, not {_named(expected)}")
    if list(level.keys) != list(other.keys):
        yield Difference(path, f"has {_said(level.keys)}, not {_said(other.keys)}")
        return
    for key, ours, theirs in zip(level.keys, level.children, other.children, strict=True):
        yield from _differences(ours, theirs, path if key is INNER else join(path, key))


def _bare(node: Any) -> Any:
    while isinstance(node, Remat):
        node = node.layer
    return node


def _settings(node: Any) -> list[str]:
    """The names of the fields of a module that are no children."""
    if not isinstance(node, eqx.Module):
        return []
    return [field.name for field in dataclasses.fields(node) if is_static(field)]


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, functools.partial) and isinstance(b, functools.partial):
        return (a.func, a.args, a.keywords) == (b.func, b.args, b.keywords)
    # An axis may be counted from either end; a function is only itself.
    return a is b or (type(a) is type(b) and a == b)


def _named(node: Any) -> str:
    """A function by its name, a number as it is, all else by its type."""
    if isinstance(node, functools.partial):
        given = "".join(f", {name}={value!r}" for name, value in node.keywords.items())
        return f"{_named(node.func)}{given}"
    if isinstance(node, eqx.Module | list | tuple | dict) or not hasattr(node, "__name__"):
        is_plain = isinstance(node, bool | int | float | str) or node is None
        return repr(node) if is_plain else f"a {type(node).__name__}"
    return node.__name__


def _said(keys: Any) -> str:
    texts = [str(key) for key in keys]
    return ", ".join(texts) if texts else "nothing inside"
