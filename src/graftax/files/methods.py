"""Bound methods of modules: `model.encode` as a layer of another model.

Equinox makes a module of such a method, with the name of the method among its attributes, as it does for
`eqx.filter_jit(f)` and its like. This is the one file that knows how these look.
"""

from types import FunctionType, MethodType
from typing import Any, NamedTuple

import equinox as eqx

from ..paths.tree import values_of


class _Probe(eqx.Module):
    def method(self) -> None:
        """Only there to be bound."""


BOUND = type(_Probe().method)


class Method(NamedTuple):
    """`getattr(of, name)`, of a module."""

    of: Any
    name: str


def borrows_a_name(node: Any) -> bool:
    """Whether a module goes by the name of a function that it wraps."""
    return isinstance(node, eqx.Module) and "__qualname__" in values_of(node)


def as_method(node: Any) -> Method | None:
    """The module and the name that give exactly this bound method; None for all else."""
    if not isinstance(node, BOUND | MethodType):
        return None
    of, function = node.__self__, node.__func__
    name = getattr(function, "__name__", "")
    return Method(of, name) if method_of(of, name) is function else None


def method_of(module: Any, name: Any) -> FunctionType | None:
    """The plain function that a module has as a method of this name; None if it has none.

    Nothing is run for it: no property, no `__getattr__`.
    """
    if not isinstance(module, eqx.Module) or not isinstance(name, str):
        return None
    for cls in type(module).__mro__:
        if name in vars(cls):
            found = vars(cls)[name]
            return found if isinstance(found, FunctionType) else None
    return None
