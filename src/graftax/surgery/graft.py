"""What a layer needs to live on in another model: its inference mode and its state markers."""

import functools
import secrets
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax

from ..paths.search import Match, search
from ..paths.tree import any_type, kind_of, shallow_copy, values_of
from .edit import Edit, edited


@functools.lru_cache(maxsize=4096)
def _has_mode(cls: Any) -> bool:
    return issubclass(cls, eqx.Module) and "inference" in cls.__dataclass_fields__


def _is_mode(node: Any) -> bool:
    return _has_mode(type(node)) and isinstance(values_of(node).get("inference"), bool)


def _modes(tree: Any) -> Iterator[bool]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if _is_mode(node):
            yield node.inference
        if (kind := kind_of(type(node))) is not None:
            pending.extend(kind.level(node).children)


def _with_mode(tree: Any, mode: bool) -> Any:
    matches = search(tree, None, [_is_mode])
    return edited(
        tree, {m.address: lambda node: shallow_copy(node, inference=mode) for m in matches}
    )


class InferenceMode:
    """The `inference` mode that the layers of a model agree on; looked up once, and only if needed."""

    def __init__(self, model: Any):
        self._model = model
        self._agreed: bool | None = None
        self._known = False

    def agreed(self) -> bool | None:
        """The mode; None if the layers differ or none has one."""
        if not self._known:
            modes = set(_modes(self._model))
            self._agreed = modes.pop() if len(modes) == 1 else None
            self._known = True
        return self._agreed

    def given_to(self, new: Any, old: Any) -> Any:
        """`new` in the mode of the model. Where only the mode of `old` was changed, that was meant."""
        if not any_type(new, _has_mode) or self.agreed() is None or _same_but_mode(old, new):
            return new
        return _with_mode(new, bool(self.agreed()))


def _same_but_mode(old: Any, new: Any) -> bool:
    before, after = jax.tree.flatten(_with_mode(old, True)), jax.tree.flatten(_with_mode(new, True))
    same = before[1] == after[1] and all(a is b for a, b in zip(before[0], after[0], strict=True))
    return same


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


def _state_indices(tree: Any) -> list[Match]:
    return search(tree, None, [lambda node: isinstance(node, eqx.nn.StateIndex)])


@functools.lru_cache(maxsize=4096)
def _is_index(cls: Any) -> bool:
    return issubclass(cls, eqx.nn.StateIndex)


@functools.lru_cache(maxsize=4096)
def _is_settled(cls: Any) -> bool:
    return _is_index(cls) or _has_mode(cls)


def has_state(tree: Any) -> bool:
    """Whether a `StateIndex` stands anywhere in the tree."""
    return any_type(tree, _is_index)


def _held(tree: Any, own: bool, but: Container[int] = ()) -> Any:
    """The tree with the markers in it held, except those held already and the indices `but`."""
    edits: dict[tuple[int, ...], Edit] = {
        match.address: lambda index: shallow_copy(index, marker=Held(index, own))
        for match in _state_indices(tree)
        if not isinstance(match.node.marker, Held) and id(match.node) not in but
    }
    return edited(tree, edits)


def settle_markers(old: Any, new: Any) -> Any:
    """`new`, an edit of `old`, with markers of its own for layers that came from elsewhere.

    Equinox's markers are text, equal in any two models of one class, and even the same object once
    both went through one jitted function. So the objects tell: a `StateIndex` that is one of `old`,
    or was held as one, is of this model, and all others are not.
    """
    before = _state_indices(old)
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
    for match in sorted(_state_indices(new), key=has_moved):
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


def graft_edits(model: Any, edits: Mapping[tuple[int, ...], Edit], adopt: bool = True) -> Any:
    """`edited`, with what is new settled in: its inference mode (if `adopt`) and state markers."""
    mode = InferenceMode(model)
    # An edit of the root looks at the whole model anyway, and then no other need look.
    may_hold = () not in edits or has_state(model)
    mine: set[int] | None = None

    def grafting(edit: Edit) -> Edit:
        def graft(node: Any) -> Any:
            nonlocal mine
            held = _held(node, own=True) if may_hold and has_state(node) else node
            new = edit(held)
            if new is held:
                return node
            if not any_type(new, _is_settled):
                return new
            if has_state(new):
                if mine is None:
                    mine = {id(match.node) for match in _state_indices(model)}
                new = _held(new, own=False, but=mine)
            return mode.given_to(new, node) if adopt else new

        return graft

    new = edited(model, {address: grafting(edit) for address, edit in edits.items()})
    return new if mine is None else settle_markers(model, new)


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
    indices = _state_indices(model)
    _check_distinct(indices)
    values = [shallow_copy(m.node, init=_state_value(m, state, donor)) for m in indices]
    return eqx.nn.State(values)


def _check_distinct(indices: list[Match]) -> None:
    # A marker that is no text was never replaced by `make_with_state`: a layer stands there twice.
    paths: dict[str, str] = {}
    for match in indices:
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
    if isinstance(index.init, eqx.Module) and not jax.tree.leaves(index.init):
        raise ValueError(
            f"The layer at {match.path!r} is new to this state, and its own initial state was taken "
            "from it by eqx.nn.make_with_state. Give the state it was taken to as donor=..."
        )
    return index.init
