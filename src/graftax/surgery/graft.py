"""What a layer needs to live on in another model: its inference mode and its state markers."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax

from ..paths.search import Match, search
from ..paths.tree import kind_of, shallow_copy
from .edit import Edit, edited


def _is_mode(node: Any) -> bool:
    return isinstance(node, eqx.Module) and isinstance(node.__dict__.get("inference"), bool)


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
        if new is old or not any(True for _ in _modes(new)) or self.agreed() is None:
            return new
        if _same_but_mode(old, new):
            return new
        return _with_mode(new, bool(self.agreed()))


def _same_but_mode(old: Any, new: Any) -> bool:
    before, after = jax.tree.flatten(_with_mode(old, True)), jax.tree.flatten(_with_mode(new, True))
    same = before[1] == after[1] and all(a is b for a, b in zip(before[0], after[0], strict=True))
    return same


class Marker(str):
    """The marker of a grafted `StateIndex`: the path where it was grafted, and where it came from."""

    origin: Any
    copied: bool
    """Whether the origin is a layer of the same model."""

    @classmethod
    def make(cls, text: str, origin: Any, copied: bool) -> "Marker":
        marker = cls(text)
        marker.origin, marker.copied = origin, copied
        return marker


def _state_indices(tree: Any) -> list[Match]:
    return search(tree, None, [lambda node: isinstance(node, eqx.nn.StateIndex)])


def has_state(tree: Any) -> bool:
    """Whether a `StateIndex` stands anywhere in the tree."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, eqx.nn.StateIndex))
    return any(isinstance(leaf, eqx.nn.StateIndex) for leaf in leaves)


def settle_markers(old: Any, new: Any) -> Any:
    """`new`, an edit of `old`, with markers of its own for layers that came from elsewhere.

    Equinox's markers are text, equal in any two models of one class. But JAX carries the very text
    object through every transformation, so a marker that is equal and not the same object came from
    a model that was built separately; and one that stands in more places than before was copied.
    """
    before = _state_indices(old)
    native = {match.node.marker: match.node.marker for match in before}
    places = {(match.node.marker, match.path) for match in before}
    # As many places may share a marker as did before (`eqx.nn.Shared`); one, if it is new here.
    room = dict(Counter(match.node.marker for match in before))
    after = _state_indices(new)
    used = {*native, *(match.node.marker for match in after)}
    edits: dict[tuple[int, ...], Callable] = {}

    def distance(match: Match) -> int:
        marker = match.node.marker
        if marker in native and native[marker] is not marker:
            return 2
        return int((marker, match.path) not in places)

    # Who stands where it stood before is the first to keep its marker.
    for match in sorted(after, key=distance):
        marker, foreign = match.node.marker, distance(match) == 2
        allowed = room.get(marker, 1)
        if allowed > 0 and not foreign:
            room[marker] = allowed - 1
            continue
        fresh = Marker.make(_unused(match.path, used), marker, copied=not foreign)
        used.add(fresh)
        edits[match.address] = lambda index, fresh=fresh: shallow_copy(index, marker=fresh)
    return edited(new, edits)


def _unused(path: str, used: set) -> str:
    text, n = path, 1
    while text in used:
        n += 1
        text = f"{path}#{n}"
    return text


def graft_edits(model: Any, edits: Mapping[tuple[int, ...], Edit], adopt: bool = True) -> Any:
    """`edited`, with what is new settled in: its inference mode (if `adopt`) and state markers."""
    mode = InferenceMode(model)
    stateful = False

    def grafting(edit: Edit) -> Edit:
        def graft(node: Any) -> Any:
            nonlocal stateful
            new = edit(node)
            stateful = stateful or (new is not node and has_state(new))
            return mode.given_to(new, node) if adopt else new

        return graft

    new = edited(model, {address: grafting(edit) for address, edit in edits.items()})
    return settle_markers(model, new) if stateful else new


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

    - `ValueError`: a grafted layer has no initial state and no `donor` knows it.

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
    values = [
        shallow_copy(match.node, init=_state_value(match, state, donor))
        for match in _state_indices(model)
    ]
    return eqx.nn.State(values)


def _state_value(match: Match, state: eqx.nn.State, donor: eqx.nn.State | None) -> Any:
    index, marker = match.node, match.node.marker
    origin = getattr(marker, "origin", marker)
    for source, known_as in (
        (state, marker),
        (state, origin if getattr(marker, "copied", False) else marker),
        (donor, origin),
    ):
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
