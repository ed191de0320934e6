"""Parameters by rules: names for them, as optax asks for, and a model in as many parts."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

from ..paths.errors import listed
from ..paths.path import walk
from ..paths.types import PyTree
from .hints import NoMatchError
from .parts import Leaves
from .selecting import select

M = TypeVar("M")


def label_fn(rules: Mapping[Any, Any]) -> Callable[[PyTree], PyTree]:
    """A function from a tree of parameters to a tree of labels: of the first pattern that holds.

    A pattern holds for a leaf if it matches the leaf or anything the leaf is inside of. Running
    statistics (what `eqx.nn.StateIndex` holds) are no parameters: None stands in their place.

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
    _check_rules("label_fn", rules, "{'**': 'train'}")

    def labels(params: PyTree) -> PyTree:
        leaves = Leaves(params)
        among = leaves.passing(True) - leaves.statistics()
        named = ((f"{rule!r}: {label!r}", rule, label) for rule, label in rules.items())
        found = _first_rules(params, leaves, among, named)
        return leaves.with_values(found.get(i) for i in range(len(leaves.values)))

    return labels


def partition(model: M, rules: Mapping[Any, Any]) -> dict[Any, M]:
    """The model in several parts: each trainable array in that of the first rule that holds for it.

    `eqx.combine(*partition(model, rules).values())` is the model. So parameters are frozen without
    a wrapper: differentiate with respect to some parts, and give the others along.

    **Arguments:**

    - `model`: any pytree.
    - `rules`: from the name of a part to a criterion as in `graftax.select`: a pattern, a list of
        patterns, a type, ... The first that holds for an array, or for anything it is inside of, wins.

    **Returns:**

    From name to part, in the order of the rules: the model with `None` for what is in the others.
    What does not train (functions, integers, running statistics) is in the last part, so that
    `partition(model, {"train": p, "frozen": "**"})` are the two of `select(model, p).partition()`.

    **Raises:**

    - `ValueError`: no rules.
    - `NoMatchError`: a rule that matches nothing, or nothing that trains; a trainable array that no
        rule matches.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> k1, k2 = jax.random.split(jax.random.key(0))
    >>> model = gx.Chain(
    ...     body=eqx.nn.Linear(2, 3, key=k1), act=jax.nn.relu, head=eqx.nn.Linear(3, 1, key=k2)
    ... )
    >>> parts = gx.partition(model, {"train": "head", "frozen": "**"})
    >>> parts["train"].body.weight, parts["train"].head.weight.shape, parts["frozen"].act.__name__
    (None, (1, 3), 'relu')
    >>> eqx.combine(*parts.values()).head.weight is model.head.weight
    True

    ```
    """
    _check_rules("partition", rules, "{'train': '**'}")
    leaves = Leaves(model)
    named = ((f"{name!r}: {rule!r}", rule, name) for name, rule in rules.items())
    found = _first_rules(model, leaves, leaves.trainable(), named)
    last = list(rules)[-1]
    owners = [found.get(i, last) for i in range(len(leaves.values))]
    return {
        name: leaves.with_values(
            leaf if owner == name else None
            for leaf, owner in zip(leaves.values, owners, strict=True)
        )
        for name in rules
    }


def _check_rules(function: str, rules: Any, example: str) -> None:
    if not isinstance(rules, Mapping):
        raise TypeError(f"{function} takes a dict of rules, as in {example}; got {rules!r}.")
    if not rules:
        raise ValueError(f"{function} needs at least one rule, as in {example}.")


def _first_rules(
    tree: PyTree,
    leaves: Leaves,
    among: set[int],
    rules: Iterable[tuple[str, Any, Hashable]],
) -> dict[int, Any]:
    """From the number of each of these leaves to the name of the first `(text, criterion, name)`."""
    found: dict[int, Any] = {}
    for text, criterion, name in rules:
        selection = select(tree, criterion)
        if not selection:
            raise NoMatchError(f"The rule {text} holds nowhere. {selection.why_empty()}")
        inside = leaves.inside(selection.matches) & among
        if not inside:
            raise NoMatchError(
                f"The rule {text} holds for {listed(selection.paths, 3)}, and no parameter is in there."
            )
        found.update((i, name) for i in inside - found.keys())
    if missed := among - found.keys():
        numbers = {i: i in missed for i in range(len(leaves.values))}
        marked = leaves.with_values(numbers.values())
        paths = [path for path, node in walk(marked) if node is True]
        raise NoMatchError(
            f"No rule holds for {listed(paths)}. A last rule '**' holds for all that is left."
        )
    return found
