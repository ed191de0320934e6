"""Values that hold no others, as JSON."""

import math
from typing import Any

import numpy as np

from .arrays import dtype_name
from .errors import Unstorable

# Python reads no longer number from a text.
_LARGEST = 10**4300


def scalar(node: Any) -> Any:
    """The JSON of `None`, `...`, a number, text or dtype. Raises `Unstorable` for what would change."""
    if isinstance(node, np.dtype):
        return {"dtype": dtype_name(node)}
    if node is ...:
        return {"ellipsis": True}
    for cls in (bool, int, float, complex, str):
        if isinstance(node, cls):
            exactly(cls, node)
            break
    if type(node) is int and not -_LARGEST < node < _LARGEST:
        raise Unstorable("is an integer of more than 4,300 digits, which Python does not read")
    if isinstance(node, complex):
        return {"complex": [_number(node.real), _number(node.imag)]}
    return _number(node) if isinstance(node, float) else node


def exactly(cls: type, node: Any) -> None:
    """Raise `Unstorable` for a value of a subclass: a file would hold only what its base has."""
    if type(node) is not cls:
        raise Unstorable(
            f"is a {type(node).__name__}, a {cls.__name__} of another class: a file holds {cls.__name__} "
            "itself"
        )


def _number(value: float) -> Any:
    return value if math.isfinite(value) else {"float": repr(value)}
