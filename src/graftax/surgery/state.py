"""Equinox's state: the one file that touches `StateIndex` and its marker."""

import functools
import secrets
from collections import Counter
from collections.abc import Container, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..paths.edit import Edit, edited
from ..paths.search import Match, search_all
from ..paths.tree import any_type, shallow_copy


class Marker(str):
    """The marker of a grafted `StateIndex`: text that no other has, and the marker it had before."""

    origin: Any
    copied: bool
    """Whether the origin is a layer of the same model."""

    @classmethod
    def make(cls, path: str, origin: Any, copied: bool) -> "Marker":
        # Made of the path alone, it could be that of a layer since removed, whose values a state
        # may still hold.
        marker = cls(f"{path}#{secrets.token_hex(4)}")
        marker.origin, marker.copied = origin, copied
        return marker


class Held:
    """The marker of a layer while an edit has it in hand: equal to the marker, but known again.

    So `state.get` works with it, and what an edit makes of the layer is told from what it brings in.
    """

    def __init__(self, index: Any, own: bool):
        self.marker, self.own = index.marker, own

    def __eq__(self, other: object) -> bool:
        # Two edits must not be the same to the cache of a jitted function.
        return self is other if isinstance(other, Held) else self.marker == other

    def __hash__(self) -> int:
        return hash(self.marker)

    def __repr__(self) -> str:
        return repr(self.marker)


# --- Accessors: what other files ask instead of touching `StateIndex` ---


@functools.lru_cache(maxsize=4096)
def is_index_type(cls: Any) -> bool:
    """Whether nodes of this type are `StateIndex`es."""
    return issubclass(cls, eqx.nn.StateIndex)


def is_index(node: Any) -> bool:
    """Whether a node is a `StateIndex`: the place of one value of a state."""
    return is_index_type(type(node))


def has_state(tree: Any) -> bool:
    """Whether a `StateIndex` stands anywhere in the tree."""
    return any_type(tree, is_index_type)


def indices(tree: Any) -> list[Match]:
    """Every `StateIndex` in the tree, in the order of a walk."""
    return search_all(tree, is_index)


def marker_of(index: Any) -> Any:
    """Under what a state knows the value: text once a model was separated, else a bare `object()`."""
    return index.marker


def init_of(index: Any) -> Any:
    """The value that the model itself holds; `TAKEN` if it was taken out."""
    return index.init


def new_index(marker: Any, init: Any) -> Any:
    """A `StateIndex` with this marker that holds this value, or `TAKEN`."""
    index = eqx.nn.StateIndex(None)
    return shallow_copy(index, marker=marker, init=init)


TAKEN = eqx.nn.delete_init_state(eqx.nn.StateIndex(None)).init
"""What Equinox leaves where `make_with_state` took the value out; it has no public name."""


def is_taken(index: Any) -> bool:
    """Whether the value was taken out of the model, into a state."""
    return type(index.init) is type(TAKEN)


def new_state(values: Iterable[tuple[Any, Any]]) -> eqx.nn.State:
    """The state of these (marker, value) pairs."""
    return eqx.nn.State([new_index(marker, value) for marker, value in values])


def held(tree: Any, own: bool, but: Container[int] = ()) -> Any:
    """The tree with the markers in it held, except those held already and the indices `but`."""
    edits: dict[tuple[int, ...], Edit] = {
        match.address: lambda index: shallow_copy(index, marker=Held(index, own))
        for match in indices(tree)
        if not isinstance(match.node.marker, Held) and id(match.node) not in but
    }
    return edited(tree, edits)


def settle_markers(old: Any, new: Any) -> Any:
    """`new`, an edit of `old`, with markers of its own for layers that came from elsewhere.

    Equinox's markers are text, equal in any two models of one class, and even the same object once
    both went through one jitted function. So the objects tell: a `StateIndex` that is one of `old`,
    or was held as one, is of this model, and all others are not.
    """
    before = indices(old)
    mine = {id(match.node) for match in before}
    places = {(match.node.marker, match.path) for match in before}
    # As many places may share a marker as did before.
    room = Counter(match.node.marker for match in before)

    def is_own(match: Match) -> bool:
        marker = match.node.marker
        return marker.own if isinstance(marker, Held) else id(match.node) in mine

    def has_moved(match: Match) -> bool:
        return (match.node.marker, match.path) not in places

    edits: dict[tuple[int, ...], Edit] = {}
    # Who stands where it stood before is the first to keep its marker.
    for match in sorted(indices(new), key=has_moved):
        marker, own = match.node.marker, is_own(match)
        origin = marker.marker if isinstance(marker, Held) else marker
        settled = origin
        if own and room[origin] > 0:
            room[origin] -= 1
        else:
            settled = Marker.make(match.path, origin, copied=own)
        if settled is not marker:
            edits[match.address] = lambda index, settled=settled: shallow_copy(
                index, marker=settled
            )
    return edited(new, edits)


def extend_state(
    state: eqx.nn.State, model: Any, donor: eqx.nn.State | None = None
) -> eqx.nn.State:
    """The state of an edited model: kept where the layer was kept, initial where it is new.

    **Arguments:**

    - `state`: the state of the model before the edit.
    - `model`: the model after it.
    - `donor`: the state of the model that grafted layers were taken from, if these had been
        separated from their initial state by `eqx.nn.make_with_state`.

    **Returns:**

    An `eqx.nn.State` with exactly the entries that `model` uses.

    **Raises:**

    - `ValueError`: a grafted layer has no initial state and no `donor` knows it, or two layers would
        share their state because they were joined by other means than an edit.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx
    >>> norm = lambda: eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
    >>> model, state = eqx.nn.make_with_state(gx.Chain)(norm=norm())
    >>> model = gx.select(model, "norm").insert_after(again=norm())
    >>> state = gx.extend_state(state, model)
    >>> len(state.get(model.again.batch_state_index))
    2

    ```
    """
    found = indices(model)
    _check_distinct(found)
    return new_state((m.node.marker, _state_value(m, state, donor)) for m in found)


def _check_distinct(found: list[Match]) -> None:
    # A marker that is no text was never replaced by `make_with_state`: a layer stands there twice.
    paths: dict[str, str] = {}
    for match in found:
        marker = match.node.marker
        if isinstance(marker, str) and marker in paths:
            raise ValueError(
                f"The layers at {paths[marker]!r} and {match.path!r} have one state marker, "
                f"{str(marker)!r}, and would share their state. Put one of them in by an edit, as in "
                "select(model, ...).set(layer): that gives it a marker of its own."
            )
        if isinstance(marker, str):
            paths[marker] = match.path


def _state_value(match: Match, state: eqx.nn.State, donor: eqx.nn.State | None) -> Any:
    index, marker = match.node, match.node.marker
    source: eqx.nn.State | None = state
    places: list[tuple[eqx.nn.State | None, Any]] = [(state, marker)]
    while isinstance(marker, Marker):
        # What came from elsewhere was known by its earlier markers there.
        source, marker = (source if marker.copied else donor), marker.origin
        places.append((source, marker))
    for source, known_as in places:
        if source is not None:
            try:
                return source.get(shallow_copy(index, marker=known_as))
            except KeyError:
                pass
    if is_taken(index):
        raise ValueError(
            f"The layer at {match.path!r} is new to this state, and its own initial state was taken "
            "from it by eqx.nn.make_with_state. Give the state it was taken to as donor=..."
        )
    return index.init


# BatchNorm divides by `1 - momentum ** count`; after so many steps that is 1, as in PyTorch.
_MANY_STEPS = 1_000_000

StateValues = list[tuple[eqx.nn.StateIndex, Any]]


def statistics_index(layer: eqx.nn.BatchNorm) -> eqx.nn.StateIndex:
    """Where a state holds the running mean and variance."""
    index = layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index
    assert index is not None
    return index


def state_values(layer: eqx.nn.BatchNorm, mean: Any, variance: Any) -> StateValues:
    """What Equinox's state holds for these running statistics."""
    pair = (jnp.asarray(mean), jnp.asarray(variance))
    if layer.mode == "ema":
        progress, value = layer.ema_first_time_index, jnp.array(False)
    else:
        progress, value = layer.batch_counter, jnp.array(_MANY_STEPS)
    assert progress is not None
    return [(progress, value), (statistics_index(layer), pair)]


def running_statistics(
    layer: eqx.nn.BatchNorm, state: eqx.nn.State | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """(mean, variance, number of batches) as PyTorch holds them, each of shape `(channels,)`."""
    mean, variance = value_of(statistics_index(layer), state)
    if layer.mode == "ema":
        return np.asarray(mean), np.asarray(variance), 0
    count = int(value_of(layer.batch_counter, state))
    scale = 1.0 if count == 0 else 1.0 - layer.momentum**count
    return np.asarray(mean / scale), np.asarray(variance / scale), count


def value_of(index: Any, state: eqx.nn.State | None) -> Any:
    """What a state holds, or the model if it was not separated from its state.

    Raises `ValueError` if the state is needed, or is another model's.
    """
    if state is not None:
        try:
            return state.get(index)
        except KeyError:
            raise ValueError(
                f"The state given is not that of this model: it knows nothing of {index.marker!r}. For a "
                "model that was edited, take graftax.extend_state(state, model)."
            ) from None
    if is_taken(index):
        raise ValueError(
            "The running statistics of this model are in its state, which eqx.nn.make_with_state took "
            "out of it: give state=..."
        )
    return index.init


def with_state_values(
    model: Any, values: StateValues, state: eqx.nn.State | None
) -> tuple[Any, eqx.nn.State | None]:
    """`(model, state)` with new running statistics: in the state if there is one, else in the model."""
    if state is not None:
        # Of a copy, because Equinox makes the state that it updates unusable.
        copy = jax.tree.map(lambda leaf: leaf, state)
        return model, copy.update(
            eqx.nn.State([shallow_copy(index, init=value) for index, value in values])
        )
    new = {index.marker: value for index, value in values}
    edits = {
        match.address: lambda index: shallow_copy(index, init=new[index.marker])
        for match in indices(model)
        if match.node.marker in new
    }
    return edited(model, edits), None
