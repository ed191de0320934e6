"""Layers one after the other."""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, overload

from ..paths.tree import level_of
from .access import items_of
from .base import L, StructuralLayer
from .call import Call, split_inputs


class Chain(StructuralLayer[L]):
    """Layers in order: `Chain(a, b)(x) == b(a(x))`. The empty chain is the identity.

    Source: Flux's `Chain`, `eqx.nn.Sequential`.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax, jax.numpy as jnp
    >>> k1, k2 = jax.random.split(jax.random.key(0))
    >>> m = gx.Chain(up=eqx.nn.Linear(2, 8, key=k1), act=jax.nn.relu, down=eqx.nn.Linear(8, 2, key=k2))
    >>> m.up is m["up"] is m[0]
    True
    >>> m[:"down"].labels
    ('up', 'act')
    >>> x = jnp.ones(2)
    >>> bool((m(x) == m.down(m.act(m.up(x)))).all())
    True

    ```
    """

    if TYPE_CHECKING:

        @overload
        def __init__(self, layers: L, /) -> None: ...

        @overload
        def __init__(
            self: "Chain[tuple[Any, ...]]", /, *layers: object, **labelled: object
        ) -> None: ...

        def __init__(self, /, *layers: Any, **labelled: Any) -> None: ...

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """Each layer on what the one before it gave."""
        (x,) = inputs
        for label, layer in items_of(self):
            x = call(layer, x, label=label)
        return x


def activations(
    model: Any, /, *inputs: Any, state: Any = None, key: Any = None, **context: Any
) -> Any:
    """The output of each child, in order: the last is `model(x)`.

    Source: Flux's `activations`.

    **Arguments:**

    - `model`: a `Chain`; also in a wrapper that computes just what it holds (`Remat`, a tied model).
    - `inputs`, `state`, `key`, `context`: as in a call of the model.

    **Returns:**

    An ordered dict from label, or position, to output; with `state`, the pair `(dict, state)`.

    **Raises:**

    - `TypeError`: `model` is not a `Chain`, or a keyword that no layer declares.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> dict(gx.activations(gx.Chain(double=lambda x: 2 * x, add=lambda x: x + 1), 3))
    {'double': 6, 'add': 7}

    ```
    """
    while getattr(type(model), "same_function", False):
        model = level_of(model).children[0]
    if not isinstance(model, Chain):
        raise TypeError(f"activations takes a Chain, not a {type(model).__name__}.")
    inputs, state = split_inputs(type(model).__name__, inputs, state)
    (x,) = type(model)._packed(model, inputs)
    call = Call(model, state, key, context, 1)
    # A plain dict would leave `jit` and `vmap` with its keys sorted.
    outputs = OrderedDict()
    for label, layer in items_of(model):
        outputs[label] = x = call(layer, x, label=label)
    return outputs if state is None else (outputs, call.state)
