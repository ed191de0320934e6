"""Paths as text, and the walk that yields them."""

import numbers
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeGuard

from .tree import INNER, kind_of


def spelled(key: Hashable) -> str:
    """The text of a key, which a glob is held against. What no glob can spell stands in brackets."""
    if isinstance(key, str):
        return str.__str__(key)  # of a member of a str enumeration, the str
    return str(int(key)) if _is_integer(key) else f"[{key!r}]"


def join(path: str, key: Hashable) -> str:
    """The path of the child `key` of the node at `path`."""
    text = spelled(key)
    if text.isidentifier() or (text.isdecimal() and not isinstance(key, str)):
        return f"{path}.{text}" if path else text
    if isinstance(key, str):
        return f"{path}[{text!r}]"
    return f"{path}[{text}]" if _is_integer(key) else path + text


def _is_integer(key: Any) -> TypeGuard[numbers.Integral]:
    return isinstance(key, numbers.Integral) and not isinstance(key, bool)


def render(keys: Iterable[Hashable]) -> str:
    """The path that a sequence of keys spells. What wrappers add does not show."""
    path = ""
    for key in keys:
        if key is not INNER:
            path = join(path, key)
    return path


def walk(model: Any) -> Iterator[tuple[str, Any]]:
    """Every node of a pytree with its path, parents first, in the order of `jax.tree.leaves`.

    A path is the Python expression without the model: `encoder.3.attention.query.weight`. The root
    is `""`. A transparent wrapper and what it holds share one path: the wrapper is what is yielded.
    `None` is no node, as in JAX. O(number of nodes), whatever the depth.

    **Arguments:**

    - `model`: any pytree.

    **Returns:**

    An iterator over `(path, node)`.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> list(gx.walk({"a": [1, None, 2]}))
    [('', {'a': [1, None, 2]}), ('a', [1, None, 2]), ('a.0', 1), ('a.2', 2)]

    ```
    """
    pending: list[tuple[str, Any, bool]] = [("", model, True)]
    while pending:
        path, node, shown = pending.pop()
        if shown:
            yield path, node
        kind = kind_of(type(node))
        if kind is None:
            continue
        level = kind.level(node)
        for key, child in zip(reversed(level.keys), reversed(level.children), strict=True):
            if child is not None:
                inner = key is INNER
                pending.append((path if inner else join(path, key), child, not inner))
