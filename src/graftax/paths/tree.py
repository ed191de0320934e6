"""One level of a pytree: the children of a node, and the node with other children.

Everything that walks or edits a model stands on the three functions of `Kind`. The idea is that of
Functors.jl (`children` and `rebuild`): the whole traversal algebra follows from the one-level pair.
"""

import copy
import dataclasses
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.tree_util as jtu

from .errors import did_you_mean


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


def shallow_copy(module: Any, **fields: Any) -> Any:
    """The module with other fields, made without `__init__`, as JAX makes it when unflattening."""
    new = object.__new__(type(module))
    new.__dict__.update(module.__dict__)
    new.__dict__.update(fields)
    return new


@functools.lru_cache(maxsize=4096)
def _dynamic_fields(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls) if not f.metadata.get("static", False))


def dynamic_fields(cls: Any) -> tuple[str, ...]:
    """The names of the fields of an Equinox module that are pytree children."""
    return _dynamic_fields(cls)


def _module_kind(cls: type) -> Kind:
    names = dynamic_fields(cls)

    def level(node: Any) -> Level:
        get = node.__dict__.get
        return Level(names, [get(name) for name in names], 0)

    def replace(node: Any, new: Mapping[int, Any]) -> Any:
        return shallow_copy(node, **{names[i]: child for i, child in new.items()})

    return Kind(level, replace, None)


def _own_kind(cls: type) -> Kind:
    return Kind(
        lambda node: node._gx_level(),
        lambda node, new: node._gx_replace(new),
        getattr(cls, "_gx_rearrange", None) and (lambda node, items: node._gx_rearrange(items)),
    )


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
    return Level([_key_of(path[0]) for path, _ in pairs], [child for _, child in pairs], 0)


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


def _flat_items(node: Any) -> list[tuple[Any, int, Hashable, Any]]:
    """(holder, number in the holder, key, child), with what a wrapper holds in the wrapper's place."""
    level = level_of(node)
    items = []
    for i, (key, child) in enumerate(zip(level.keys, level.children, strict=True)):
        if key is INNER:
            items.extend(_flat_items(child))
        elif child is not None:
            items.append((node, i, key, child))
    return items


def children(node: Any) -> dict[Any, Any]:
    """The children of one node, by label or int position: `rebuild(node, children(node)) == node`.

    What a transparent wrapper holds stands in the wrapper's place. `None` is no child, as in JAX.
    Source of the idea: Functors.jl.

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
    return {key: child for _, _, key, child in _flat_items(node)}


def rebuild(node: Any, children: Mapping[Any, Any]) -> Any:
    """The node with other children: `children(rebuild(node, c)) == c`. The node is left as it is.

    **Arguments:**

    - `node`: any pytree.
    - `children`: the new children under the keys that `graftax.children` gives. A container, list
        or dict may be given others: they become its children. Other nodes keep the keys they have.

    **Returns:**

    A node of the same type.

    **Raises:**

    - `KeyError`: a key that the node does not have, or one that is missing.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.rebuild({"a": 1, "b": 2}, {"a": 10, "b": 20})
    {'a': 10, 'b': 20}
    >>> gx.rebuild([1, 2], {0: 5})
    [5]

    ```
    """
    items = _flat_items(node)
    keys = [key for _, _, key, _ in items]
    if set(keys) == set(children):
        return _refill(node, dict(children))
    kind = kind_of(type(node))
    if kind is not None and kind.rearrange is not None:
        extra = [key for key in children if not isinstance(key, (str, int))]
        if not extra:
            return kind.rearrange(node, list(children.items()))
    unknown = [key for key in children if key not in keys]
    missing = [key for key in keys if key not in children]
    hint = "".join(did_you_mean(str(key), [str(k) for k in keys]) for key in unknown[:1])
    raise KeyError(
        f"{type(node).__name__} has the children {keys}; unknown: {unknown}, missing: {missing}.{hint}"
    )


def _refill(node: Any, new: Mapping[Any, Any]) -> Any:
    kind = kind_of(type(node))
    if kind is None:
        return node
    level = kind.level(node)
    changed = {}
    for i, (key, child) in enumerate(zip(level.keys, level.children, strict=True)):
        if key is INNER:
            changed[i] = _refill(child, new)
        elif child is not None:
            changed[i] = new[key]
    return kind.replace(node, changed)
