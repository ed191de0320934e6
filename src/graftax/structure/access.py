"""Reaching into a container: positions, labels, slices of both; and the one method of surgery."""

import operator
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

from ..paths.errors import LabelError, did_you_mean, listed
from ..paths.tree import shallow_copy
from .pickling import found, in_tree, named

_getattribute = object.__getattribute__


class Selectable:
    """What every container and wrapper can do beyond being called."""

    def __getattribute__(self, name: str) -> Any:
        # What Equinox's gives, and all but bound methods in a third of the time.
        value = _getattribute(self, name)
        return super().__getattribute__(name) if type(value) is MethodType else value

    def replace_where(self, where: Any, fn: Callable, key: Any = None) -> Any:
        """`graftax.replace_where(self, where, fn, key)`: the model with what `where` picks replaced."""
        # The one arrow that points up: users look for this method on the model, and structure must
        # stand without surgery.
        from ..surgery.selecting import replace_where

        return replace_where(self, where, fn, key)

    def __copy__(self) -> Any:
        return shallow_copy(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: in_tree(named, value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: in_tree(found, value) for name, value in state.items()})


def items_of(container: Any) -> tuple[tuple[str | int, Any], ...]:
    """`((label or position, layer), ...)`, in order."""
    layers = container.layers
    labels = getattr(layers, "_fields", None) or range(len(layers))
    return tuple(zip(labels, layers, strict=True))


def position_of(container: Any, label: str) -> int:
    """The position of a label. Raises `LabelError` with the labels there are and the nearest one."""
    labels: tuple[str, ...] = container.labels
    if label in labels:
        return labels.index(label)
    raise LabelError(
        f"{type(container).__name__} has no layer {label!r}. Its labels are: {listed(labels)}."
        + did_you_mean(label, labels)
    )


def find_positions(container: Any, index: Any) -> int | Sequence[int]:
    """The position, or the several positions, that an index, slice or list spells.

    Raises `LabelError` (a `KeyError`), `IndexError` or `TypeError`.
    """
    if isinstance(index, slice):
        start, stop = (_bound(container, bound) for bound in (index.start, index.stop))
        return range(len(container))[slice(start, stop, index.step)]
    if isinstance(index, list | tuple):
        return [_one_position(container, each) for each in index]
    return _one_position(container, index)


def _bound(container: Any, bound: Any) -> Any:
    return position_of(container, bound) if isinstance(bound, str) else bound


def _one_position(container: Any, index: Any) -> int:
    if isinstance(index, str):
        return position_of(container, index)
    try:
        position = operator.index(index)
    except TypeError:
        raise TypeError(
            f"{type(container).__name__} is indexed by label, position, slice or a list of these, "
            f"not by {index!r}."
        ) from None
    count = len(container)
    if not -count <= position < count:
        raise IndexError(
            f"{type(container).__name__} has {count} layers: there is no position {position}."
        )
    return position % count
