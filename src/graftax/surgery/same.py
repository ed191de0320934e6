"""Whether two places of a model hold the same thing. Decided here, and nowhere else.

*An array* stands at two places if both hold one object. Equal numbers prove nothing: two biases of zeros
are not tied. It follows that

- in a pytree, what stands at two places is two leaves. JAX flattens a model before it traces it, and gives
  each leaf an object of its own, so that under `jit`, `grad` and `vmap` nothing stands twice, and a layer
  object put into a model twice trains as two. `graftax.tie` does not rest on identity: a tied model holds
  the array once.
- *a slice of a stacked array*, which a container shows as the array of one of its layers, is computed at
  each look: it is a new object every time, and so the same as nothing, the next look included. What the
  model stores, and what can be tied, moved or saved once, is the stack. `is_stored` tells one from the
  other, and `tie` refuses a slice.

*A value of state* stands at two places if both have one name for it (see `state.py`).
"""

from collections.abc import Hashable
from typing import Any

from ..paths.edit import at
from .names import Held
from .state import is_index, marker_of


def identity(node: Any) -> Hashable:
    """What is equal for two places if they hold the same array or value of state.

    Only as long as the node lives: the memory of an array that is gone may be another's.
    """
    if not is_index(node):
        return id(node)
    marker = marker_of(node)
    if not isinstance(marker, Held):
        return marker
    # What an edit brought in is not the layer that was there, though its name may be the same.
    return marker.name if marker.own else id(marker)


def is_stored(model: Any, address: tuple[int, ...]) -> bool:
    """Whether what stands at an address is kept by the model, rather than computed at each look."""
    return at(model, address) is at(model, address)
