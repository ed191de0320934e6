"""Layers side by side."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx

from .access import items_of
from .base import StructuralLayer
from .calling import again_key, call_child
from .combine import check_op, combine
from .execution import EXECUTIONS, run_alike


class Parallel(StructuralLayer):
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

    op: Callable
    init: Any = None
    execution: str = eqx.field(static=True, default="sequential")

    def __init__(self, /, *layers: Any, op: Callable = tuple, init: Any = None, **labelled: Any):
        """**Arguments:**

        - `layers`, `labelled`: the branches, as in every container.
        - `op`: what is done with the tuple of outputs: a function or a layer. The tuple itself by default.
        - `init`: where a fold starts; only for an `op` of two arguments.

        **Raises:**

        - `ValueError`: no branches, or an `init` that `op` would ignore.
        - `TypeError`: `op` is not callable; and whatever every container raises.
        """
        super().__init__(*layers, **labelled)
        self.op, self.init, self.execution = op, init, "sequential"
        type(self)._check(self)

    def _check(self) -> None:
        if not self.layers:
            raise ValueError(f"{type(self).__name__} needs at least one branch; it got none.")
        check_op(type(self), self.op, self.init)

    def _forward(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        calls = type(self)._calls(self, x)
        # The one branch that maps over a tuple draws anew for each of its inputs.
        again = len(self.layers) == 1
        keys = [again_key(key, label, i * again) for i, (label, _, _) in enumerate(calls)]
        if self.execution != "sequential":
            outputs = run_alike(self, calls, state, keys, context)
        else:
            collected = []
            for (label, layer, value), own_key in zip(calls, keys, strict=True):
                y, state = call_child(self, label, layer, (value,), state, own_key, context)
                collected.append(y)
            outputs = tuple(collected)
        return combine(self, self.op, outputs, state, key, context, self.init)

    def _calls(self, x: Any) -> list[tuple[Any, Any, Any]]:
        """(label, layer, input) for every output."""
        items = items_of(self)
        if type(x) is not tuple:
            return [(label, layer, x) for label, layer in items]
        if len(x) == len(items):
            return [(label, layer, each) for (label, layer), each in zip(items, x, strict=True)]
        if len(items) == 1:
            ((label, layer),) = items
            return [(label, layer, each) for each in x]
        raise ValueError(
            f"{type(self).__name__} has {len(items)} branches and was given a tuple of {len(x)} "
            "inputs. It takes one input for all branches, or a tuple with one for each."
        )


def branch(
    op: Callable, /, *layers: Any, execution: str = "sequential", **labelled: Any
) -> Parallel:
    """`Parallel` as a function: `branch(op, a, b)(x) == op((a(x), b(x)))`.

    **Arguments:**

    - `op`: what is done with the outputs, as in `Parallel`.
    - `layers`, `labelled`: the branches.
    - `execution`: `"sequential"`, one branch after the other; `"vmap"`, all at once, or `"scan"`, one
        program run for each: these two need branches of one structure, and compile it once.

    **Returns:**

    A `Parallel`.

    **Raises:**

    - `ValueError`: an unknown `execution`; when called, branches that differ in structure.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.branch(sum, lambda x: 2 * x, lambda x: x * x)(3)
    15

    ```
    """
    if execution not in EXECUTIONS:
        raise ValueError(f"execution must be one of {', '.join(EXECUTIONS)}; got {execution!r}.")
    made = Parallel(*layers, op=op, **labelled)
    object.__setattr__(made, "execution", execution)
    return made
