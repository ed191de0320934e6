"""Layers one after the other."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ..paths.tree import level_of
from .access import items_of
from .base import StructuralLayer
from .calling import call_child, check_context, split_inputs


class Chain(StructuralLayer):
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

    def _forward(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        for label, layer in items_of(self):
            x, state = call_child(self, label, layer, (x,), state, key, context)
        return x, state


def activations(model: Any, /, *inputs: Any, state: Any = None, key: Any = None, **context: Any):
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
    while getattr(type(model), "_gx_same", False):
        model = level_of(model).children[0]
    if not isinstance(model, Chain):
        raise TypeError(f"activations takes a Chain, not a {type(model).__name__}.")
    x, state = split_inputs(type(model).__name__, inputs, state)
    check_context(model, context)
    # A plain dict would leave `jit` and `vmap` with its keys sorted.
    outputs, now = OrderedDict(), state
    for label, layer in items_of(model):
        x, now = call_child(model, label, layer, (x,), now, key, context)
        outputs[label] = x
    return outputs if state is None else (outputs, now)
