"""What a layer takes besides its input, read from its signature."""

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..paths.tree import INNER, level_of

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Signature(NamedTuple):
    """The keywords a callable declares, its first argument left out."""

    positional: tuple[str, ...]
    """The names of the arguments that may be given by position, in order, the first one included."""
    keywords: frozenset[str]
    any_keyword: bool
    """It has `**kwargs`, and so declares every keyword."""
    required: frozenset[str]
    """The keywords among these that have no default."""
    inputs: int
    """How many positional arguments it cannot do without, a state left out."""
    context: frozenset[str]
    """The keywords that it takes from the context of a call, see `context_of`."""

    def takes(self, keyword: str, inputs: int = 1) -> bool:
        """Whether the callable can be given this keyword besides so many inputs by position."""
        declared = self.any_keyword or keyword in self.keywords
        return declared and keyword not in self.positional[:inputs]

    def context_of(self, inputs: int = 1) -> frozenset[str] | None:
        """The keywords it takes from the context of a call, given so many inputs; None for all.

        A module takes what its `__call__` names. A plain function takes its keyword-only parameters, and
        those it cannot do without: others are settings with a default, as `approximate` of `jax.nn.gelu`
        is, and nobody who calls a model means those. Functions of Python, NumPy and JAX take nothing.
        """
        if self.any_keyword:
            return None
        return self.context.difference(self.positional[:inputs], ("key", "state"))


_NOTHING_KNOWN = Signature((), frozenset(), False, frozenset(), 1, frozenset())


def _read(function: Callable[..., Any], skip_self: bool = False) -> Signature:
    try:
        parameters = list(inspect.signature(function).parameters.values())[skip_self:]
    except (ValueError, TypeError):
        # Some builtins have no signature to read: one input, no keywords.
        return _NOTHING_KNOWN
    if _is_foreign(function):
        parameters = [p for p in parameters if p.kind in _POSITIONAL]
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    keywords = [p for p in parameters if p.kind in _KEYWORD and p is not (positional or [None])[0]]
    return Signature(
        positional=tuple(p.name for p in positional),
        keywords=frozenset(p.name for p in keywords),
        any_keyword=any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
        required=frozenset(p.name for p in keywords if p.default is inspect.Parameter.empty),
        inputs=sum(
            p.default is inspect.Parameter.empty and (i == 0 or p.name != "state")
            for i, p in enumerate(positional)
        ),
        context=frozenset(p.name for p in keywords if skip_self or _is_meant(p)),
    )


def _is_meant(parameter: inspect.Parameter) -> bool:
    only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    return only or parameter.default is inspect.Parameter.empty


_FOREIGN = {"builtins", "_operator", "_functools", "math", "numpy", "jax", "jaxlib", "scipy"}


def _is_foreign(function: Any) -> bool:
    if isinstance(function, functools.partial):
        return False  # what it holds is asked for itself
    module = getattr(function, "__module__", None) or ""
    return isinstance(module, str) and module.partition(".")[0] in _FOREIGN


# Reading a signature costs more than tracing a small layer, and functions and types outlive calls.
_memo: weakref.WeakKeyDictionary[Any, Signature] = weakref.WeakKeyDictionary()


def _read_once(function: Callable[..., Any], skip_self: bool) -> Signature:
    try:
        found = _memo.get(function)
        if found is None:
            found = _memo[function] = _read(function, skip_self)
        return found
    except TypeError:
        # No weak reference or no hash: read it every time.
        return _read(function, skip_self)


def _partial(function: functools.partial[Any]) -> Signature:
    """What is left to give to a partial. A keyword that it binds was set once, and is no context."""
    inside, own = signature_of(function.func), _read(function)
    return own._replace(
        keywords=own.keywords.intersection(inside.keywords.union(inside.positional)),
        any_keyword=inside.any_keyword,
        context=inside.context.difference(function.keywords),
    )


_FILTER_VMAP = type(eqx.filter_vmap(abs))


def signature_of(function: Any) -> Signature:
    """The signature of a layer or function, its first argument left out."""
    cls: Any = type(function)
    if isinstance(function, functools.partial):
        return _partial(function)
    if not isinstance(function, eqx.Module):
        return _read_once(function, False)
    if isinstance(function, eqx.Partial):
        return _partial(functools.partial(function.func, *function.args, **function.keywords))
    # The one of Equinox's wrappers that refuses keywords, whatever it wraps.
    if cls is _FILTER_VMAP:
        inside = signature_of(cls.__wrapped__.__get__(function))
        return inside._replace(keywords=frozenset(), any_keyword=False, context=frozenset())
    # The others (`filter_jit`, `filter_checkpoint`, ...) have what they wrap here.
    if hasattr(cls, "__wrapped__"):
        return signature_of(cls.__wrapped__.__get__(function))
    return _read_once(cls.__call__, True)


def is_binary(op: Callable[..., Any]) -> bool:
    """Whether `op` is a function of exactly two required arguments, which folds over many.

    So is a transparent wrapper around one: it passes its inputs on.
    """
    while (keys := level_of(op).keys) and keys[0] is INNER:
        op = level_of(op).children[0]
    # Universal functions say so here and nowhere in their signature.
    inside = inspect.unwrap(op)
    if isinstance(inside, (np.ufunc, jnp.ufunc)):
        return inside.nin == 2
    return signature_of(op).inputs == 2
