"""Layers with a way round them."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

from .access import items_of
from .base import StructuralLayer
from .calling import call_child
from .combine import check_op


class SkipConnection(StructuralLayer):
    """Layers in order, then `op` with the input: `SkipConnection(a, op=f)(x) == f(a(x), x)`.

    With a `shortcut`, `f(a(x), shortcut(x))`. Subclass it to give a block a type of its own.

    Source: Flux's `SkipConnection`; He et al., Deep Residual Learning, arXiv:1512.03385.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.SkipConnection(double=lambda x: 2 * x)(3)
    9
    >>> class Bottleneck(gx.SkipConnection):
    ...     "A block of its own type: nothing else is needed."
    >>> Bottleneck(double=lambda x: 2 * x, shortcut=lambda x: -x)(3)
    3

    ```
    """

    op: Callable = operator.add
    shortcut: Callable | None = None

    def __init__(
        self,
        /,
        *layers: Any,
        op: Callable = operator.add,
        shortcut: Callable | None = None,
        **labelled: Any,
    ):
        """**Arguments:**

        - `layers`, `labelled`: what is skipped, in order, as in a `Chain`.
        - `op`: a function or layer of two arguments: the output of the layers, then the shortcut's.
        - `shortcut`: what the input goes through on the way round; the identity if None.

        **Raises:**

        - `TypeError`: `op` or `shortcut` is not callable; and whatever every container raises.
        """
        super().__init__(*layers, **labelled)
        self.op, self.shortcut = op, shortcut
        type(self)._check(self)

    def _check(self) -> None:
        check_op(type(self), self.op)
        if self.shortcut is not None and not callable(self.shortcut):
            raise TypeError(
                f"Layer 'shortcut' of {type(self).__name__} must be callable or None; got "
                f"{self.shortcut!r} of type {type(self.shortcut).__name__}."
            )

    def _forward(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        y = around = x
        for label, layer in items_of(self):
            y, state = call_child(self, label, layer, (y,), state, key, context)
        if self.shortcut is not None:
            around, state = call_child(self, "shortcut", self.shortcut, (x,), state, key, context)
        return call_child(self, "op", self.op, (y, around), state, key, context)
