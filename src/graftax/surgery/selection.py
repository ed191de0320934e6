"""A selection is a value: some nodes of one model, to read, narrow, edit or use as a specification."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
from jaxtyping import PRNGKeyArray

from ..paths.edit import Edit, Items, at_path, errors_located, located
from ..paths.search import Match
from ..paths.types import PyTree
from ..structure.beside import Then
from .arguments import check_key, edit_by
from .fields import update
from .found import Found
from .graft import graft_edits, graft_rearranged
from .hints import MatchError
from .inference import InferenceMode
from .inserting import NewLayers
from .order import THEN, check_order, check_run_once
from .parts import FilterSpec, Leaves

M = TypeVar("M")


class Selection(Found[M]):
    """Some nodes of one model, in the order of a walk. Immutable; made by `graftax.select`.

    **Reading:** `.paths`, `.nodes`, `.items()`, `len`, iteration over nodes, truth, `.one()`,
    `.expect(n)`, `.size`, `.nbytes`. **Narrowing:** `.select`, `.where`, `[i]`, `[a:b]`, `.arrays()`,
    `|`, `&`, `-`. **Editing** (each returns the new model): `.apply`, `.set`, `.set_each`, `.update`,
    `.remove`, `.insert_before`, `.insert_after`, `.then`, `.rename`. **As a specification:** `.mask`,
    `.partition`.

    Nested matches are edited deepest first, all in one pass that rebuilds only the spine above them:
    every array it does not touch is shared with the old model. Reading an empty selection is fine;
    editing with one raises `NoMatchError`. What an edit leaves in a container is a layer, or the edit
    is a `TypeError` with the path; what a function raises carries the path in a note.

    `a & b` and `a - b` are the nodes of `a` that do, or do not, stand at or inside the nodes of `b`.
    Where a node of `b` stands inside one that would stay whole they raise `ValueError`: take
    `a.arrays()` then. `a | b` are the nodes of both. A wrapper and what it holds are at one place; of
    the two, that of the left selection stays.

    Source: Penzai's selectors (a selection is a value), jQuery.
    """

    __slots__ = ()

    # --- Editing ---

    def apply(self, fn: Callable[..., Any], key: PRNGKeyArray | None = None) -> M:
        """The model with each node replaced by `fn(node)`.

        **Arguments:**

        - `fn`: a function of the node. It is given `key=` and `path=` if it declares them.
        - `key`: a random key; each match gets its own, folded with its path.

        **Returns:**

        The new model.

        **Raises:**

        - `NoMatchError`: the selection is empty.
        - `TypeError`: `fn` needs a key and none is given, or one is given and not taken; `fn` gives what
            cannot stand in the place of the node, such as None for a layer.
        """
        check_key([fn], key)
        return self._edited(
            [edit_by(fn, lambda match=match: match.path, key) for match in self._some()]
        )

    def set(self, value: Any) -> M:
        """The model with `value` in the place of each node. Raises `NoMatchError` if there is none."""
        return self._edited([lambda _: value] * len(self._some()))

    def set_each(self, values: Sequence[Any]) -> M:
        """The model with one value for each node, in order.

        Raises `NoMatchError` if there is none, `MatchError` if the numbers differ.
        """
        values = list(values)
        if len(values) != len(self._some()):
            raise MatchError(f"{len(self)} nodes are selected; {len(values)} values were given.")
        return self._edited([lambda _, value=value: value for value in values])

    def update(self, /, **fields: Any) -> M:
        """The model with these fields changed in each node: `graftax.update` on every match."""
        mode = InferenceMode(self._model)

        def updated(node: Any, path: str) -> Any:
            # The node may be given a mode; the layers it is given take on that of the model.
            old = {name: getattr(node, name, None) for name in fields}
            new = {name: mode.given_to(value, old[name]) for name, value in fields.items()}
            with errors_located(f"In {located(node, path)}"):
                return update(node, **new)

        edits = [functools.partial(updated, path=match.path) for match in self._some()]
        return self._edited(edits, adopt=False)

    def then(self, /, **labelled: Any) -> M:
        """The model with layers behind each node, wherever it stands: `after(node(x))`.

        A branch of a `Parallel`, an `op`, a layer inside a foreign module: the node becomes a
        `graftax.Then`, a wrapper that paths do not show. No path changes, and what is put behind has
        its label inside the path of the node: `.then(norm=...)` on `left` is `left.norm`.

        **Arguments:**

        - `labelled`: layers in order, or `graftax.each` of a function that makes one for each match;
            `key=` may be a random key for these.

        **Returns:**

        The new model.

        **Raises:**

        - `NoMatchError`: the selection is empty.
        - `TypeError`: nothing to put behind, or a node that is no layer.
        - `ValueError`: a label that the node has already.
        """
        new = NewLayers((), labelled, InferenceMode(self._model))

        def followed(node: Any, match: Match) -> Any:
            check_run_once(self._model, match)
            behind = {str(label): layer for label, layer in new.at(match)}
            with errors_located(at_path(match.path)):
                return Then(node, **behind)

        edits = [functools.partial(followed, match=match) for match in self._some()]
        return self._edited(edits, adopt=False)

    def remove(self) -> M:
        """The model without the nodes. Raises `ValueError` for the root or a field of a class."""
        return graft_rearranged(self._model, self._some(), lambda match, key, child: [], "removed")

    def insert_before(self, /, *layers: Any, **labelled: Any) -> M:
        """The model with layers inserted before each node: by label, or by position.

        As `insert_after`.
        """
        return self._inserted(layers, labelled, after=False)

    def insert_after(self, /, *layers: Any, **labelled: Any) -> M:
        """The model with layers inserted after each node: by label, or by position.

        **Arguments:**

        - `layers`, `labelled`: layers in order, or `graftax.each` of a function that makes one for each
            match. A layer that is given as it is stands at every match with the same initial weights.
            `key=` may be a random key for `graftax.each`; a layer of the label `key` is one as well.

        **Returns:**

        The new model.

        **Raises:**

        - `NoMatchError`: the selection is empty.
        - `ValueError`: the root, a field of a class, a branch of a `Parallel` (`.then` puts a layer
            behind one), or a label that is taken.
        - `TypeError`: nothing to insert, or what is no layer.
        """
        return self._inserted(layers, labelled, after=True)

    def rename(self, to: str) -> M:
        """The model with each node under the label `to`. Raises `ValueError` if it is taken."""
        if not isinstance(to, str):
            raise TypeError(f"A label is a string; got {to!r}.")

        def change(match: Match, key: Any, child: Any) -> Items:
            if not isinstance(key, str):
                raise ValueError(f"The node at position {key} has no label to change.")
            return [(to, child)]

        return graft_rearranged(self._model, self._some(), change, "renamed")

    def _inserted(self, layers: tuple[Any, ...], labelled: dict[str, Any], after: bool) -> M:
        new = NewLayers(layers, labelled, InferenceMode(self._model))
        for match in self._some():
            check_order(self._model, match)
        made = {match.address: new.at(match) for match in self._matches}

        def change(match: Match, key: Any, child: Any) -> Items:
            own = made[match.address]
            return [(key, child), *own] if after else [*own, (key, child)]

        return graft_rearranged(self._model, self._some(), change, "given a neighbour", THEN)

    def _edited(self, edits: Sequence[Edit], adopt: bool = True) -> M:
        addresses = (match.address for match in self._matches)
        return graft_edits(self._model, dict(zip(addresses, edits, strict=True)), adopt)

    # --- As a specification ---

    def mask(self, filter_spec: FilterSpec | None = None) -> PyTree[bool]:
        """A tree of bools, True at the trainable arrays inside the nodes.

        What `eqx.partition`, `eqx.filter` and `optax.masked` take. O(number of leaves).

        **Arguments:**

        - `filter_spec`: which of the leaves inside are meant: a function of the leaf, or True for all.
            Trainable arrays if None: `eqx.is_inexact_array`, but for what `eqx.nn.StateIndex` holds.

        **Returns:**

        A tree of the structure of the model.

        **Raises:**

        - `NoMatchError`: the selection is empty.
        """
        matches = self._some()
        leaves = Leaves(self._model)
        wanted = leaves.trainable() if filter_spec is None else leaves.passing(filter_spec)
        meant = leaves.inside(matches) & wanted
        return leaves.with_values(i in meant for i in range(len(leaves.values)))

    def partition(self, filter_spec: FilterSpec | None = None) -> tuple[M, M]:
        """`(selected, rest)`: each the model with `None` for what is in the other.

        `eqx.combine(*selection.partition())` is the model. `selected` has the trainable arrays inside
        the nodes, for `jax.grad` and `optax`; or what `filter_spec` lets through, as in `.mask`.
        Raises `NoMatchError` if there is none.
        """
        return eqx.partition(self._model, self.mask(filter_spec))
