"""What a user's function of a node is given besides the node."""

from collections.abc import Callable
from typing import Any

from ..structure.calling import fold_key
from ..structure.labels import layer_name
from ..structure.signature import signature_of


def check_key(fn: Callable, key: Any) -> None:
    """Raise `TypeError` if `fn` needs a key and gets none, or gets one and takes none."""
    if not callable(fn):
        raise TypeError(
            f"A function of the node is needed; got {fn!r} of type {type(fn).__name__}."
        )
    signature = signature_of(fn)
    if key is None and "key" in signature.required:
        raise TypeError(f"{layer_name(fn)} needs a random key: give key=jax.random.key(...).")
    if key is not None and "key" not in signature.keywords:
        raise TypeError(f"A key was given, but {layer_name(fn)} declares no parameter `key`.")


def with_arguments(fn: Callable, path: str, key: Any, extra: dict | None = None) -> Callable:
    """`fn` with `key=` (its own, folded with the path), `path=` and `extra` if it declares them."""
    declared = signature_of(fn).keywords
    keywords = {name: value for name, value in (extra or {}).items() if name in declared}
    if key is not None and "key" in declared:
        keywords["key"] = fold_key(key, path)
    if "path" in declared:
        keywords["path"] = path
    return lambda node: fn(node, **keywords)
