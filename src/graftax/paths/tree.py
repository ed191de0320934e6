"""One level of a pytree: the children of a node, and the node with other children.

Everything that walks or edits a model stands on the three functions of `Kind`. The idea is that of
Functors.jl (`children` and `rebuild`): the whole traversal algebra follows from the one-level pair.
"""

import copy
import dataclasses
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.tree_util as jtu

from .errors import LabelError, did_you_mean


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


@functools.lru_cache(maxsize=4096)
def dynamic_fields(cls: Any, beside: str | None = None) -> tuple[str, ...]:
    """The names of the fields of an Equinox module that are pytree children, but for `beside`."""
    fields = [f.name for f in dataclasses.fields(cls) if not f.metadata.get("static", False)]
    return tuple(name for name in fields if name != beside)


def _module_kind(cls: type) -> Kind:
    names = dynamic_fields(cls)

    def level(node: Any) -> Level:
        return Level(names, list(map(values_of(node).get, names)), 0)

    def replace(node: Any, new: Mapping[int, Any]) -> Any:
        return shallow_copy(node, **{names[i]: child for i, child in new.items()})

    return Kind(level, replace, None)


def _own_kind(cls: Any) -> Kind:
    # The functions of the class: a bound method of a module is a module to Equinox, and making one
    # flattens all that the node holds.
    return Kind(cls._gx_level, cls._gx_replace, getattr(cls, "_gx_rearrange", None))


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


_DICT = Kind(_dict_level, _dict_replace, _dict_rearrange)


def _is_child_of(node: Any) -> Callable[[Any], bool]:
    return lambda other: other is not node


def _key_of(entry: Any) -> Hashable:
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    return str(entry)


def _registered_level(node: Any) -> Level:
    pairs, _ = jtu.tree_flatten_with_path(node, is_leaf=_is_child_of(node))
    entries = [path[0] for path, _ in pairs]
    is_sequence = all(isinstance(entry, jtu.SequenceKey) for entry in entries)
    children = [child for _, child in pairs]
    return Level([_key_of(entry) for entry in entries], children, len(pairs) * is_sequence)


def _registered_replace(node: Any, new: Mapping[int, Any]) -> Any:
    children, treedef = jtu.tree_flatten(node, is_leaf=_is_child_of(node))
    return jtu.tree_unflatten(treedef, _with_items(children, new))


_REGISTERED = Kind(_registered_level, _registered_replace, None)


# The cache is what makes a walk cheap: most nodes of a model are of a handful of types.
@functools.lru_cache(maxsize=4096)
def kind_of(cls: type) -> Kind | None:
    """How nodes of type `cls` are walked; None if they are leaves to JAX."""
    if hasattr(cls, "_gx_level"):
        return _own_kind(cls)
    if issubclass(cls, eqx.Module):
        return _module_kind(cls)
    if cls in (list, tuple):
        return _SEQUENCE
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _NAMED_TUPLE
    if cls in (dict, OrderedDict, defaultdict):
        return _DICT
    if cls is not type(None) and jtu.default_registry.is_node(cls):
        return _REGISTERED
    return None


def level_of(node: Any) -> Level:
    """The children of a node; none for a leaf."""
    kind = kind_of(type(node))
    return Level((), (), 0) if kind is None else kind.level(node)


def types_in(tree: Any) -> set[type]:
    """The types of all nodes."""
    found = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        cls = type(node)
        found.add(cls)
        if (kind := kind_of(cls)) is not None:
            pending.extend(kind.level(node).children)
    return found


def children(node: Any) -> dict[Any, Any]:
    """The children of one node, by label or int position: `rebuild(node, children(node)) == node`.

    What a transparent wrapper holds stands in the wrapper's place; a field of the wrapper itself
    goes before a child of that name inside. `None` is no child, as in JAX. Source: Functors.jl.

    **Arguments:**

    - `node`: any pytree: a container, an Equinox module, a list, a dict, an optimiser state, ...

    **Returns:**

    A dict in the order of `jax.tree.leaves`. Empty for a leaf.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.children({"a": 1, "b": (2, 3)})
    {'a': 1, 'b': (2, 3)}
    >>> gx.children([5, 6])
    {0: 5, 1: 6}

    ```
    """
    held, own = _held_and_own(level_of(node))
    inside = {} if held is None else children(held)
    return inside | {key: child for key, (_, child) in own.items()}


def _held_and_own(level: Level) -> tuple[Any, dict[Hashable, tuple[int, Any]]]:
    """What a wrapper holds, None for others; and the children under keys, with their numbers."""
    held, own = None, {}
    for i, (key, child) in enumerate(zip(level.keys, level.children, strict=True)):
        if key is INNER:
            held = child
        elif child is not None:
            own[key] = i, child
    return held, own


def rebuild(node: Any, children: Mapping[Any, Any]) -> Any:
    """The node with other children: `children(rebuild(node, c)) == c`. The node is left as it is.

    **Arguments:**

    - `node`: any pytree.
    - `children`: the new children under the keys that `graftax.children` gives, in any order. A
        container, list or dict may be given other keys: these become its children, in the order
        given, and a list numbers them anew. Other nodes keep the keys they have.

    **Returns:**

    A node of the same type.

    **Raises:**

    - `KeyError`: a key that the node does not have, or one that is missing.
    - `ValueError`: keys that cannot stand in the node, such as labels in a list.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.rebuild({"a": 1, "b": 2}, {"a": 10, "b": 20})
    {'a': 10, 'b': 20}
    >>> gx.rebuild([1, 2], {0: 5})
    [5]

    ```
    """
    return _rebuilt(node, dict(children))


def _rebuilt(node: Any, new: dict[Any, Any]) -> Any:
    kind, level = kind_of(type(node)), level_of(node)
    held, own = _held_and_own(level)
    if kind is not None and held is not None and own.keys() <= new.keys():
        # A field of a wrapper hides the child of that name inside, which stays as it is.
        hidden = {key: child for key, child in children(held).items() if key in own}
        below = {k: hidden.get(k, v) for k, v in new.items() if k not in own or k in hidden}
        changed = {i: new[key] for key, (i, _) in own.items()}
        return kind.replace(node, {0: _rebuilt(held, below), **changed})
    if own.keys() == new.keys():
        changed = {i: new[key] for key, (i, _) in own.items()}
        return kind.replace(node, changed) if kind is not None and changed else node
    if kind is not None and kind.rearrange is not None and _are_keys_of(kind, new):
        return kind.rearrange(node, list(new.items()))
    keys = list(children(node))
    unknown = [key for key in new if key not in keys]
    missing = [key for key in keys if key not in new]
    hint = did_you_mean(str(unknown[0]), map(str, keys)) if unknown else ""
    raise LabelError(
        f"{type(node).__name__} has the children {keys}; unknown: {unknown}, missing: {missing}.{hint}"
    )


def _are_keys_of(kind: Kind, keys: Iterable[Any]) -> bool:
    return kind is _DICT or all(isinstance(key, str | int) for key in keys)
