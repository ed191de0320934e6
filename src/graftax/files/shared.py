"""What `eqx.nn.Shared` leaves in the place of a shared node: a value of a class without a public name."""

from typing import Any

import equinox as eqx


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


SharedNode: type = type(eqx.nn.Shared((0, 0), _second, _first).pytree[1])
