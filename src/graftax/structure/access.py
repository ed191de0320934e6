"""Reaching into a container: positions, labels, slices of both."""

import operator
from collections.abc import Sequence
from typing import Any

from ..paths.errors import LabelError, did_you_mean, listed


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
