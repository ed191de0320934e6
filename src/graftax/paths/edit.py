"""Many edits in one pass: only the spine above what changes is rebuilt."""

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from .path import render
from .search import Match
from .tree import INNER, kind_of, level_of, with_children

Edit = Callable[[Any], Any]
Items = list[tuple[Hashable, Any]]
Change = Callable[[Match, Hashable, Any], Items]
"""From a match, its label and what stands there after the edits below, to what is to stand there."""


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
        level = level_of(node)
        old = level.children
        new = {i: _apply(old[i], below, (*keys, level.keys[i])) for i, below in branch.items()}
        changed = {i: child for i, child in new.items() if child is not old[i]}
        node = _replaced(node, changed, keys) if changed else node
    return node if edit is None else edit(node)


def _replaced(node: Any, changed: Mapping[int, Any], keys: tuple[Hashable, ...]) -> Any:
    try:
        return with_children(node, changed)
    except (ValueError, TypeError):
        pass  # One by one, to say which it is.
    for i, child in changed.items():
        with errors_located(at_path(render((*keys, level_of(node).keys[i])))):
            node = with_children(node, {i: child})
    return node


def at_path(path: str) -> str:
    """A place for `errors_located`."""
    return f"At {path!r}" if path else "At the root"


@contextlib.contextmanager
def errors_located(where: str) -> Iterator[None]:
    """What is raised inside says where: `where: ...`."""
    try:
        yield
    except Exception as error:
        # Those of other classes may be made of other things than a text.
        if type(error) in (ValueError, TypeError):
            raise type(error)(f"{where}: {error}") from None
        error.add_note(f"{where}.")
        raise


def located(node: Any, path: str) -> str:
    """A node by its type and its place, for a message."""
    return f"{type(node).__name__} at {path!r}" if path else f"the root, a {type(node).__name__}"


def at(model: Any, address: tuple[int, ...]) -> Any:
    """The node at an address."""
    for i in address:
        model = level_of(model).children[i]
    return model


def rearranged(
    model: Any, matches: Sequence[Match], change: Change, doing: str, instead: str = ""
) -> Any:
    """The model with each match changed to zero or more `(label, layer)` items of its parent.

    Raises `ValueError` if a match is the root or stands where there is no order to change: it cannot
    be `doing`, as in "removed", and `instead` says what can be done.
    """
    by_parent: dict[tuple[int, ...], dict[int, Match]] = {}
    for match in matches:
        address = place(match)
        if not address:
            raise ValueError(f"The root cannot be {doing}: it stands in no container.{instead}")
        by_parent.setdefault(address[:-1], {})[address[-1]] = match

    def rearranging(changed: Mapping[int, Match]) -> Edit:
        return lambda node: _rearrange(node, changed, change, doing, instead)

    return edited(model, {parent: rearranging(each) for parent, each in by_parent.items()})


def place(match: Match) -> tuple[int, ...]:
    """The address of the outermost of all wrappers that stand around a node at its path."""
    depth = len(match.keys)
    while depth and match.keys[depth - 1] is INNER:
        depth -= 1
    return match.address[:depth]


def _rearrange(
    node: Any, changed: Mapping[int, Match], change: Change, doing: str, instead: str
) -> Any:
    kind, level = kind_of(node), level_of(node)
    number, some = next(iter(changed.items()))
    path = render(some.keys[: len(place(some)) - 1])
    where = located(node, path)
    if kind is None or kind.rearrange is None:
        reason = "it is a field, and fields of a class are fixed. `.set` and `.update` change what is in it"
        raise ValueError(_cannot(level.keys[number], where, doing, reason, instead))
    items: Items = []
    for i, (key, child) in enumerate(zip(level.keys, level.children, strict=True)):
        new = change(changed[i], key, child) if i in changed else [(key, child)]
        if i in changed and _is_field(node, key) and (new or not _is_optional(node, key)):
            raise ValueError(_cannot(key, where, doing, "it is no layer in an order", instead))
        items.extend(new)
    with errors_located(f"In {where}"):
        return kind.rearrange(node, items)


def _cannot(key: Hashable, where: str, doing: str, reason: str, instead: str) -> str:
    comma = "," if where.startswith("the root") else ""
    return f"{key!r} of {where}{comma} cannot be {doing}: {reason}.{instead}"


def _is_field(node: Any, name: Hashable) -> bool:
    return dataclasses.is_dataclass(node) and any(f.name == name for f in dataclasses.fields(node))


def _is_optional(node: Any, name: Hashable) -> bool:
    return any(f.name == name and f.default is None for f in dataclasses.fields(node))
