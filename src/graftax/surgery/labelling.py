"""Names for the parameters of a model, by pattern: what optax asks for."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from ..paths.edit import at
from ..paths.errors import listed
from ..paths.path import walk
from .hints import NoMatchError
from .selecting import select


def label_fn(rules: Mapping[Any, Any]) -> Callable[[Any], Any]:
    """A function from a tree of parameters to a tree of labels: of the first pattern that holds.

    A pattern holds for a leaf if it matches the leaf or anything the leaf is inside of.

    **Arguments:**

    - `rules`: from pattern (or any criterion that can be a dict key) to label, in order of precedence.

    **Returns:**

    A function for `optax.partition(transforms, param_labels=...)`.

    **Raises:**

    - `ValueError`: no rules.
    - `NoMatchError`: when called, a pattern that matches nothing, or a leaf that no pattern matches.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> labels = gx.label_fn({"encoder.**": "frozen", "**": "train"})
    >>> labels({"encoder": {"w": 1.0}, "head": 2.0})
    {'encoder': {'w': 'frozen'}, 'head': 'train'}

    ```
    """
    if not rules:
        raise ValueError("label_fn needs at least one rule, as in {'**': 'train'}.")

    def labels(params: Any) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        numbered = jax.tree.unflatten(treedef, range(len(leaves)))
        found: dict[int, Any] = {}
        for pattern, label in rules.items():
            selection = select(params, pattern)
            if not selection:
                raise NoMatchError(
                    f"The rule {pattern!r}: {label!r} holds nowhere. {selection.why_empty()}"
                )
            for match in selection.matches:
                for i in jax.tree.leaves(at(numbered, match.address)):
                    found.setdefault(i, label)
        if len(found) < len(leaves):
            inside = jax.tree.unflatten(treedef, [i in found for i in range(len(leaves))])
            missed = [path for path, node in walk(inside) if node is False]
            raise NoMatchError(
                f"No rule holds for {listed(missed)}. A last rule '**' holds for all that is left."
            )
        return jax.tree.unflatten(treedef, [found[i] for i in range(len(leaves))])

    return labels
