"""Containers that use an output, or a layer, more than once."""

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import equinox as eqx

from .access import items_of
from .base import L, StructuralLayer
from .call import Call, fold_key
from .combine import check_op, combine


class PairwiseFusion(StructuralLayer[L]):
    """n inputs, n outputs, each fused with the one before: `y[i] = layers[i](op(y[i-1], x[i]))`.

    The first is `y[0] = layers[0](x[0])`. One input that is no (plain) tuple stands for all n.

    Source: Flux's `PairwiseFusion`; Gao et al., Res2Net, arXiv:1904.01169.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.PairwiseFusion(lambda x: 2 * x, lambda x: 10 * x)((1, 5))
    (2, 70)

    ```
    """

    op: Callable[..., Any] = operator.add

    if TYPE_CHECKING:

        @overload
        def __init__(self, layers: L, /, *, op: Callable[..., Any] = ...) -> None: ...

        @overload
        def __init__(
            self: "PairwiseFusion[tuple[Any, ...]]",
            /,
            *layers: object,
            op: Callable[..., Any] = ...,
            **labelled: object,
        ) -> None: ...

    def __init__(self, /, *layers: Any, op: Callable[..., Any] = operator.add, **labelled: Any):
        """**Arguments:**

        - `layers`, `labelled`: one layer an output, as in every container.
        - `op`: a function or layer of the output before and the input, in this order: as two arguments, or
            as one tuple, by the rule of every container.

        **Raises:**

        - `ValueError`: no layers; when called, a tuple of another length.
        - `TypeError`: `op` is not callable; and whatever every container raises.
        """
        super().__init__(*layers, **labelled)
        self.op = op
        type(self)._check(self)

    def _check(self) -> None:
        if not self.layers:
            raise ValueError(f"{type(self).__name__} needs at least one layer; it got none.")
        check_op(type(self), self.op)

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """The tuple of outputs, each fused with the one before."""
        (x,) = inputs
        values = x if type(x) is tuple else (x,) * len(self.layers)
        if len(values) != len(self.layers):
            raise ValueError(
                f"{type(self).__name__} has {len(self.layers)} layers and was given "
                f"{len(values)} inputs. It takes one for each, or one for all."
            )
        outputs: list[Any] = []
        for (label, layer), value in zip(items_of(self), values, strict=True):
            if outputs:
                value = combine(call, self.op, (outputs[-1], value), again=len(outputs) - 1)
            outputs.append(call(layer, value, label=label))
        return tuple(outputs)


class Repeat(StructuralLayer[L]):
    """One layer, its weights shared, applied `times` times: `Repeat(a, 3)(x) == a(a(a(x)))`.

    Each application draws from a random key of its own.

    Source: Lan et al., ALBERT, arXiv:1909.11942 (weights shared across layers).

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.Repeat(lambda x: 2 * x, 3)(1)
    8
    >>> gx.Repeat(double=lambda x: 2 * x, times=3).labels
    ('double',)

    ```
    """

    times: int = eqx.field(static=True)

    # `_layer`, because no label begins so: `inspect` takes `Repeat(layer=a)` for a name given twice.
    def __init__(self, _layer: Any = (), /, times: int = 1, **labelled: Any):
        """**Arguments:**

        - `_layer`: the layer; or give it by label.
        - `times`: how often it is applied, 0 or more. 0 is the identity.

        **Raises:**

        - `ValueError`: not exactly one layer, or a negative `times`.
        - `TypeError`: `times` is no integer; and whatever every container raises.
        """
        super().__init__(*(_layer if type(_layer) is tuple else (_layer,)), **labelled)
        self.times = times
        type(self)._check(self)

    def _check(self) -> None:
        if len(self.layers) != 1:
            raise ValueError(f"{type(self).__name__} takes one layer; it got {len(self.layers)}.")
        if isinstance(self.times, bool) or not isinstance(self.times, int):
            raise TypeError(f"times of {type(self).__name__} must be an int; got {self.times!r}.")
        if self.times < 0:
            raise ValueError(f"times of {type(self).__name__} cannot be negative: {self.times}.")

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """The layer on its own output, `times` times."""
        ((label, layer),) = items_of(self)
        (x,) = inputs
        for i in range(self.times):
            key = None if call.key is None else fold_key(fold_key(call.key, i), label)
            x = call.run(layer, (x,), label, key)
        return x
