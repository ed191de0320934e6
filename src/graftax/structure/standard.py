"""From typed blocks back to the standard parts they are made of."""

import dataclasses
from typing import Any

from ..paths.tree import map_children
from .base import StructuralLayer
from .chain import Chain
from .fusion import PairwiseFusion, Repeat
from .parallel import Parallel
from .skip import SkipConnection

_STANDARD = (Chain, Parallel, SkipConnection, PairwiseFusion, Repeat)


def standard_base(cls: type) -> type | None:
    """The standard container whose forward pass `cls` inherits; None if it has one of its own."""
    for base in _STANDARD:
        if issubclass(cls, base):
            same = cls.__call__ is base.__call__ and cls.forward is base.forward
            return base if same else None
    return None


def desugar(model: Any) -> Any:
    """Every subclass of a container as its standard base: the same function, from standard parts only.

    A class that writes its own `__call__` is a layer of its own and stays. O(number of nodes).

    **Arguments:**

    - `model`: any pytree.

    **Returns:**

    The model, all arrays shared with the old one.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> class Block(gx.Chain):
    ...     "A chain with a name."
    >>> gx.desugar(gx.Chain(body=Block(act=abs)))
    Chain(body=Chain(act=abs))

    ```
    """
    node: Any = map_children(desugar, model)
    base = standard_base(type(node)) if isinstance(node, StructuralLayer) else None
    if base is None or base is type(node):
        return node
    plain = object.__new__(base)
    plain.__dict__.update(
        {field.name: getattr(node, field.name) for field in dataclasses.fields(base)}
    )
    return plain
