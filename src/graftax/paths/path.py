"""Paths as text, and the walk that yields them."""

import math
import numbers
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from .tree import INNER, kind_of

# Python refuses to write out larger ones in decimals, and to read them, where it is told to.
_DECIMAL_BITS = 2000


def spelled(key: Any) -> str:
    """The text of a key, which a glob is held against. What no glob can spell stands in brackets."""
    if isinstance(key, str):
        return str.__str__(key)  # of a member of a str enumeration, the str
    if is_integer(key) and int(key).bit_length() <= _DECIMAL_BITS:
        return str(int(key))
    return bracketed(key)


def bracketed(key: Hashable) -> str:
    """A key in brackets, as it can stand in any path and pattern: `['my key']`, `[-1]`, `[None]`.

    A key that is no literal of Python stands as its repr between angles, `[<date(2000, 1, 1)>]`, with
    a backslash before what would end it. Keys with one repr have one path.
    """
    literal = _literal(key)
    return f"[{_in_angles(repr(key)) if literal is None else literal}]"


def _literal(key: Any, depth: int = 0) -> str | None:
    """What `ast.literal_eval` reads as this key; None if there is no such text."""
    match key:
        case bool() | None:
            return repr(key)
        case str():
            return str.__repr__(key)
        case bytes():
            return bytes.__repr__(key)
        case float():
            return float.__repr__(key) if math.isfinite(key) else None
        case numbers.Integral():
            number = int(key)
            return str(number) if number.bit_length() <= _DECIMAL_BITS else hex(number)
    # Python reads about a hundred brackets in brackets, and no more.
    if type(key) is not tuple or depth == 50:
        return None
    items = [_literal(item, depth + 1) for item in key]
    if None in items:
        return None
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(map(str, items))})"


def _in_angles(text: str) -> str:
    escaped = "".join(
        f"\\{char}" if char in "\\]" else char if char.isprintable() else ascii(char)[1:-1]
        for char in text
    )
    return f"<{escaped}>"


def join(path: str, key: Hashable) -> str:
    """The path of the child `key` of the node at `path`."""
    text = spelled(key)
    if text.isidentifier() or (text.isdecimal() and not isinstance(key, str)):
        return f"{path}.{text}" if path else text
    return path + bracketed(key)


def is_integer(key: Any) -> bool:
    """Whether a key is a number that may be a position: no bool is."""
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
        kind = kind_of(node)
        if kind is None:
            continue
        level = kind.level(node)
        for key, child in zip(reversed(level.keys), reversed(level.children), strict=True):
            if child is not None:
                inner = key is INNER
                pending.append((path if inner else join(path, key), child, not inner))
