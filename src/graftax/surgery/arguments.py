"""A user's function of a node: what it is given besides the node, and what it may give back."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from ..paths.edit import Edit
from ..structure.call import fold_key
from ..structure.labels import layer_name
from ..structure.signature import signature_of

Path = Callable[[], str]
"""A path, written out only when it is asked for: most functions of a node do not."""


@dataclasses.dataclass(frozen=True)
class Each:
    """A function that makes a layer for each match. See `graftax.each`."""

    fn: Callable[..., Any]


def each(fn: Callable[..., Any]) -> Each:
    """A layer for each match, in an insertion: `insert_after(new=each(fn), key=key)`.

    At every match stands what `fn(node)` gives for it, so that layers put in at several places have
    initial weights of their own. A layer that is given as it is stands at every match with the same.

    **Arguments:**

    - `fn`: a function of the node that is inserted at. It is given `key=` (one of its own for each
        match and label) and `path=` if it declares them.

    **Returns:**

    What `.insert_before`, `.insert_after` and `.then` of a `graftax.Selection` take for a layer.

    **Raises:**

    - `TypeError`: `fn` is not callable.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> model = gx.Chain(*[gx.Chain(act=jax.nn.relu) for _ in range(2)])
    >>> fresh = gx.each(lambda layer, key: eqx.nn.Linear(3, 3, key=key))
    >>> model = gx.select(model, "act").insert_after(up=fresh, key=jax.random.key(0))
    >>> bool((model[0].up.weight == model[1].up.weight).all())
    False

    ```
    """
    if not callable(fn):
        raise TypeError(f"each takes a function of the node; got {fn!r} of type {_type(fn)}.")
    return Each(fn)


def check_key(fns: Iterable[Callable[..., Any]], key: Any) -> None:
    """Raise `TypeError` if one needs a key and gets none, or one is given and nobody takes it."""
    fns = list(fns)
    for fn in fns:
        if not callable(fn):
            raise TypeError(f"A function of the node is needed; got {fn!r} of type {_type(fn)}.")
        if key is None and "key" in signature_of(fn).required:
            raise TypeError(f"{layer_name(fn)} needs a random key: give key=jax.random.key(...).")
    if key is not None and not any(signature_of(fn).takes("key") for fn in fns):
        takers = ", ".join(layer_name(fn) for fn in fns) or "nothing that is put in"
        raise TypeError(f"A key was given, but {takers} declares no parameter `key`.")


def edit_by(
    fn: Callable[..., Any],
    path: Path,
    key: PRNGKeyArray | None = None,
    extra: dict[str, Any] | None = None,
) -> Edit:
    """`fn` as the edit of the node at a path, given `key=` (folded with the path), `path=` and
    `extra` if it takes them. What has `**kwargs` takes all but `path`, which nobody gave it.

    Whatever it raises carries a note with the path, and `TypeError` is raised for what is no node.
    """
    signature = signature_of(fn)
    keywords = {name: value for name, value in (extra or {}).items() if signature.takes(name)}
    if key is not None and signature.takes("key"):
        keywords["key"] = fold_key(key, path())
    if "path" in signature.keywords:
        keywords["path"] = path()

    def edit(node: Any) -> Any:
        new = call_at(fn, node, path, keywords)
        _check_returned(new, node, fn, path)
        return new

    return edit


def call_at(fn: Callable[..., Any], node: Any, path: Path, keywords: Mapping[str, Any] = {}) -> Any:
    """`fn(node, **keywords)`; what it raises carries a note with the path of the node."""
    try:
        return fn(node, **keywords)
    except Exception as error:
        error.add_note(f"{layer_name(fn)} was given {_placed(node, path)}.")
        raise


def _check_returned(new: Any, node: Any, fn: Callable[..., Any], path: Path) -> None:
    if inspect.iscoroutine(new):
        new.close()  # or Python warns that nobody awaited it
        given = "a coroutine: an edit is no async function"
    elif inspect.isgenerator(new) or inspect.isasyncgen(new):
        given = "a generator: an edit returns its node, it does not yield it"
    elif new is None and callable(node):
        given = "None, which is no layer. Is a `return` missing? `.remove()` leaves a layer out"
    else:
        return
    raise TypeError(f"{layer_name(fn)} was given {_placed(node, path)}, and gave {given}.")


def _placed(node: Any, path: Path) -> str:
    place = path()
    return f"the {_type(node)} at {place!r}" if place else f"the root, a {_type(node)}"


def _type(value: Any) -> str:
    return type(value).__name__
