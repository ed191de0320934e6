"""Edits of a model that settle in what is new: its inference mode and its state markers."""

import functools
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from ..paths.edit import Change, Edit, Items, edited, rearranged
from ..paths.search import Match
from ..paths.tree import any_type, level_of
from .inference import InferenceMode, has_mode
from .markers import held, is_in_hand, settle_markers, stored_indices
from .state import has_state, is_index, is_index_type

M = TypeVar("M")
Address = tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def _is_settled(cls: Any) -> bool:
    return is_index_type(cls) or has_mode(cls)


def graft_edits(model: M, edits: Mapping[Address, Edit], adopt: bool = True) -> M:
    """`edited`, with what is new settled in: its inference mode (if `adopt`) and state markers."""
    grafting = _Grafting(model, () not in edits or has_state(model), adopt)
    grafts = {address: grafting.of(edit) for address, edit in edits.items()}
    for address in _indices_around(model, edits):
        # Another value in an index makes it another object, but it is the same layer's.
        grafts[address] = grafting.of(edits.get(address, lambda index: index))
    new = edited(model, grafts)
    return settle_markers(model, new) if grafting.has_touched_state else new


class _Grafting:
    """One edit of a model: what it has in hand is held, what it brings in is settled."""

    def __init__(self, model: Any, may_hold: bool, adopt: bool):
        self._model, self._may_hold, self._adopt = model, may_hold, adopt
        self._mode = InferenceMode(model)
        self.has_touched_state = False

    @functools.cached_property
    def _is_inner(self) -> bool:
        # Then all that is the model's own is held already, and the outer edit settles what is new.
        return is_in_hand(self._model)

    @functools.cached_property
    def _mine(self) -> set[int]:
        return {id(match.node) for match in stored_indices(self._model)}

    def of(self, edit: Edit) -> Edit:
        """The edit, given what is held and giving what is settled."""

        def graft(node: Any) -> Any:
            # An edit of the root looks at the whole model anyway, and then no other need look.
            keeps_state = self._may_hold and has_state(node)
            kept = held(node, own=True) if keeps_state and not self._is_inner else node
            new = edit(kept)
            if new is kept and not self._is_rebuilt(node):
                return node
            self.has_touched_state |= keeps_state
            if not any_type(new, _is_settled):
                return new
            if has_state(new):
                self.has_touched_state = True
                new = new if self._is_inner else held(new, own=False, but=self._mine)
            return self._mode.given_to(new, node) if self._adopt else new

        return graft

    def _is_rebuilt(self, node: Any) -> bool:
        return is_index(node) and id(node) not in self._mine


def _indices_around(model: Any, addresses: Mapping[Address, Edit]) -> set[Address]:
    """The indices that something inside of is edited. O(nodes above the addresses)."""
    found = set()
    above: dict[Address, Any] = {(): model}
    for address in addresses:
        depth = len(address)
        while address[:depth] not in above:
            depth -= 1
        for end in range(depth, len(address)):
            node = above[address[:end]]
            if is_index(node):
                found.add(address[:end])
            above[address[: end + 1]] = level_of(node).children[address[end]]
    return found


def graft_rearranged(
    model: M, matches: tuple[Match, ...], change: Change, doing: str, instead: str = ""
) -> M:
    """`rearranged`, with state markers of their own for layers that are put in."""
    touched: list[Any] = []

    def noting(match: Match, key: Hashable, child: Any) -> Items:
        items = change(match, key, child)
        touched.extend(layer for _, layer in items if layer is not child)
        if all(layer is not child for _, layer in items):
            touched.append(child)
        return items

    new = rearranged(model, matches, noting, doing, instead)
    return settle_markers(model, new) if any(map(has_state, touched)) else new
