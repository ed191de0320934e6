"""What becomes of the names of a state in an edit: who was there keeps its name, who comes gets another.

`state.py` says what a name is, and what happens where two layers have one.
"""

from collections import Counter
from collections.abc import Container
from typing import Any, TypeVar

from ..paths.edit import Edit, edited
from ..paths.search import Match
from .names import Held, Name, removed
from .state import index_leaves, indices, marker_of, with_marker
from .tied import tied_addresses

M = TypeVar("M")


def stored_indices(tree: Any) -> list[Match]:
    """Every `StateIndex` that the tree stores: of tied ones, the first."""
    tied = tied_addresses(tree)
    return [match for match in indices(tree) if match.address not in tied]


def held(tree: M, own: bool, but: Container[int] = ()) -> M:
    """The tree with the markers in it held, except those held already and the indices `but`."""
    edits: dict[tuple[int, ...], Edit] = {
        match.address: lambda index: with_marker(index, Held(marker_of(index), own))
        for match in indices(tree)
        if not isinstance(marker_of(match.node), Held) and id(match.node) not in but
    }
    return edited(tree, edits)


def is_in_hand(tree: Any) -> bool:
    """Whether an edit has the tree, or anything in it, in hand."""
    return any(isinstance(marker_of(index), Held) for index in index_leaves(tree))


def settle_markers(old: Any, new: M) -> M:
    """`new`, an edit of `old`, with names of their own for layers that came from elsewhere.

    The names cannot tell: they are equal in any two models of one class, and even the same object once
    both went through one jitted function. So the indices do: one that is an object of `old`, or was held
    as one, is of this model, and all others are not.
    """
    if is_in_hand(old):
        # An edit made inside another, of what that one has in hand. The last word is the outer one's.
        return new
    before, after = stored_indices(old), stored_indices(new)
    mine = {id(match.node) for match in before}
    places = {(_name(match), match.path) for match in before}
    # As many places may share a name as did before.
    room = Counter(map(_name, before))
    taken = {*room, *map(_name, after)}

    def is_own(match: Match) -> bool:
        marker = marker_of(match.node)
        return marker.own if isinstance(marker, Held) else id(match.node) in mine

    def settled(match: Match) -> Any:
        name, own = _name(match), is_own(match)
        if own and room[name] > 0:
            room[name] -= 1
        else:
            name = Name.make(match.path, name, own, taken)
            taken.add(name)
        return name

    # Who stands where it stood before is the first to keep its name.
    moved_last = sorted(after, key=lambda match: (_name(match), match.path) not in places)
    markers = {match.address: settled(match) for match in moved_last}
    removed.note({name for name, _ in places} - set(markers.values()))
    edits: dict[tuple[int, ...], Edit] = {
        match.address: lambda index, marker=markers[match.address]: with_marker(index, marker)
        for match in after
        if markers[match.address] is not marker_of(match.node)
    }
    return edited(new, edits)


def _name(match: Match) -> Any:
    marker = marker_of(match.node)
    return marker.name if isinstance(marker, Held) else marker
