"""Many edits in one pass: only the spine above what changes is rebuilt."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from .path import render
from .search import Match
from .tree import INNER, Kind, TreeNode, kind_of, level_of

Edit = Callable[[Any], Any]
Items = list[tuple[Hashable, Any]]
Change = Callable[[Hashable, Any], Items]


def edited(model: Any, edits: Mapping[tuple[int, ...], Edit]) -> Any:
    """The model with the node at each address given to its edit, deepest first.

    O(depth x edits): what no address leads to is not visited, and shared with the old model.
    """
    # From the number of a child to what is to be done there; under -1, the edit of the node itself.
    root: dict[int, Any] = {}
    for address, edit in edits.items():
        branch = root
        for i in address:
            branch = branch.setdefault(i, {})
        branch[-1] = edit
    return _apply(model, root, ())


def _apply(node: Any, branch: dict[int, Any], keys: tuple[Hashable, ...]) -> Any:
    edit = branch.pop(-1, None)
    if branch:
        kind = kind_of(node)
        assert kind is not None, "an address leads through a leaf"
        level = kind.level(node)
        old = level.children
        new = {i: _apply(old[i], below, (*keys, level.keys[i])) for i, below in branch.items()}
        changed = {i: child for i, child in new.items() if child is not old[i]}
        node = _replaced(kind, node, changed, keys) if changed else node
    return node if edit is None else edit(node)


def _replaced(kind: Kind, node: Any, changed: Mapping[int, Any], keys: tuple[Hashable, ...]) -> Any:
    try:
        if isinstance(node, TreeNode):
            type(node).tree_check(node, changed)
        return kind.replace(node, changed)
    except (ValueError, TypeError) as error:
        raise type(error)(f"In {located(node, render(keys))}: {error}") from None


def located(node: Any, path: str) -> str:
    """A node by its type and its place, for a message."""
    return f"{type(node).__name__} at {path!r}" if path else f"the root, a {type(node).__name__}"


def at(model: Any, address: tuple[int, ...]) -> Any:
    """The node at an address."""
    for i in address:
        model = level_of(model).children[i]
    return model


def rearranged(model: Any, matches: tuple[Match, ...], change: Change, doing: str) -> Any:
    """The model with each match changed to zero or more `(label, layer)` items of its parent.

    Raises `ValueError` if a match is the root or stands where there is no order to change.
    """
    by_parent: dict[tuple[int, ...], dict[int, Change]] = {}
    paths: dict[tuple[int, ...], str] = {}
    for match in matches:
        address = place(match)
        if not address:
            raise ValueError(f"The root cannot be {doing}: it stands in no container.")
        by_parent.setdefault(address[:-1], {})[address[-1]] = change
        paths[address[:-1]] = render(match.keys[: len(address) - 1])
    edits = {
        parent: (lambda node, c=changes, p=paths[parent]: _rearrange(node, c, p, doing))
        for parent, changes in by_parent.items()
    }
    return edited(model, edits)


def place(match: Match) -> tuple[int, ...]:
    """The address of the outermost of all wrappers that stand around a node at its path."""
    depth = len(match.keys)
    while depth and match.keys[depth - 1] is INNER:
        depth -= 1
    return match.address[:depth]


def _rearrange(node: Any, changes: Mapping[int, Change], path: str, doing: str) -> Any:
    kind = kind_of(node)
    level = level_of(node)
    place = located(node, path)
    where = place if path else f"{place},"
    if kind is None or kind.rearrange is None:
        field = level.keys[next(iter(changes))]
        raise ValueError(
            f"{field!r} of {where} cannot be {doing}: it is a field, and fields of a class are "
            "fixed. `.set` and `.update` change what is in it."
        )
    items: Items = []
    for i, (key, child) in enumerate(zip(level.keys, level.children, strict=True)):
        new = changes[i](key, child) if i in changes else [(key, child)]
        if i in changes and _is_field(node, key) and (new or not _is_optional(node, key)):
            raise ValueError(f"{key!r} of {where} cannot be {doing}: it is no layer in an order.")
        items.extend(new)
    try:
        return kind.rearrange(node, items)
    except (ValueError, TypeError) as error:
        raise type(error)(f"In {place}: {error}") from None


def _is_field(node: Any, name: Hashable) -> bool:
    return dataclasses.is_dataclass(node) and any(f.name == name for f in dataclasses.fields(node))


def _is_optional(node: Any, name: Hashable) -> bool:
    return any(f.name == name and f.default is None for f in dataclasses.fields(node))
