"""One level of a pytree: the children of a node, and the node with other children.

Everything that walks or edits a model stands on this pair. The idea is that of Functors.jl: the whole
traversal algebra follows from it. Outside it is `children` and `rebuild` (`functor.py`), which speak of
keys; inside it is `level_of` and `replaced`, which number the children, because a wrapper may have two
under one key, and because a dict for each node would cost more than all the rest of a walk.

A traversal that needs nothing but nodes is `nodes_of` or a recursion by `map_children`. Three are loops of
their own, each for what it carries along: `walk` the path, `search` the states of a pattern, `edited` the
branch of addresses that is left.
"""

import abc
import copy
import functools
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np

from .fields import dynamic_fields as dynamic_fields
from .types import Self


class _Inner:
    """The key under which a transparent wrapper holds its layer. It never shows in a path."""

    def __repr__(self) -> str:
        return "INNER"


INNER = _Inner()


class Level(NamedTuple):
    """The children of one node, in the order of `jax.tree.leaves`.

    The first `positions` of them can be reached by position too, as `model[0]`.
    """

    keys: Sequence[Hashable]
    children: Sequence[Any]
    positions: int


# Without the Python function that makes a NamedTuple: most levels of a model are made here.
_new_level: Callable[[tuple[Any, ...]], Level] = functools.partial(tuple.__new__, Level)


class Kind(NamedTuple):
    """How the nodes of one type are taken apart and put together. Children are numbered."""

    level: Callable[[Any], Level]
    replace: Callable[[Any, Mapping[int, Any]], Any]
    rearrange: Callable[[Any, list[tuple[Hashable, Any]]], Any] | None


def values_of(module: Any) -> dict[str, Any]:
    """The `__dict__` of an Equinox module, not by way of Equinox's `__getattribute__`: it is slow."""
    return object.__getattribute__(module, "__dict__")


def shallow_copy(module: Any, /, **fields: Any) -> Any:
    """The module with other fields, made without `__init__`, as JAX makes it when unflattening."""
    new = object.__new__(type(module))
    values_of(new).update(values_of(module), **fields)
    return new


def _module_kind(cls: type) -> Kind:
    names = dynamic_fields(cls)

    def level(node: Any) -> Level:
        return _new_level((names, list(map(values_of(node).get, names)), 0))

    def replace(node: Any, new: Mapping[int, Any]) -> Any:
        return shallow_copy(node, **{names[i]: child for i, child in new.items()})

    return Kind(level, replace, None)


class TreeNode(abc.ABC):
    """A node that says itself how it is taken apart and put together."""

    @abc.abstractmethod
    def tree_level(self) -> Level:
        """Its children, in the order of `jax.tree.leaves`, with their labels. `INNER` shows in no path."""

    @abc.abstractmethod
    def tree_replace(self, new: Mapping[int, Any]) -> Self:
        """The same node with other children, given by number."""

    def tree_check(self, new: Mapping[int, Any]) -> None:
        """Raise `TypeError` or `ValueError` for children that no edit may leave in it. None, by default."""
        del new

    # None, not a method, where the children are fixed.
    tree_rearrange: Any = None
    """`(items) -> Self`: the node with these `(label, child)` pairs for children, in this order."""


def _own_kind(cls: type[TreeNode]) -> Kind:
    # The functions of the class: a bound method of a module is a module to Equinox, and making one
    # flattens all that the node holds.
    return Kind(cls.tree_level, cls.tree_replace, cls.tree_rearrange)


def _with_items(items: Sequence[Any], new: Mapping[int, Any]) -> list[Any]:
    changed = list(items)
    for i, child in new.items():
        changed[i] = child
    return changed


def _rearranged_sequence(node: Any, items: list[tuple[Hashable, Any]]) -> Any:
    for key, _ in items:
        if isinstance(key, str):
            raise ValueError(
                f"A {type(node).__name__} has positions, not labels: {key!r} cannot stand in it. "
                "Give the value without a label."
            )
    return type(node)(child for _, child in items)


_SEQUENCE = Kind(
    lambda node: Level(range(len(node)), node, len(node)),
    lambda node, new: type(node)(_with_items(node, new)),
    _rearranged_sequence,
)
_NAMED_TUPLE = Kind(
    lambda node: Level(node._fields, node, len(node)),
    lambda node, new: type(node)(*_with_items(node, new)),
    None,
)


def _dict_keys(node: Mapping[Any, Any]) -> list[Any]:
    if isinstance(node, OrderedDict):
        return list(node)
    try:
        return sorted(node)
    except TypeError:
        return list(node)


def _dict_level(node: Mapping[Any, Any]) -> Level:
    keys = _dict_keys(node)
    return Level(keys, [node[key] for key in keys], 0)


def _dict_replace(node: Any, new: Mapping[int, Any]) -> Any:
    keys = _dict_keys(node)
    changed = copy.copy(node)
    changed.update({keys[i]: child for i, child in new.items()})
    return changed


def _dict_rearrange(node: Any, items: list[tuple[Hashable, Any]]) -> Any:
    keys = [key for key, _ in items]
    if len(set(keys)) != len(keys) or None in keys:
        raise ValueError(f"The keys of a dict must be given and must differ: {keys}.")
    changed = copy.copy(node)
    changed.clear()
    changed.update(items)
    return changed


DICT = Kind(_dict_level, _dict_replace, _dict_rearrange)


def _key_of(entry: Any) -> Any:
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)


def _distinct(keys: list[Any]) -> Sequence[Hashable]:
    """The keys, or numbers where a class gives two children one key, or one that no dict can hold."""
    try:
        return keys if len(set(keys)) == len(keys) else range(len(keys))
    except TypeError:
        return range(len(keys))


def _registered_level(node: Any) -> Level:
    pairs, _ = jtu.tree_flatten_with_path(node, is_leaf=lambda other: other is not node)
    entries = [path[0] for path, _ in pairs]
    is_sequence = all(isinstance(entry, jtu.SequenceKey) for entry in entries)
    children = [child for _, child in pairs]
    return Level(_distinct(list(map(_key_of, entries))), children, len(pairs) * is_sequence)


def _registered_replace(node: Any, new: Mapping[int, Any]) -> Any:
    children, treedef = eqx.tree_flatten_one_level(node)
    return jtu.tree_unflatten(treedef, _with_items(children, new))


# A type that JAX may have been told of, or not: each node has to be asked.
_UNKNOWN = Kind(_registered_level, _registered_replace, None)
_LEAVES = (
    *(bool, int, float, complex, str, bytes, type(None), type, np.ndarray, functools.partial),
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType),
)


# The cache is what makes a walk cheap: most nodes of a model are of a handful of types.
@functools.lru_cache(maxsize=4096)
def _kind_of_type(cls: type) -> Kind | None:
    if issubclass(cls, TreeNode):
        return _own_kind(cls)
    if issubclass(cls, eqx.Module):
        return _module_kind(cls)
    if cls in (list, tuple):
        return _SEQUENCE
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _NAMED_TUPLE
    if cls in (dict, OrderedDict, defaultdict):
        return DICT
    return None if cls in _LEAVES or issubclass(cls, jax.Array) else _UNKNOWN


def kind_of(node: Any) -> Kind | None:
    """How a node is taken apart and put together; None if it is a leaf to JAX."""
    kind = _kind_of_type(type(node))
    return None if kind is _UNKNOWN and jtu.all_leaves([node]) else kind


# --- The pair that everything stands on, with the children by number ---


def level_of(node: Any) -> Level:
    """The children of a node; none for a leaf."""
    kind = kind_of(node)
    return Level((), (), 0) if kind is None else kind.level(node)


def replaced(node: Any, new: Mapping[int, Any]) -> Any:
    """The node with other children, by their numbers in its level; itself if there are none."""
    kind = kind_of(node)
    return node if kind is None or not new else kind.replace(node, new)


def with_children(node: Any, new: Mapping[int, Any]) -> Any:
    """`replaced`, as an edit leaves it: raises for what the node says cannot stand in it."""
    if isinstance(node, TreeNode):
        type(node).tree_check(node, new)
    return replaced(node, new)


def map_children(change: Callable[[Any], Any], node: Any) -> Any:
    """The node with each of its children changed; itself if that changes none."""
    children = level_of(node).children
    pairs = ((i, child, change(child)) for i, child in enumerate(children) if child is not None)
    return replaced(node, {i: new for i, child, new in pairs if new is not child})


def nodes_of(tree: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """(address, node) of every node, parents first, of those that share a path, each.

    An address numbers the way to a node, child by child.
    """
    pending: list[tuple[tuple[int, ...], Any]] = [((), tree)]
    while pending:
        address, node = pending.pop()
        yield address, node
        children = level_of(node).children
        pending.extend(((*address, i), children[i]) for i in reversed(range(len(children))))


def any_type(tree: Any, holds: Callable[[type], bool]) -> bool:
    """Whether something holds for the type of any node."""
    # Asked of each layer that an edit touches: no addresses, and no generator.
    pending = [tree]
    for node in pending:
        if holds(type(node)):
            return True
        kind = kind_of(node)
        if kind is not None:
            pending.extend(kind.level(node).children)
    return False
