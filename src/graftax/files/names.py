"""The names that a file may hold, and what they stand for.

A file names classes and functions; nothing is imported for it. A name stands for something only if it
is in the public table below, or if the caller hands the thing over. The law of both directions: `name_of`
gives a name only if looking it up gives this very object. So what wraps another function and carries its
name (`jax.vmap(f)`, anything that `functools.wraps` made) is never taken for what it wraps.
"""

import builtins
import enum
import functools
import inspect
import operator
import sys
from collections.abc import Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..paths.errors import nearest
from ..structure.labels import layer_name
from .errors import FormatError

# Functions that touch files or the process are no layers, whatever a file says.
_REFUSED = {"load", "save", "savez", "fromfile", "frombuffer", "from_dlpack", "frompyfunc"}
# What Equinox's pooling layers hold, and what users put in `op`.
_LAX = ("add", "max", "min", "mul", "sub", "div", "dot", "concatenate")
_OPERATORS = ("add", "sub", "mul", "truediv", "matmul", "neg", "pos", "abs")
_BUILTINS = ("tuple", "list", "sum", "abs", "max", "min", "bool", "int", "float", "complex", "str")


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


def _of_equinox() -> dict[str, Any]:
    """Equinox's layers, and the functions that these hold, which have no public name."""
    found: dict[str, Any] = {"equinox.Partial": eqx.Partial}
    for name, layer in vars(eqx.nn).items():
        if isinstance(layer, type) and issubclass(layer, eqx.Module):
            found[f"equinox.nn.{name}"] = layer
            found.update(_defaults(layer))
            found.update(_functions_beside(layer))
    return found


def _defaults(layer: type) -> dict[str, Any]:
    parameters = inspect.signature(layer.__init__).parameters.items()
    return {
        f"equinox.nn.{layer.__name__}.{name}": parameter.default
        for name, parameter in parameters
        if callable(parameter.default) and not isinstance(parameter.default, type)
    }


def _functions_beside(layer: type) -> dict[str, Any]:
    # `WeightNorm` holds a partial of such a one.
    return {
        full_name(value): value
        for value in vars(sys.modules[layer.__module__]).values()
        if isinstance(value, FunctionType)
        and value.__module__ == layer.__module__
        and _finds_itself(value)
    }


def _of_graftax() -> dict[str, Any]:
    return {f"graftax.{cls.__name__}": cls for cls in _subclasses(eqx.Module) if is_own(cls)}


def is_own(cls: type) -> bool:
    """Whether it is a class of graftax that is no secret."""
    # Not one that a doctest defines: it says of itself that it is of the module it explains.
    ours = cls.__module__.partition(".")[0] == "graftax" and not cls.__name__.startswith("_")
    return ours and looked_up(cls.__module__, cls.__name__) is cls


def _subclasses(cls: type) -> Iterable[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _types() -> dict[str, Any]:
    """What stands for a dtype, and the enumerations that JAX's functions take."""
    found: dict[str, Any] = {"jax.Array": jax.Array, "numpy.ndarray": np.ndarray}
    for value in vars(np).values():
        if isinstance(value, type) and issubclass(value, np.generic):
            found[full_name(value)] = value
    for value in vars(jnp).values():
        # `jnp.bfloat16` is no type of NumPy's, but stands for one.
        if isinstance(value, type(jnp.bfloat16)):
            found[full_name(value)] = value
            found.setdefault(full_name(value.dtype.type), value.dtype.type)
    for name, value in vars(jax.lax).items():
        if isinstance(value, enum.EnumMeta):
            found[f"jax.lax.{name}"] = value
    return found


@functools.lru_cache(maxsize=1)
def public() -> Mapping[str, Any]:
    """Every class and function that a file can name without the caller's help. Made once."""
    return {
        **_public(jax.nn, "jax.nn"),
        **_public(jnp, "jax.numpy"),
        **_public(jnp.linalg, "jax.numpy.linalg"),
        **_public(jnp.fft, "jax.numpy.fft"),
        **{f"jax.lax.{name}": getattr(jax.lax, name) for name in _LAX},
        **{f"operator.{name}": getattr(operator, name) for name in _OPERATORS},
        **{f"builtins.{name}": getattr(builtins, name) for name in _BUILTINS},
        **_types(),
        **_of_equinox(),
        **_of_graftax(),
    }


@functools.lru_cache(maxsize=1)
def _names_by_id() -> Mapping[int, str]:
    names: dict[int, str] = {}
    for name, thing in public().items():
        names.setdefault(id(thing), name)
    return names


def public_name(thing: Any) -> str | None:
    """The name under which every file knows this very object; None if there is none."""
    return _names_by_id().get(id(thing))


def _own_name(thing: Any) -> str | None:
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    return name if isinstance(name, str) else None


def full_name(thing: Any) -> str:
    """`package.module.Name`, as a thing calls itself. That it is found there is not said."""
    return f"{getattr(thing, '__module__', None)}.{_own_name(thing) or repr(thing)}"


def looked_up(module: Any, qualname: Any) -> Any:
    """What stands under a name in the modules imported so far; None if nothing does."""
    found = sys.modules.get(module) if isinstance(module, str) else None
    for name in str(qualname).split("."):
        # Not by way of a class's `__getattr__`, which could make things up.
        found = getattr(found, "__dict__", {}).get(name)
    return found.__func__ if isinstance(found, staticmethod) else found


def _finds_itself(thing: Any) -> bool:
    qualname = _own_name(thing)
    return qualname is not None and looked_up(getattr(thing, "__module__", None), qualname) is thing


def name_of(thing: Any) -> str | None:
    """The name that leads to this very class or function; None if none does."""
    return public_name(thing) or (full_name(thing) if _finds_itself(thing) else None)


def why_nameless(thing: Any) -> str:
    """Why `name_of` has none for a callable, in words that say what to do where that is known."""
    if (inside := getattr(thing, "__wrapped__", None)) is not None:
        return (
            f"it wraps {layer_name(inside)} and only goes by its name. For jax.vmap there is graftax.Vmap, "
            "for jax.checkpoint graftax.Remat; jit the whole model; or give the wrapped function a name of "
            "its own at the top of a module"
        )
    qualname = getattr(thing, "__qualname__", "")
    if "<" in qualname:
        return "it was made inside an expression or a function"
    if qualname and looked_up(getattr(thing, "__module__", None), qualname) is not None:
        return f"{full_name(thing)} is another object, or an older definition of it"
    return f"it is a {type(thing).__name__}"


class Names:
    """What names stand for while one file is loaded: the public table, and the caller's `types`."""

    def __init__(self, types: Any = ()):
        """`types`: classes and functions, each known by its full name; or a mapping from the name that the
        file has to what it is here.

        Raises `TypeError` for what has no name, `ValueError` for what goes by the name of something else.
        """
        if callable(types):
            raise TypeError(
                f"types takes several classes and functions: types=[{layer_name(types)}]."
            )
        if isinstance(types, Mapping):
            self._handed = dict(types)
        else:
            self._handed = {_checked_name(thing): thing for thing in types}

    def get(self, name: Any) -> Any:
        """What a name stands for; None if it is not known here."""
        if not isinstance(name, str):
            return None
        found = public().get(name)
        return self._handed.get(name) if found is None else found

    def module(self, name: Any) -> type | None:
        """The class of this name, if it is one of Equinox modules; None if it is not known."""
        found = self.get(name)
        return found if isinstance(found, type) and issubclass(found, eqx.Module) else None

    def need(self, name: Any, what: str) -> Any:
        """What a name stands for. Raises `FormatError`, which says what to give, if it is not known."""
        found = self.get(name)
        if found is None:
            # Asked once: what is raised ends the reading. Names of anybody's may be long.
            short = isinstance(name, str) and len(name) < 200
            near = nearest(name, self._handed) if short else []
            hint = f" (nearest: {near[0]!r})" if near else ""
            raise FormatError(f"it holds {what} {name!r:.200}, which {self.unknown(name)}{hint}")
        return found

    def unknown(self, name: Any) -> str:
        """Why a name is not known here, and what to do about it: how a sentence goes on."""
        short = str(name).rpartition(".")[2]
        alike = [full for full in self._handed if full.rpartition(".")[2] == short]
        if alike:
            return (
                f"is none of types=, which has {alike[0]!r}, of the same name from another module. If that "
                f"is what was saved, say so: types={{{name!r:.200}: {short:.200}}}"
            )
        return (
            "is nothing public of Equinox, graftax, jax.nn or jax.numpy: give the object of this name in "
            "types=[...]"
        )


def _checked_name(thing: Any) -> str:
    name, module = _own_name(thing), getattr(thing, "__module__", None)
    if name is None or not isinstance(module, str) or not callable(thing):
        raise TypeError(
            f"types takes classes and functions that have names; got {thing!r}. Give a mapping, from the "
            "name in the file to the object, for what has none."
        )
    there = looked_up(module, name)
    if there is not None and there is not thing:
        raise ValueError(
            f"types holds something that calls itself {full_name(thing)!r}, but is not what stands there: "
            "it wraps that, or is older. Give what stands there, or a mapping from the name in the file."
        )
    return full_name(thing)
