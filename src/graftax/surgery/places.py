"""Two selections as sets: what of one stands at or inside the nodes of the other."""

from collections.abc import Iterable, Sequence

from ..paths.edit import place
from ..paths.search import Match

Address = tuple[int, ...]


def in_either(left: Sequence[Match], right: Sequence[Match]) -> list[Match]:
    """The matches of both, one a place: of two, that of the left."""
    merged = {place(match): match for match in right} | {place(match): match for match in left}
    return sorted(merged.values(), key=lambda match: match.address)


def in_both(left: Sequence[Match], right: Sequence[Match]) -> list[Match]:
    """Those of the left at or inside a node of the right.

    Raises `ValueError` if one of the right stands inside a node of the left that is not among them:
    then a part of that node is meant.
    """
    area = _Area(right)
    kept = [match for match in left if area.covers(match)]
    covered = _Area(kept)
    open_ones = [match for match in right if not covered.covers(match)]
    _check_uncut(left, open_ones)
    return kept


def in_left_only(left: Sequence[Match], right: Sequence[Match]) -> list[Match]:
    """Those of the left not at or inside a node of the right.

    Raises `ValueError` if one of the right stands inside one of them.
    """
    area = _Area(right)
    kept = [match for match in left if not area.covers(match)]
    _check_uncut(kept, right)
    return kept


class _Area:
    """The places of some nodes. A wrapper and what it holds are at one place."""

    def __init__(self, matches: Iterable[Match]):
        self._matches = tuple(matches)
        self._places = {place(match) for match in self._matches}
        self._addresses = {match.address for match in self._matches}

    def covers(self, match: Match) -> bool:
        """Whether a node stands at one of the places, or inside one of the nodes."""
        address = match.address
        return place(match) in self._places or any(
            address[:depth] in self._addresses for depth in range(len(address))
        )


def _check_uncut(whole: Iterable[Match], parts: Iterable[Match]) -> None:
    above: dict[Address, Match] = {}
    for part in parts:
        for depth in range(len(place(part))):
            above.setdefault(part.address[:depth], part)
    for match in whole:
        if (part := above.get(match.address)) is not None:
            raise ValueError(
                f"{part.path!r} stands inside {match.path or 'the root'!r}, which is selected whole. "
                "Take .arrays() of the left selection first: then its parts are told apart."
            )
