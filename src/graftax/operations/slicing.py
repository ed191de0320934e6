"""Coupled layers cut together."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax

from ..paths.edit import Edit, at, edited
from ..paths.path import render
from ..paths.search import Match
from ..paths.tree import INNER, level_of
from ..structure.wrapper import Wrapper
from ..surgery.hints import NoMatchError
from ..surgery.selecting import select
from ..surgery.state import init_of, is_index
from ..surgery.tied import Tied, opened
from .axes import Axis, cut_layer, rule_class
from .axis_compound import resized
from .index import Blocks, Index, Positions
from .inner import has_own_arrays

M = TypeVar("M")
Address = tuple[int, ...]


def take(model: M, axes: Mapping[str | re.Pattern[str], Axis], index: Positions | Blocks) -> M:
    """The model with some positions kept along axes that belong together: to prune heads or channels.

    `take(model, {"up": "out", "down": "in"}, index)` keeps the same rows of `up` as columns of
    `down`. All that has the axis goes along: biases, the parameters and running statistics of norms,
    and sizes such as `out_features`. Where the positions that are left out counted for nothing, the
    model computes what it computed; a permutation of all of them changes nothing.

    **Arguments:**

    - `model`: any pytree.
    - `axes`: from patterns, which pick layers (or single arrays), to the axis to take along: `"out"`,
        what a layer gives; `"in"`, what it is given; or a number, an axis of its weight as Equinox
        holds it: for linear layers and convolutions 0 is `"out"` and 1 is `"in"`, for embeddings 0 is
        `"in"`, the tokens, and 1 is `"out"`. A norm has one axis, 0, and both names mean it. An
        attention has the axis `"heads"`. Several axes of one layer are a tuple, `("in", "out")`.
    - `index`: what is kept, in this order: a sequence or array of integers, a slice, a mask of
        booleans; or `graftax.blocks(...)`, which counts heads or groups.

    **Returns:**

    The model. Arrays that were tied and are cut alike stay tied.

    **Raises:**

    - `NoMatchError`: a pattern matches nothing.
    - `TypeError`: the index is none, or not known when a function is traced.
    - `ValueError`: there is no pattern; or, with the path, a layer cannot be cut so, the axes differ in
        length, an index is out of range, named twice or empty, or tied arrays are not cut alike.

    Source: Li et al., Pruning Filters for Efficient ConvNets, arXiv:1608.08710; Michel et al., Are
    Sixteen Heads Really Better than One?, arXiv:1905.10650.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> k1, k2 = jax.random.split(jax.random.key(0))
    >>> model = gx.Chain(
    ...     up=eqx.nn.Linear(4, 8, key=k1), act=jax.nn.relu, down=eqx.nn.Linear(8, 4, key=k2)
    ... )
    >>> small = gx.take(model, {"up": "out", "down": "in"}, [0, 2, 5])
    >>> small.up.weight.shape, small.up.out_features, small.down.in_features
    ((3, 4), 3, 3)

    ```
    """
    base, links = opened(model)
    one_index = Index(index)
    lengths: dict[str, int] = {}
    edits: dict[Address, Edit] = {}
    for address, part in _parts(base, axes).items():
        edits[address] = lambda node, part=part: _cut(node, part, one_index, lengths)
        for mlp in _mlps_above(base, address):
            edits[mlp] = resized
    new = edited(base, edits)
    for link in links:
        _check_tie(base, new, link)
    return Tied(new, links) if links else new  # pyright: ignore[reportReturnType]


class _Part(NamedTuple):
    """A layer or an array to cut."""

    path: str
    axes: tuple[int | str, ...]


def _parts(base: Any, axes: Mapping[str | re.Pattern[str], Axis]) -> dict[Address, _Part]:
    """What is to be cut, by address. What several patterns pick is cut along the axes of all."""
    if not axes:
        raise ValueError("take needs at least one pattern with an axis, such as {'up': 'out'}.")
    parts: dict[Address, _Part] = {}
    for pattern, axis in axes.items():
        wanted = tuple(axis) if isinstance(axis, list | tuple | set | frozenset) else (axis,)
        selection = select(base, pattern)
        if not selection:
            raise NoMatchError(selection.why_empty())
        for match in _outermost(selection.matches):
            owner, along = _owner(base, match, wanted)
            before = parts[owner.address].axes if owner.address in parts else ()
            parts[owner.address] = _Part(owner.path, tuple(dict.fromkeys((*before, *along))))
    return parts


def _outermost(matches: Sequence[Match]) -> list[Match]:
    """The matches without what is inside of one that is cut whole: a part may have its label."""
    whole = {match.address for match in matches if rule_class(type(match.node)) is not None}
    return [
        match
        for match in matches
        if not any(match.address[:depth] in whole for depth in range(len(match.address)))
    ]


def _owner(base: Any, match: Match, axes: tuple[Any, ...]) -> tuple[Match, tuple[Any, ...]]:
    """The layer that a match is a part of, and its axes that are meant; or what is matched itself."""
    node = base
    for depth, i in enumerate(match.address):
        if rule_class(type(node)) is not None:
            owner = Match(match.address[:depth], match.keys[:depth], node)
            return owner, _axes_of_owner(owner, match, axes)
        node = at(node, (i,))
    # One layer by one address, whether it was matched or a wrapper around it.
    while isinstance(match.node, Wrapper) and rule_class(type(match.node)) is None:
        if has_own_arrays(match.node):
            break
        match = Match((*match.address, 0), (*match.keys, INNER), match.node.layer)
    return match, axes


def _axes_of_owner(owner: Match, match: Match, axes: tuple[Any, ...]) -> tuple[Any, ...]:
    # The bias of a layer has what its weight has as "out"; a number is an axis of the weight itself.
    inside = [key for key in match.keys[len(owner.keys) :] if key is not INNER]
    if inside == ["bias"] and axes in ((0,), ("out",)):
        return ("out",)
    if inside == ["weight"]:
        return axes
    raise ValueError(
        f"take cannot cut {match.path!r} alone: it is a part of the {type(owner.node).__name__} at "
        f"{owner.path!r}. Take from that: {{{owner.path!r}: axis}}."
    )


def _cut(node: Any, part: _Part, index: Index, lengths: dict[str, int]) -> Any:
    index.sizes.clear()
    try:
        new = (
            _cut_array(node, part.axes, index)
            if eqx.is_array(node)
            else cut_layer(node, part.axes, index)
        )
        _check_lengths(part.path, index, lengths)
    except ValueError as error:
        kind = "an array" if eqx.is_array(node) else f"of type {type(node).__name__}"
        raise ValueError(f"take cannot cut {part.path!r}, {kind}: {error}.") from None
    return new


def _cut_array(array: Any, axes: tuple[Any, ...], index: Index) -> Any:
    for axis in axes:
        if not isinstance(axis, int) or not -array.ndim <= axis < array.ndim:
            raise ValueError(f"of an array with {array.ndim} axes, {axis!r} is none")
        array = index.cut(array, axis % array.ndim)
    return array


def _check_lengths(path: str, index: Index, lengths: dict[str, int]) -> None:
    """Raise `ValueError` where positions are counted singly on axes that differ in length."""
    if index.count is not None:
        return
    for size in index.sizes:
        other, length = next(iter(lengths.items()), (path, size))
        if size != length:
            raise ValueError(f"it has {size} positions there, and {other!r} has {length}")
        lengths.setdefault(path, size)


def _mlps_above(base: Any, address: Address) -> list[Address]:
    places = [address[:depth] for depth in range(len(address))]
    return [place for place in places if isinstance(at(base, place), eqx.nn.MLP)]


def _check_tie(base: Any, new: Any, link: tuple[Address, Address]) -> None:
    source, target = (_held(at(new, place)) for place in link)
    if any(a is not b for a, b in zip(source, target, strict=True)):
        source_path, target_path = (_path(base, place) for place in link)
        raise ValueError(
            f"{source_path!r} and {target_path!r} are tied, and would not be cut alike. Take of both, "
            "along the same axis of the array; or end the tie first, with a copy at one of the two."
        )


def _held(node: Any) -> list[Any]:
    """What is tied there: an array, or the statistics of a layer with state."""
    return jax.tree.leaves(init_of(node)) if is_index(node) else [node]


def _path(tree: Any, address: Address) -> str:
    keys = []
    for i in address:
        level = level_of(tree)
        keys.append(level.keys[i])
        tree = level.children[i]
    return render(keys)
