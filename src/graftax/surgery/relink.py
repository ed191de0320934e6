"""Where the ties of a model are after an edit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax

from ..paths.edit import at
from ..paths.search import Match, search_all

Address = tuple[int, ...]
Links = tuple[tuple[Address, Address], ...]
"""Pairs of a source and a target. No target is a source, or the target of another."""


def alike(a: Any, b: Any) -> bool:
    """Whether both are arrays, of one shape and dtype."""
    return eqx.is_array(a) and eqx.is_array(b) and a.shape == b.shape and a.dtype == b.dtype


def relinked(before: Any, after: Any, links: Links) -> Links:
    """The ties that hold in `after`, an edit of the model `before` with all its arrays in place."""
    if all(_peek(after, place) is at(before, place) for link in links for place in link):
        return links
    groups: dict[Address, list[Address]] = {}
    for source, target in links:
        groups.setdefault(source, []).append(target)
    edit = _Edit(before, after)
    return tuple(
        link
        for source, targets in groups.items()
        for link in edit.links_of(at(before, source), source, targets)
    )


def _peek(model: Any, address: Address) -> Any:
    try:
        return at(model, address)
    except IndexError:
        return None


def _is_array(node: Any) -> bool:
    return eqx.is_array(node) or isinstance(node, jax.ShapeDtypeStruct)


class _Edit:
    """What became of the arrays of a model. An array that was only moved is the same object."""

    def __init__(self, before: Any, after: Any):
        self._before, self._after = before, after
        self._old, self._new = (search_all(model, _is_array) for model in (before, after))
        self._old_count, self._new_count = (
            Counter(id(match.node) for match in matches) for matches in (self._old, self._new)
        )
        self._paths = {match.address: match.path for match in self._old}
        self._new_at = {match.path: match for match in self._new}

    def links_of(self, shared: Any, source: Address, targets: Sequence[Address]) -> Links:
        """The ties of one array that hold after the edit."""
        if not _is_array(shared):
            # A mask, or the rest of a partition: there is nothing to follow.
            same = [target for target in targets if _peek(self._after, target) is shared]
            return tuple((source, target) for target in same)
        kept = self._kept(shared)
        changed = {
            place: match.address
            for place in (source, *targets)
            if place not in kept and (match := self._changed(place)) is not None
        }
        if source in changed:
            value = at(self._after, changed[source])
            ends = [kept.get(target, changed.get(target)) for target in targets]
            keeps = [
                end
                for target, end in zip(targets, ends, strict=True)
                if end is not None and (target in kept or alike(at(self._after, end), value))
            ]
            return tuple((changed[source], end) for end in keeps)
        stands = [kept[place] for place in (source, *targets) if place in kept]
        return tuple((stands[0], place) for place in stands[1:])

    def _kept(self, shared: Any) -> Mapping[Address, Address]:
        """From where an array stood to where it stands, as far as it does."""
        old = [match for match in self._old if match.node is shared]
        new = [match for match in self._new if match.node is shared]
        if len(old) != len(new) or {m.path for m in old} == {m.path for m in new}:
            kept = _by_path(old, new)
            old = [match for match in old if match.address not in kept]
            taken = set(kept.values())
            new = [match for match in new if match.address not in taken]
        else:
            kept = {}
        # What positions are called changes with each layer put in before them, their order does not.
        return kept | {o.address: n.address for o, n in zip(old, new, strict=False)}

    def _changed(self, place: Address) -> Match | None:
        """The other array that now stands in a place, if it did not just move there.

        In a layer of another type it would be another thing, quantised weights for one.
        """
        match = self._new_at.get(self._paths[place])
        if match is None or self._old_count[id(match.node)] >= self._new_count[id(match.node)]:
            return None
        layer, now = at(self._before, place[:-1]), at(self._after, match.address[:-1])
        return match if type(layer) is type(now) else None


def _by_path(old: Sequence[Match], new: Sequence[Match]) -> dict[Address, Address]:
    stands = {match.path: match.address for match in new}
    return {match.address: stands[match.path] for match in old if match.path in stands}
