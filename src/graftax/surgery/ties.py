"""One array, or one layer with all its arrays, at several places."""

from collections.abc import Iterable
from typing import Any, TypeVar

from ..paths.errors import listed
from ..paths.path import render
from ..paths.search import Match, search_all
from ..paths.tree import level_of
from .hints import NoMatchError, described
from .relink import Address, Links, alike, can_be_tied
from .same import is_stored
from .selecting import select
from .state import is_index
from .tied import opened, with_links

M = TypeVar("M")


def tie(model: M, source: Any, target: Any) -> M:
    """The model with the array at `source` at `target` too: stored once, differentiated once.

    Layers are tied as wholes: each array of the target is then that of the source, and layers with state
    share one state. What is no array (`stride`, an activation, the mode) stays each layer's own. Time is
    linear in the model, however many places are tied.

    **Arguments:**

    - `model`: any pytree.
    - `source`: a criterion, as in `graftax.select`, that picks one array or one layer.
    - `target`: a criterion that picks the places it takes, one or more: arrays of the same shape and
        dtype, or layers with such arrays at the same paths. The source itself, if among several, stays.

    **Returns:**

    The model in a transparent wrapper: no path changes. `None` stands at the target in the pytree,
    so that its leaves hold the array once.

    **Raises:**

    - `NoMatchError`, `MatchError`: `source` does not pick exactly one node, or `target` none.
    - `TypeError`: an array and a layer, or something that holds no arrays.
    - `ValueError`: they are one and the same place, or one is inside the other, or they differ in shape,
        dtype or arrays; or an array is a value of state or a slice of a stacked one.

    Source: `eqx.nn.Shared`; Press and Wolf, Using the Output Embedding, arXiv:1608.05859.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> k1, k2 = jax.random.split(jax.random.key(0))
    >>> model = gx.Chain(embed=eqx.nn.Embedding(9, 4, key=k1), head=eqx.nn.Linear(4, 9, key=k2))
    >>> tied = gx.tie(model, "embed.weight", "head.weight")
    >>> tied.head.weight is tied.embed.weight
    True
    >>> [leaf.shape for leaf in jax.tree.leaves(tied)]
    [(9, 4), (9,)]
    >>> blocks = gx.Chain([eqx.nn.Linear(4, 4, key=k1) for _ in range(12)])
    >>> gx.select(gx.tie(blocks, "0", "[1:]"), "").size
    20

    ```
    """
    base, links = opened(model)
    (first,) = select(base, source).expect(1).matches
    found = select(base, target)
    if not found:
        raise NoMatchError(f"Expected something to tie {first.path!r} to. {found.why_empty()}")
    others = [match for match in found.matches if match.address != first.address]
    if not others:
        raise ValueError(f"{first.path!r} cannot be tied to itself.")
    parts = _parts(base, first)
    pairs = [pair for other in others for pair in _pairs(base, first, parts, other)]
    return with_links(base, _joined(links, pairs))


def _parts(model: Any, match: Match) -> dict[str, Match]:
    """What can be tied at a place or inside it, by the path from there."""
    _check_no_value_of_state(model, match)
    inside = search_all(match.node, can_be_tied)
    indices = {part.address for part in inside if is_index(part.node)}
    found = [part for part in inside if not _is_inside(part.address, indices)]
    if not found:
        raise TypeError(
            f"Only arrays and layers that hold some can be tied; {match.path!r} is of type "
            f"{type(match.node).__name__}."
        )
    parts = {
        part.path: Match(match.address + part.address, match.keys + part.keys, part.node)
        for part in found
    }
    for part in parts.values():
        _check_stored(model, part)
    return parts


def _check_no_value_of_state(model: Any, match: Match) -> None:
    node = model
    for i in match.address:
        if is_index(node):
            raise ValueError(
                f"{match.path!r} is a value of state, which is tied with the layer that keeps it: tie the "
                "layers."
            )
        node = level_of(node).children[i]


def _check_stored(model: Any, match: Match) -> None:
    if not is_stored(model, match.address):
        raise ValueError(
            f"{match.path!r} is one slice of a stacked array, and cannot be tied alone: unstack the layers "
            "first."
        )


def _is_inside(address: Address, others: set[Address]) -> bool:
    return any(address[:depth] in others for depth in range(len(address)))


def _pairs(
    model: Any, first: Match, parts: dict[str, Match], other: Match
) -> list[tuple[Address, Address]]:
    """(source, target) of each array that two places have in common, which must be all."""
    if _is_inside(first.address, {other.address}) or _is_inside(other.address, {first.address}):
        raise ValueError(f"{first.path!r} and {other.path!r} cannot be tied: one is in the other.")
    theirs = _parts(model, other)
    _check_one_kind(first, other)
    if alone := sorted(parts.keys() ^ theirs.keys()):
        mine = [name for name in alone if name in parts]
        stands = first if mine else other
        raise ValueError(
            f"Only layers with the same arrays can be tied: {listed([repr(n) for n in mine or alone])} of "
            f"{stands.path!r} is not in {(other if mine else first).path!r}. Tie the arrays that both have."
        )
    for name, part in parts.items():
        if not alike(part.node, theirs[name].node):
            raise ValueError(
                f"Only arrays of one shape and dtype can be tied: {part.path!r} is "
                f"{described(part.node)}, {theirs[name].path!r} is {described(theirs[name].node)}."
            )
    return [(part.address, theirs[name].address) for name, part in parts.items()]


def _check_one_kind(first: Match, other: Match) -> None:
    if can_be_tied(first.node) == can_be_tied(other.node):
        return
    layer = other if can_be_tied(first.node) else first
    inside = search_all(layer.node, can_be_tied)[0]
    raise TypeError(
        f"An array is tied to an array, a layer to a layer; {layer.path!r} is of type "
        f"{type(layer.node).__name__}. Did you mean {render((*layer.keys, *inside.keys))!r}?"
    )


def _joined(links: Links, pairs: Iterable[tuple[Address, Address]]) -> Links:
    """The ties with more of them. What is tied to a target follows it to its new source."""
    source_of = {target: source for source, target in links}
    # Dicts as sets that keep their order.
    targets_of: dict[Address, dict[Address, None]] = {}
    for source, target in links:
        targets_of.setdefault(source, {})[target] = None
    for place, target in pairs:
        source = source_of.get(place, place)
        if source == target:
            continue
        if target in source_of:
            del targets_of[source_of[target]][target]
        for follower in (target, *targets_of.pop(target, ())):
            source_of[follower] = source
            targets_of.setdefault(source, {})[follower] = None
    return tuple((source, target) for source, all_ in targets_of.items() for target in all_)
