"""The public names that a file may hold, and what they stand for.

A file names classes and functions; nothing is imported for it. A name stands for something only if it
is in one of the tables below, or if the caller hands the thing over.
"""

import builtins
import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

# Functions that touch files or the process are no layers, whatever a file says.
_REFUSED = {"load", "save", "savez", "fromfile", "frombuffer", "from_dlpack", "frompyfunc"}
# What Equinox's pooling layers hold, and what users put in `op`.
_LAX = ("add", "max", "min", "mul", "sub", "div", "dot", "concatenate")
_OPERATORS = ("add", "sub", "mul", "truediv", "matmul", "neg", "pos", "abs")
_BUILTINS = ("tuple", "list", "sum", "abs", "max", "min")


def _public(module: ModuleType, prefix: str) -> dict[str, Any]:
    """The public functions of a module of JAX's that are JAX's own, by full name."""
    found = {}
    for name in dir(module):
        value = getattr(module, name)
        own = str(getattr(value, "__module__", "")).startswith("jax")
        is_function = callable(value) and not isinstance(value, type)
        if is_function and own and not name.startswith("_") and name not in _REFUSED:
            found[f"{prefix}.{name}"] = value
    return found


def _defaults_of_layers() -> dict[str, Callable]:
    """Functions without a name of their own that Equinox's layers hold by default (`eqx.nn.MLP`)."""
    found = {}
    for layer in vars(eqx.nn).values():
        if isinstance(layer, type) and issubclass(layer, eqx.Module):
            for name, parameter in inspect.signature(layer.__init__).parameters.items():
                default = parameter.default
                if callable(default) and not isinstance(default, type):
                    found[f"equinox.nn.{layer.__name__}.{name}"] = default
    return found


@functools.lru_cache(maxsize=1)
def functions() -> Mapping[str, Callable]:
    """Every function that a file can name."""
    return {
        **_public(jax.nn, "jax.nn"),
        **_public(jnp, "jax.numpy"),
        **{f"jax.lax.{name}": getattr(jax.lax, name) for name in _LAX},
        **{f"operator.{name}": getattr(operator, name) for name in _OPERATORS},
        **{f"builtins.{name}": getattr(builtins, name) for name in _BUILTINS},
        **_defaults_of_layers(),
    }


@functools.lru_cache(maxsize=1)
def _names_of_functions() -> Mapping[int, str]:
    names: dict[int, str] = {}
    for name, function in functions().items():
        names.setdefault(id(function), name)
    return names


def function_name(function: Any) -> str | None:
    """The public name of a function; None if it has none that a file can hold."""
    return _names_of_functions().get(id(function))


def full_name(thing: Any) -> str:
    """`package.module.Name`, as a file names classes and functions that it does not know."""
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", repr(thing))
    return f"{module}.{name}"


def _subclasses(cls: type) -> Iterable[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _own_module(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "graftax" and not cls.__name__.startswith("_")


def module_name(cls: type) -> str:
    """The name under which a file holds a class: Equinox's and graftax's public one, or the full one."""
    if getattr(eqx.nn, cls.__name__, None) is cls:
        return f"equinox.nn.{cls.__name__}"
    return f"graftax.{cls.__name__}" if _own_module(cls) else full_name(cls)


def modules() -> Mapping[str, type]:
    """Every class that a file can name: the layers of `equinox.nn` and of graftax."""
    known: dict[str, type] = {}
    for name in dir(eqx.nn):
        value = getattr(eqx.nn, name)
        if isinstance(value, type) and issubclass(value, eqx.Module):
            known[f"equinox.nn.{name}"] = value
    known.update((f"graftax.{c.__name__}", c) for c in _subclasses(eqx.Module) if _own_module(c))
    return known


class Names:
    """What names stand for while one file is loaded: the public tables, and the caller's `types`."""

    def __init__(self, types: Iterable[Any]):
        types = tuple(types)
        self._handed = {thing.__name__: thing for thing in types}
        self._handed.update((full_name(thing), thing) for thing in types)
        self._modules = modules()

    def module(self, name: Any) -> type | None:
        """The class of this name; None if it is not known."""
        found = self._lookup(name, self._modules)
        return found if isinstance(found, type) else None

    def function(self, name: Any) -> Any:
        """The function of this name; None if it is not known."""
        return self._lookup(name, functions())

    def _lookup(self, name: Any, public: Mapping[str, Any]) -> Any:
        if not isinstance(name, str):
            return None
        if name in self._handed:
            return self._handed[name]
        # The class may have moved since the file was written; the caller says that it is this one.
        short = name.rpartition(".")[2]
        return public.get(name) or self._handed.get(short)
