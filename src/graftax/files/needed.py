"""What a reader of a model has to be handed."""

from typing import Any

from ..paths.types import PyTree
from .encode import Encoder


def types_of(model: PyTree) -> tuple[Any, ...]:
    """The classes and functions that a file of this model names and `load` does not know by itself.

    `load(file, types_of(model))` is the model, for every model that `save` takes.

    **Arguments:**

    - `model`: any model that `save` takes.

    **Returns:**

    The classes, functions and enumerations to hand to `load(types=...)`, each once, in the order in which
    they first stand in the model. Empty for a model of Equinox's and graftax's parts alone.

    **Raises:**

    - `UnsavableError`: what `save` would raise.

    **Example:**

    ```python
    >>> import graftax as gx, textwrap
    >>> gx.types_of(gx.Chain(cut=textwrap.shorten, act=abs)) == (textwrap.shorten,)
    True

    ```
    """
    encoder = Encoder()
    encoder.encode(model, "")
    return tuple(encoder.named.values())
