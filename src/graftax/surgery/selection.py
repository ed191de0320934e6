"""A selection is a value: some nodes of one model, to read, narrow, edit or use as a specification."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax

from ..paths.edit import Edit, Items, at, place
from ..paths.errors import listed
from ..paths.search import Match
from .arguments import check_key, takes_arguments, with_arguments
from .criteria import Query, find, read_criteria, whole
from .fields import update
from .graft import graft_edits, graft_rearranged
from .hints import MatchError, NoMatchError, described, no_match
from .inference import InferenceMode


class Selection:
    """Some nodes of one model, in the order of a walk. Immutable; made by `graftax.select`.

    **Reading:** `.paths`, `.nodes`, `.items()`, `len`, iteration over nodes, truth, `.one()`,
    `.expect(n)`, `.size`, `.nbytes`. **Narrowing:** `.select`, `.where`, `[i]`, `[a:b]`, `|`, `&`,
    `-`. **Editing** (each returns the new model): `.apply`, `.set`, `.set_each`, `.update`,
    `.remove`, `.insert_before`, `.insert_after`, `.rename`. **As a specification:** `.mask`,
    `.partition`.

    Nested matches are edited deepest first, all in one pass that rebuilds only the spine above them:
    every array it does not touch is shared with the old model. Reading an empty selection is fine;
    editing with one raises `NoMatchError`.

    `|`, `&` and `-` compare places: a wrapper and what it holds are one. Of the two, that of the left
    selection stays.

    Source: Penzai's selectors (a selection is a value), jQuery.
    """

    __slots__ = ("_matches", "_model", "_outer", "_query")

    def __init__(
        self, model: Any, matches: Sequence[Match], query: Query, outer: "Selection | None" = None
    ):
        self._model = model
        self._matches = tuple(matches)
        self._query, self._outer = query, outer

    # --- Reading ---

    @property
    def model(self) -> Any:
        """The model that this is a selection of."""
        return self._model

    @property
    def matches(self) -> tuple[Match, ...]:
        """The nodes with their addresses, for functions that edit."""
        return self._matches

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each node."""
        return tuple(match.path for match in self._matches)

    @property
    def nodes(self) -> tuple[Any, ...]:
        """The nodes."""
        return tuple(match.node for match in self._matches)

    def items(self) -> tuple[tuple[str, Any], ...]:
        """`((path, node), ...)`."""
        return tuple((match.path, match.node) for match in self._matches)

    def __len__(self) -> int:
        return len(self._matches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.nodes)

    def one(self) -> Any:
        """The only node. Raises `NoMatchError` if there is none, `MatchError` if there are several."""
        return self.expect(1).nodes[0]

    def expect(self, n: int) -> "Selection":
        """The selection itself, if it holds `n` nodes. Raises `MatchError` if not."""
        if len(self) != n:
            if not self._matches:
                raise NoMatchError(f"Expected {n}, found 0. {self.why_empty()}")
            raise MatchError(f"Expected {n}, found {len(self)}: {listed(self.paths)}.")
        return self

    @property
    def size(self) -> int:
        """The number of parameters: elements of floating-point and complex arrays, each array once.

        What `eqx.nn.StateIndex` holds are statistics, not parameters.
        """
        arrays = self._arrays(eqx.is_inexact_array, lambda x: isinstance(x, eqx.nn.StateIndex))
        return sum(array.size for array in arrays)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays inside, each array once."""
        return sum(array.nbytes for array in self._arrays(eqx.is_array))

    def _arrays(self, wanted: Callable, is_leaf: Callable | None = None) -> list[Any]:
        leaves = jax.tree.leaves(self.nodes, is_leaf=is_leaf)
        return list({id(leaf): leaf for leaf in leaves if wanted(leaf)}.values())

    def __repr__(self) -> str:
        lines = [f"{path or '(root)'}: {described(node)}" for path, node in self.items()]
        return "\n  ".join([f"Selection of {len(self)}", *lines])

    # --- Narrowing ---

    def select(self, *criteria: Any) -> "Selection":
        """What `graftax.select(node, *criteria)` finds in each of the nodes, as one selection."""
        query = read_criteria(criteria)
        return Selection(self._model, find(self._matches, query), query, outer=self)

    def where(self, predicate: Callable[[Any], bool]) -> "Selection":
        """The nodes for which the predicate holds."""
        return self._of([match for match in self._matches if predicate(match.node)])

    def __getitem__(self, index: int | slice) -> "Selection":
        if isinstance(index, slice):
            return self._of(self._matches[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} matches: there is no match {index}.")
        return self._of([self._matches[index]])

    def __or__(self, other: "Selection") -> "Selection":
        merged = self._same(other) | {place(match): match for match in self._matches}
        return self._of(sorted(merged.values(), key=lambda match: match.address))

    def __and__(self, other: "Selection") -> "Selection":
        theirs = self._same(other)
        if not theirs:
            return other  # which knows why it is empty
        return self._of([match for match in self._matches if place(match) in theirs])

    def __sub__(self, other: "Selection") -> "Selection":
        theirs = self._same(other)
        return self._of([match for match in self._matches if place(match) not in theirs])

    def _same(self, other: "Selection") -> dict[tuple[int, ...], Match]:
        if not isinstance(other, Selection):
            raise TypeError(f"A selection combines with a selection, not a {type(other).__name__}.")
        if other._model is not self._model:
            raise ValueError(
                "These selections are of different models. An edit returns a new model: select "
                "again on that one."
            )
        return {place(match): match for match in other._matches}

    def _of(self, matches: Sequence[Match]) -> "Selection":
        return Selection(self._model, matches, self._query, self._outer)

    # --- Editing ---

    def apply(self, fn: Callable[..., Any], key: Any = None) -> Any:
        """The model with each node replaced by `fn(node)`.

        **Arguments:**

        - `fn`: a function of the node. It is given `key=` and `path=` if it declares them.
        - `key`: a random key; each match gets its own, folded with its path.

        **Returns:**

        The new model.

        **Raises:**

        - `NoMatchError`: the selection is empty.
        - `TypeError`: `fn` needs a key and none is given, or one is given and not taken.
        """
        check_key(fn, key)
        matches = self._some()
        if not takes_arguments(fn):
            return self._edited([fn] * len(matches))
        return self._edited([with_arguments(fn, match.path, key) for match in matches])

    def set(self, value: Any) -> Any:
        """The model with `value` in the place of each node. Raises `NoMatchError` if there is none."""
        return self._edited([lambda _: value] * len(self._some()))

    def set_each(self, values: Sequence[Any]) -> Any:
        """The model with one value for each node, in order.

        Raises `NoMatchError` if there is none, `MatchError` if the numbers differ.
        """
        values = list(values)
        if len(values) != len(self._some()):
            raise MatchError(f"{len(self)} nodes are selected; {len(values)} values were given.")
        return self._edited([lambda _, value=value: value for value in values])

    def update(self, /, **fields: Any) -> Any:
        """The model with these fields changed in each node: `graftax.update` on every match."""
        mode = InferenceMode(self._model)

        def change(node: Any) -> Any:
            # The node may be given a mode; the layers it is given take on that of the model.
            old = {name: getattr(node, name, None) for name in fields}
            return update(node, **{k: mode.given_to(v, old[k]) for k, v in fields.items()})

        return self._edited([change] * len(self._some()), adopt=False)

    def remove(self) -> Any:
        """The model without the nodes. Raises `ValueError` for the root or a field of a class."""
        return graft_rearranged(self._model, self._some(), lambda key, child: [], "removed")

    def insert_before(self, /, *layers: Any, **labelled: Any) -> Any:
        """The model with layers inserted before each node: by label, or by position.

        Raises `ValueError` for the root, a field of a class, or a label that is taken.
        """
        return self._inserted(layers, labelled, after=False)

    def insert_after(self, /, *layers: Any, **labelled: Any) -> Any:
        """The model with layers inserted after each node: by label, or by position.

        Raises `ValueError` for the root, a field of a class, or a label that is taken.
        """
        return self._inserted(layers, labelled, after=True)

    def rename(self, to: str) -> Any:
        """The model with each node under the label `to`. Raises `ValueError` if it is taken."""
        if not isinstance(to, str):
            raise TypeError(f"A label is a string; got {to!r}.")

        def change(key: Any, child: Any) -> Items:
            if not isinstance(key, str):
                raise ValueError(f"The node at position {key} has no label to change.")
            return [(to, child)]

        return graft_rearranged(self._model, self._some(), change, "renamed")

    def _inserted(self, layers: tuple, labelled: dict[str, Any], after: bool) -> Any:
        mode = InferenceMode(self._model)
        named = [*((None, layer) for layer in layers), *labelled.items()]
        if not named:
            raise TypeError("There is nothing to insert: give layers, by label or by position.")
        new: Items = [(label, mode.given_to(layer, None)) for label, layer in named]

        def change(key: Any, child: Any) -> Items:
            return [(key, child), *new] if after else [*new, (key, child)]

        return graft_rearranged(self._model, self._some(), change, "given a neighbour")

    def _edited(self, edits: Sequence[Edit], adopt: bool = True) -> Any:
        addresses = (match.address for match in self._matches)
        return graft_edits(self._model, dict(zip(addresses, edits, strict=True)), adopt)

    def _some(self) -> tuple[Match, ...]:
        if not self._matches:
            raise NoMatchError(self.why_empty())
        return self._matches

    def why_empty(self) -> str:
        """Why an empty selection is empty, with the nearest right answer."""
        outer = whole(self._model) if self._outer is None else self._outer.matches
        if self._outer is not None and not outer:
            return self._outer.why_empty()
        if find(outer, self._query):
            return "The selection was narrowed to nothing."
        return no_match(outer, self._query)

    # --- As a specification ---

    def mask(self) -> Any:
        """A tree of bools, True at the leaves inside the nodes: a filter for Equinox and optax.

        O(number of leaves). Raises `NoMatchError` if there is no node.
        """
        matches = self._some()
        leaves, treedef = jax.tree.flatten(self._model)
        numbered = jax.tree.unflatten(treedef, range(len(leaves)))
        inside = set(jax.tree.leaves([at(numbered, match.address) for match in matches]))
        return jax.tree.unflatten(treedef, [i in inside for i in range(len(leaves))])

    def partition(self) -> tuple[Any, Any]:
        """`(selected, rest)`: each the model with `None` for what is in the other.

        `eqx.combine(*selection.partition())` is the model. Raises `NoMatchError` if there is none.
        """
        return eqx.partition(self._model, self.mask())
