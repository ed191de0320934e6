"""How `op` puts outputs together: one rule for every container."""

from collections.abc import Callable
from typing import Any

from .call import Call
from .labels import check_layer
from .signature import is_binary


def check_op(owner: type, op: Any, init: Any = None) -> None:
    """Raise `TypeError` for an `op` that is no layer, `ValueError` for an `init` it ignores."""
    if not callable(op):
        raise TypeError(
            f"op of {owner.__name__} must be callable; got {op!r} of type {type(op).__name__}."
        )
    check_layer(owner, "op", op)
    if init is not None and not is_binary(op):
        raise ValueError(
            f"init of {owner.__name__} is the start of a fold, and op={op!r} is not folded: it does "
            "not take exactly two required arguments."
        )


def combine(
    call: Call, op: Callable[..., Any], outputs: tuple[Any, ...], init: Any = None, again: int = 0
) -> Any:
    """`op(outputs)` once; or, if `op` takes two arguments, its left fold over the outputs.

    `again` says how often `op` was run before in this call.
    """
    if not is_binary(op):
        return call(op, outputs, label="op", again=again)
    if not outputs and init is None:
        raise ValueError(
            f"{type(call.node).__name__} has {len(call.node)} branch and was given a tuple of 0 inputs, "
            "which folds to nothing without init."
        )
    first, *rest = outputs if init is None else (init, *outputs)
    for i, output in enumerate(rest, again):
        first = call(op, first, output, label="op", again=i)
    return first
