"""Layers with a way round them."""

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from .access import items_of
from .base import L, StructuralLayer
from .call import Call
from .combine import check_op, combine
from .labels import check_layer


class SkipConnection(StructuralLayer[L]):
    """Layers in order, then `op` with the input: `SkipConnection(a, op=f)(x) == f(a(x), x)`.

    With a `shortcut`, `f(a(x), shortcut(x))`. As in every container, a function of exactly two required
    arguments is called with both; any other `op` gets the tuple of them: `op=jnp.concatenate` makes
    DenseNet's block. Subclass it to give a block a type of its own.

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

    op: Callable[..., Any] = operator.add
    shortcut: Callable[..., Any] | None = None

    if TYPE_CHECKING:

        @overload
        def __init__(
            self,
            layers: L,
            /,
            *,
            op: Callable[..., Any] = ...,
            shortcut: Callable[..., Any] | None = ...,
        ) -> None: ...

        @overload
        def __init__(
            self: "SkipConnection[tuple[Any, ...]]",
            /,
            *layers: object,
            op: Callable[..., Any] = ...,
            shortcut: Callable[..., Any] | None = ...,
            **labelled: object,
        ) -> None: ...

    def __init__(
        self,
        /,
        *layers: Any,
        op: Callable[..., Any] = operator.add,
        shortcut: Callable[..., Any] | None = None,
        **labelled: Any,
    ):
        """**Arguments:**

        - `layers`, `labelled`: what is skipped, in order, as in a `Chain`.
        - `op`: a function or layer of the output of the layers and the shortcut's, in this order: as two
            arguments, or as one tuple.
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
        if self.shortcut is not None:
            check_layer(type(self), "shortcut", self.shortcut)

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """`op` of what the layers give and of what the shortcut gives."""
        (x,) = inputs
        y = around = x
        for label, layer in items_of(self):
            y = call(layer, y, label=label)
        if self.shortcut is not None:
            around = call(self.shortcut, x, label="shortcut")
        return combine(call, self.op, (y, around))
