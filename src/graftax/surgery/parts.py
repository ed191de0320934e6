"""The leaves of a model by number: which are inside of what, which train, and trees made of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..paths.edit import at
from ..paths.search import Match
from ..paths.types import PyTree
from .state import statistics_mask

FilterSpec = Callable[[Any], bool] | bool
"""Which leaves are meant: asked of each, or all (True) or none (False)."""


class Leaves:
    """The leaves of one tree, numbered in the order of `jax.tree.leaves`.

    Of a copy of the tree that holds its numbers in the place of its leaves, everything can be read
    that is asked of places: an array that stands twice as one object has two numbers there, and one
    that is tied has one.
    """

    def __init__(self, tree: PyTree):
        self.values: list[Any]
        self.values, self._treedef = jax.tree.flatten(tree)
        self.numbered: Any = self.with_values(range(len(self.values)))

    def with_values(self, values: Iterable[Any]) -> Any:
        """The tree with other leaves."""
        return jax.tree.unflatten(self._treedef, values)

    def inside(self, matches: Sequence[Match]) -> set[int]:
        """The numbers of the leaves inside of these nodes."""
        addresses = {match.address for match in matches}
        outermost = [
            a for a in addresses if not any(a[:depth] in addresses for depth in range(len(a)))
        ]
        return set(jax.tree.leaves([at(self.numbered, address) for address in outermost]))

    def statistics(self) -> set[int]:
        """The numbers of the leaves that `eqx.nn.StateIndex` holds: running statistics."""
        held = jax.tree.leaves(statistics_mask(self.numbered))
        return {i for i, is_held in enumerate(held) if is_held}

    def trainable(self) -> set[int]:
        """The numbers of the arrays that gradients are taken of: inexact ones, but for statistics."""
        return self.passing(eqx.is_inexact_array) - self.statistics()

    def passing(self, filter_spec: FilterSpec) -> set[int]:
        """The numbers of the leaves that a filter lets through."""
        if isinstance(filter_spec, bool):
            return set(range(len(self.values))) if filter_spec else set()
        return {i for i, leaf in enumerate(self.values) if filter_spec(leaf)}


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf counts as weights: floating, complex, or the small integers of quantised ones."""
    if not is_array(leaf):
        return False
    small_integer = jnp.issubdtype(leaf.dtype, jnp.integer) and leaf.dtype.itemsize == 1
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact) or small_integer)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, or stands for one in what `jax.eval_shape` gives."""
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
