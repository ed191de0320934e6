"""The one-level pair that Functors.jl builds everything on: `children` and `rebuild`."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from .errors import LabelError, did_you_mean
from .tree import DICT, INNER, Kind, Level, kind_of, level_of

N = TypeVar("N")


def children(node: Any) -> dict[Any, Any]:
    """The children of one node, by label or int position: `rebuild(node, children(node)) == node`.

    What a transparent wrapper holds stands in the wrapper's place, its own fields beside it. `None` is
    no child, as in JAX. Source: Functors.jl.

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


def rebuild(node: N, children: Mapping[Any, Any]) -> N:
    """The node with other children: `children(rebuild(node, c)) == c`. The node is left as it is.

    **Arguments:**

    - `node`: any pytree.
    - `children`: the new children under the keys that `graftax.children` gives, in any order. A
        container, list or dict may be given other keys: these become its children, in the order
        given, and a list numbers them anew. Other nodes keep the keys they have. The children may
        be anything: a mask is such a tree too, and holds no layers.

    **Returns:**

    A node of the same type.

    **Raises:**

    - `KeyError`: a key that the node does not have, or one that is missing.
    - `ValueError`: keys that cannot stand in the node, such as labels in a list.
    - `TypeError`: what is no layer, in the place of a layer of a container.

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
    kind, level = kind_of(node), level_of(node)
    held, own = _held_and_own(level)
    if kind is not None and held is not None and own.keys() <= new.keys():
        below = {key: child for key, child in new.items() if key not in own}
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
    return kind is DICT or all(isinstance(key, str | int) for key in keys)
