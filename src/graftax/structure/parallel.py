"""Layers side by side."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

import equinox as eqx

from .access import items_of
from .base import L, StructuralLayer
from .call import Call
from .combine import check_op, combine
from .execution import Run, check_execution, run_alike


class Parallel(StructuralLayer[L]):
    """Layers side by side, their outputs put together: `Parallel(a, b, op=f)(x) == f((a(x), b(x)))`.

    One input goes to every branch. A (plain) tuple of n inputs goes one to each of n branches. One
    branch maps over a tuple. `op` is called once, on the tuple of outputs; but a function of exactly
    two required arguments is folded from the left: `op(op(a(x), b(x)), c(x))`.

    Source: Flux's `Parallel`.

    **Example:**

    ```python
    >>> import graftax as gx, operator
    >>> gx.Parallel(double=lambda x: 2 * x, square=lambda x: x * x)(3)
    (6, 9)
    >>> gx.Parallel(lambda x: 2 * x, lambda x: x * x, op=operator.sub)(3)
    -3
    >>> gx.Parallel(lambda x: 2 * x, lambda x: x * x, op=sum)((3, 10))
    106

    ```
    """

    op: Callable[..., Any]
    init: Any = None
    execution: str = eqx.field(static=True, default="sequential")

    if TYPE_CHECKING:

        @overload
        def __init__(
            self,
            layers: L,
            /,
            *,
            op: Callable[..., Any] = ...,
            init: Any = ...,
            execution: str = ...,
        ) -> None: ...

        @overload
        def __init__(
            self: "Parallel[tuple[Any, ...]]",
            /,
            *layers: object,
            op: Callable[..., Any] = ...,
            init: Any = ...,
            execution: str = ...,
            **labelled: object,
        ) -> None: ...

    def __init__(
        self,
        /,
        *layers: Any,
        op: Callable[..., Any] = tuple,
        init: Any = None,
        execution: str = "sequential",
        **labelled: Any,
    ):
        """**Arguments:**

        - `layers`, `labelled`: the branches, as in every container.
        - `op`: what is done with the tuple of outputs: a function or a layer. The tuple itself by default.
        - `init`: where a fold starts; only for an `op` of two arguments.
        - `execution`: `"sequential"`, one branch after the other; `"vmap"`, all at once, or `"scan"`, one
            program run for each: these two need branches of one structure, and compile it once.

        **Raises:**

        - `ValueError`: no branches, an `init` that `op` would ignore, or an unknown `execution`; when
            called, branches that differ in structure where one program is to serve all.
        - `TypeError`: `op` is not callable; and whatever every container raises.
        """
        super().__init__(*layers, **labelled)
        self.op, self.init, self.execution = op, init, execution
        type(self)._check(self)

    def _check(self) -> None:
        if not self.layers:
            raise ValueError(f"{type(self).__name__} needs at least one branch; it got none.")
        check_op(type(self), self.op, self.init)
        check_execution(self.execution)

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """`op` of what the branches give."""
        runs = type(self)._runs(self, *inputs)
        if self.execution != "sequential":
            outputs = run_alike(call, self.execution, runs)
        else:
            outputs = tuple(call(r.layer, r.input, label=r.label, again=r.again) for r in runs)
        return combine(call, self.op, outputs, self.init)

    def _runs(self, x: Any) -> list[Run]:
        items = items_of(self)
        if type(x) is not tuple:
            return [Run(label, layer, x) for label, layer in items]
        if len(x) == len(items):
            return [Run(label, layer, each) for (label, layer), each in zip(items, x, strict=True)]
        if len(items) == 1:
            # It draws anew for each of its inputs.
            ((label, layer),) = items
            return [Run(label, layer, each, i) for i, each in enumerate(x)]
        raise ValueError(
            f"{type(self).__name__} has {len(items)} branches and was given a tuple of {len(x)} "
            "inputs. It takes one input for all branches, or a tuple with one for each."
        )


def branch(
    op: Callable[..., Any], /, *layers: Any, execution: str = "sequential", **labelled: Any
) -> Parallel:
    """`Parallel` as a function: `branch(op, a, b)(x) == op((a(x), b(x)))`.

    **Arguments:**

    - `op`: what is done with the outputs, as in `Parallel`.
    - `layers`, `labelled`: the branches.
    - `execution`: how they are run, as in `Parallel`.

    **Returns:**

    A `Parallel`.

    **Raises:**

    - What `Parallel` raises.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.branch(sum, lambda x: 2 * x, lambda x: x * x)(3)
    15

    ```
    """
    return Parallel(*layers, op=op, execution=execution, **labelled)
