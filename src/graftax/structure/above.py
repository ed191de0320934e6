"""What structure needs of the rooms above it. Each room puts its own in here when it is imported.

Arrows between folders run one way, downwards, and `structure` stands near the bottom. Yet users look for
`replace_where` on the model itself, and a call has to know of the states that layers hold. So these
few functions have a place here, and the room that defines one fills it: nothing here imports upwards.
"""

from collections.abc import Callable
from typing import Any


def _missing(*args: Any, **keywords: Any) -> Any:
    raise ImportError("import graftax, not a part of it alone: this needs graftax.surgery.")


class Above:
    """The functions that rooms above have put in."""

    replace_where: Callable[..., Any] = staticmethod(_missing)
    """`graftax.replace_where`. From `surgery.selecting`."""

    has_state: Callable[[Any], bool] = staticmethod(_missing)
    """Whether a `StateIndex` stands anywhere in a tree. From `surgery.state`."""

    held_state: Callable[..., Any] = staticmethod(_missing)
    """The state that a layer holds itself, if it needs no other; or None. From `surgery.lending`."""

    with_held_state: Callable[..., Any] = staticmethod(_missing)
    """The output of a layer that is run with the state it holds itself. From `surgery.lending`."""

    check_markers: Callable[[Any], None] = staticmethod(_missing)
    """Raises `ValueError` if two layers would share a state by accident. From `surgery.state`."""
