"""Edits of a model that settle in what is new: its inference mode and its state markers."""

import functools
from collections.abc import Mapping
from typing import Any

from ..paths.edit import Edit, edited
from ..paths.tree import any_type
from .inference import InferenceMode, has_mode
from .state import has_state, held, indices, is_index_type, settle_markers


@functools.lru_cache(maxsize=4096)
def _is_settled(cls: Any) -> bool:
    return is_index_type(cls) or has_mode(cls)


def graft_edits(model: Any, edits: Mapping[tuple[int, ...], Edit], adopt: bool = True) -> Any:
    """`edited`, with what is new settled in: its inference mode (if `adopt`) and state markers."""
    mode = InferenceMode(model)
    # An edit of the root looks at the whole model anyway, and then no other need look.
    may_hold = () not in edits or has_state(model)
    mine: set[int] | None = None

    def grafting(edit: Edit) -> Edit:
        def graft(node: Any) -> Any:
            nonlocal mine
            kept = held(node, own=True) if may_hold and has_state(node) else node
            new = edit(kept)
            if new is kept:
                return node
            if not any_type(new, _is_settled):
                return new
            if has_state(new):
                if mine is None:
                    mine = {id(match.node) for match in indices(model)}
                new = held(new, own=False, but=mine)
            return mode.given_to(new, node) if adopt else new

        return graft

    new = edited(model, {address: grafting(edit) for address, edit in edits.items()})
    return new if mine is None else settle_markers(model, new)
