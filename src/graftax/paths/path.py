"""Paths as text, and the walk that yields them."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from .tree import INNER, kind_of


def join(path: str, key: Hashable) -> str:
    """The path of the child `key` of the node at `path`."""
    if isinstance(key, str) and (key.isidentifier()):
        return f"{path}.{key}" if path else key
    if isinstance(key, int) and not isinstance(key, bool):
        return f"{path}.{key}" if path else str(key)
    return f"{path}[{key!r}]"


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
