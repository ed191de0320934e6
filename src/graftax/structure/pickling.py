"""Functions in pickles. Most of JAX's own cannot stand there; the name they are found by can."""

import dataclasses
import functools
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx

from ..paths.tree import TreeNode, kind_of, map_children


@dataclasses.dataclass(frozen=True)
class _Name:
    """What stands in a pickle for the function found by this name."""

    module: str
    name: str

    def __call__(self) -> Callable[..., Any]:
        return getattr(importlib.import_module(self.module), self.name)


# Classes and plain functions pickle by name already, Equinox modules by value.
_PICKLED_WELL = (type, types.FunctionType, types.BuiltinFunctionType, eqx.Module)


def named(value: Any) -> Any:
    """The name of a function such as `jax.nn.relu` or `jnp.tanh`; any other value as it is."""
    if isinstance(value, functools.partial):
        return _in_partial(named, value)
    if not callable(value) or isinstance(value, _PICKLED_WELL):
        return value
    module, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    # What `__main__` holds is not there in another process: cloudpickle has to take it along.
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return value
    return _Name(module, name) if getattr(sys.modules.get(module), name, None) is value else value


def found(value: Any) -> Any:
    """What `named` was given."""
    if isinstance(value, functools.partial):
        return _in_partial(found, value)
    return value() if isinstance(value, _Name) else value


def _in_partial(
    change: Callable[[Any], Any], partial: functools.partial[Any]
) -> functools.partial[Any]:
    function = change(partial.func)
    if function is partial.func:
        return partial
    return type(partial)(function, *partial.args, **partial.keywords)


def in_tree(change: Callable[[Any], Any], node: Any) -> Any:
    """The tree with `change` made to its leaves. What changes nothing is the same object."""
    # Our own nodes do this for themselves when their turn in the pickle comes.
    ours = isinstance(node, TreeNode)
    if ours or isinstance(node, functools.partial) or kind_of(node) is None:
        return change(node)
    return map_children(lambda child: in_tree(change, child), node)
