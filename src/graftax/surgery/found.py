"""Some nodes of one model: to read, to narrow, and to combine as sets."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ..paths.errors import listed
from ..paths.search import Match
from ..paths.types import Self
from .arguments import call_at
from .criteria import Criterion, Query, find, read_criteria, whole
from .hints import MatchError, NoMatchError, described, no_match
from .parts import Leaves, is_array, is_parameter
from .places import in_both, in_either, in_left_only

M = TypeVar("M")
_ARRAYS = read_criteria([is_array])


class Found(Generic[M]):
    """What a selection is before it is edited with. See `graftax.Selection`."""

    __slots__ = ("_matches", "_model", "_outer", "_query")

    def __init__(
        self, model: M, matches: Sequence[Match], query: Query, outer: "Found[M] | None" = None
    ):
        self._model = model
        self._matches = tuple(matches)
        self._query, self._outer = query, outer

    # --- Reading ---

    @property
    def model(self) -> M:
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

    def expect(self, n: int) -> Self:
        """The selection itself, if it holds `n` nodes. Raises `MatchError` if not."""
        if len(self) != n:
            if not self._matches:
                raise NoMatchError(f"Expected {n}, found 0. {self.why_empty()}")
            raise MatchError(f"Expected {n}, found {len(self)}: {listed(self.paths)}.")
        return self

    @property
    def size(self) -> int:
        """The number of parameters: the elements of all arrays inside that count as weights.

        These are floating-point and complex arrays, and integers of a byte or less, which are
        quantised weights; not statistics, which `eqx.nn.StateIndex` holds. What trains apart counts
        apart: an array that stands at two places counts twice, one that is tied counts once.
        """
        leaves = Leaves(self._model)
        counted = leaves.inside(self._matches) - leaves.statistics()
        values = [leaves.values[i] for i in counted]
        return sum(value.size for value in values if is_parameter(value))

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays inside, as they are in memory: one object counts once."""
        leaves = Leaves(self._model)
        values = [leaves.values[i] for i in leaves.inside(self._matches)]
        return sum({id(v): v.size * v.dtype.itemsize for v in values if is_array(v)}.values())

    def __repr__(self) -> str:
        lines = [f"{path or '(root)'}: {described(node)}" for path, node in self.items()]
        return "\n  ".join([f"Selection of {len(self)}", *lines])

    # --- Narrowing ---

    def select(self, *criteria: Criterion) -> Self:
        """What `graftax.select(node, *criteria)` finds in each of the nodes, as one selection."""
        query = read_criteria(criteria)
        return type(self)(self._model, find(self._matches, query), query, outer=self)

    def where(self, predicate: Callable[[Any], bool]) -> Self:
        """The nodes for which the predicate holds."""
        return self._of(
            [m for m in self._matches if call_at(predicate, m.node, lambda match=m: match.path)]
        )

    def arrays(self) -> Self:
        """The arrays inside the nodes: where a node is too much, each of its arrays is to be had."""
        return type(self)(self._model, find(self._matches, _ARRAYS), _ARRAYS, outer=self)

    def __getitem__(self, index: int | slice) -> Self:
        if isinstance(index, slice):
            return self._of(self._matches[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} matches: there is no match {index}.")
        return self._of([self._matches[index]])

    def __or__(self, other: Self) -> Self:
        return self._of(in_either(self._matches, self._same(other)))

    def __and__(self, other: Self) -> Self:
        theirs = self._same(other)
        # An empty one knows why it is empty.
        return self._of(in_both(self._matches, theirs)) if theirs else other

    def __sub__(self, other: Self) -> Self:
        return self._of(in_left_only(self._matches, self._same(other)))

    def _same(self, other: Self) -> tuple[Match, ...]:
        if not isinstance(other, Found):
            raise TypeError(f"A selection combines with a selection, not a {type(other).__name__}.")
        if other._model is not self._model:
            raise ValueError(
                "These selections are of different models. An edit returns a new model: select "
                "again on that one."
            )
        return other._matches

    def _of(self, matches: Sequence[Match]) -> Self:
        return type(self)(self._model, matches, self._query, self._outer)

    def why_empty(self) -> str:
        """Why an empty selection is empty, with the nearest right answer."""
        outer = whole(self._model) if self._outer is None else self._outer.matches
        if self._outer is not None and not outer:
            return self._outer.why_empty()
        if find(outer, self._query):
            return "The selection was narrowed to nothing."
        return no_match(outer, self._query)

    def _some(self) -> tuple[Match, ...]:
        if not self._matches:
            raise NoMatchError(self.why_empty())
        return self._matches
