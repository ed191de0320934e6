"""Where the ties of a model are after an edit: what was tied was moved, replaced, or is gone.

To explain how this works. A tied model is edited as if it were not tied: the edit sees the array at every
place, and gives a model with arrays at every place. All that is left of the ties is then which array stands
where, before and after. Of a place that was tied, one of three things is true:

- *moved*: its array still stands somewhere; often just where it was. The tie goes where the array went.
- *replaced*: its array does not, but another one, new to the model, stands at the same path in a layer of
  the same type: it is what the edit made of the old one. Of the first place of a tie, that holds for all;
  of another place alone, it ends the tie.
- *gone*: neither. An array that stands there now and stood elsewhere before was moved there, and a layer of
  another type holds something else (quantised weights, for one): neither is what became of the old array.

A worked example, W at two places of a list of layers:

    before                      [a: W, b: X, c: W, d: Y, e: Z]     0 tied to 2
    insert n before a           [n, a: W, b: X, c: W, d: Y, e: Z]  W moved: 1 tied to 3
    a.weight set to V           [a: V, b: X, c: W, d: Y, e: Z]     0 replaced: c follows, V at both
    c.weight set to V           [a: W, b: X, c: V, d: Y, e: Z]     2 alone replaced: the tie ends
    both set, to V and U        [a: V, b: X, c: U, d: Y, e: Z]     both replaced: tied, V at both
    a removed                   [b: X, c: W, d: Y, e: Z]           W is at 1 alone: the tie ends
    a and c removed             [b: X, d: Y, e: Z]                 W is gone. X and Z, now at 0 and 2, were
                                                                   moved there: they must not become tied
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..paths.edit import at
from ..paths.search import Match, search_all
from .same import identity
from .state import init_of, is_index

Address = tuple[int, ...]
Links = tuple[tuple[Address, Address], ...]
"""Pairs of a source and a target. No target is a source, or the target of another."""


def can_be_tied(node: Any) -> bool:
    """Whether it can stand at two places of a tied model: an array, or the place of a value of state."""
    return isinstance(node, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)) or is_index(node)


def alike(a: Any, b: Any) -> bool:
    """Whether both are arrays, of one shape and dtype, or both places of like values of state."""
    if not can_be_tied(a) or not can_be_tied(b) or is_index(a) != is_index(b):
        return False
    if not is_index(a):
        return a.shape == b.shape and a.dtype == b.dtype
    (ours, form), (theirs, other) = map(jax.tree.flatten, (init_of(a), init_of(b)))
    return form == other and [*map(np.shape, ours)] == [*map(np.shape, theirs)]


def relinked(before: Any, after: Any, links: Links) -> Links:
    """The ties that hold in `after`, an edit of the model `before` with all its arrays in place."""
    if all(_peek(after, place) is at(before, place) for link in links for place in link):
        return links
    groups: dict[Address, list[Address]] = {}
    for source, target in links:
        groups.setdefault(source, []).append(target)
    edit = _Edit(before, after)
    return tuple(
        link for source, targets in groups.items() for link in edit.links_of(source, targets)
    )


def _peek(model: Any, address: Address) -> Any:
    try:
        return at(model, address)
    except IndexError:
        return None


def _by_identity(matches: Sequence[Match]) -> dict[Any, list[Match]]:
    found: dict[Any, list[Match]] = {}
    for match in matches:
        found.setdefault(identity(match.node), []).append(match)
    return found


class _Edit:
    """What became of the arrays of a model."""

    def __init__(self, before: Any, after: Any):
        self._before, self._after = before, after
        old, new = (search_all(model, can_be_tied) for model in (before, after))
        self._old, self._new = _by_identity(old), _by_identity(new)
        self._paths = {match.address: match.path for match in old}
        self._new_at = {match.path: match for match in new}

    def links_of(self, source: Address, targets: Sequence[Address]) -> Links:
        """The ties of one array that hold after the edit."""
        shared = at(self._before, source)
        if not can_be_tied(shared):
            # A mask, or the rest of a partition: there is nothing to follow.
            same = [target for target in targets if _peek(self._after, target) is shared]
            return tuple((source, target) for target in same)
        moved = self._moved(shared)
        replaced = {
            place: match.address
            for place in (source, *targets)
            if place not in moved and (match := self._replaced(place)) is not None
        }
        if source in replaced:
            value = at(self._after, replaced[source])
            ends = [moved.get(target, replaced.get(target)) for target in targets]
            keeps = [
                end
                for target, end in zip(targets, ends, strict=True)
                if end is not None and (target in moved or alike(at(self._after, end), value))
            ]
            return tuple((replaced[source], end) for end in keeps)
        stands = [moved[place] for place in (source, *targets) if place in moved]
        return tuple((stands[0], place) for place in stands[1:])

    def _moved(self, shared: Any) -> Mapping[Address, Address]:
        """From where an array stood to where it stands, as far as it does."""
        old, new = (side.get(identity(shared), []) for side in (self._old, self._new))
        stay: dict[Address, Address] = {}
        if len(old) != len(new) or {m.path for m in old} == {m.path for m in new}:
            stay = _by_path(old, new)
            taken = set(stay.values())
            old = [match for match in old if match.address not in stay]
            new = [match for match in new if match.address not in taken]
        # What positions are called changes with each layer put in before them, their order does not.
        return stay | {o.address: n.address for o, n in zip(old, new, strict=False)}

    def _replaced(self, place: Address) -> Match | None:
        """The array, new to the model, that an edit made of the one in a place."""
        match = self._new_at.get(self._paths[place])
        if match is None:
            return None
        stood, stands = (side.get(identity(match.node), ()) for side in (self._old, self._new))
        if len(stood) >= len(stands):
            return None
        layer, now = at(self._before, place[:-1]), at(self._after, match.address[:-1])
        return match if type(layer) is type(now) else None


def _by_path(old: Sequence[Match], new: Sequence[Match]) -> dict[Address, Address]:
    stands = {match.path: match.address for match in new}
    return {match.address: stands[match.path] for match in old if match.path in stands}
