"""Which layers are called with a state."""

import inspect
from typing import Any

import equinox as eqx

from .signature import signature_of

NO_STATE = inspect.signature(eqx.nn.Sequential.__call__).parameters["state"].default
"""What `eqx.nn.Sequential` hands to its stateful layers if it was given no state itself."""


def declares_state(layer: Any) -> bool:
    """Whether a layer is called with a state and returns one: as Equinox says, or if it declares it."""
    if isinstance(layer, eqx.nn.StatefulLayer):
        return type(layer).is_stateful(layer)
    return callable(layer) and "state" in signature_of(layer).keywords
