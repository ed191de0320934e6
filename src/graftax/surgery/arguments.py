"""What a user's function of a node is given besides the node."""

from collections.abc import Callable
from typing import Any

from ..structure.call import fold_key
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
    if key is not None and not signature.takes("key"):
        raise TypeError(f"A key was given, but {layer_name(fn)} declares no parameter `key`.")


def takes_arguments(fn: Callable) -> bool:
    """Whether `fn` takes `key` or `path`. Most do not, and the paths need not be written out."""
    signature = signature_of(fn)
    return signature.takes("key") or "path" in signature.keywords


def with_arguments(fn: Callable, path: str, key: Any, extra: dict | None = None) -> Callable:
    """`fn` with `key=` (its own, folded with the path), `path=` and `extra` if it takes them.

    What has `**kwargs` takes all but `path`, which nobody gave it.
    """
    signature = signature_of(fn)
    keywords = {name: value for name, value in (extra or {}).items() if signature.takes(name)}
    if key is not None and signature.takes("key"):
        keywords["key"] = fold_key(key, path)
    if "path" in signature.keywords:
        keywords["path"] = path
    return lambda node: fn(node, **keywords)
