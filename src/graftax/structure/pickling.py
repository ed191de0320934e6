"""Functions in pickles. Most of JAX's own cannot stand there; the name they are found by can."""

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx


class _Name(NamedTuple):
    """What stands in a pickle for the function found by this name."""

    module: str
    name: str


# Classes and plain functions pickle by name already, Equinox modules by value.
_PICKLED_WELL = (type, types.FunctionType, types.BuiltinFunctionType, eqx.Module)


def named(value: Any) -> Any:
    """The name of a function such as `jax.nn.relu` or `jnp.tanh`; any other value as it is."""
    if not callable(value) or isinstance(value, _PICKLED_WELL):
        return value
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    # What `__main__` holds is not there in another process: cloudpickle has to take it along.
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return value
    return _Name(module, name) if getattr(sys.modules.get(module), name, None) is value else value


def found(value: Any) -> Any:
    """What `named` was given."""
    if not isinstance(value, _Name):
        return value
    return getattr(importlib.import_module(value.module), value.name)


def in_fields(change: Callable[[Any], Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a module, with `change` made to each value, and each item of `layers`."""
    new = {name: change(value) for name, value in fields.items()}
    if "layers" in fields:
        layers = fields["layers"]
        items = map(change, layers)
        new["layers"] = type(layers)(*items) if hasattr(layers, "_fields") else tuple(items)
    return new
