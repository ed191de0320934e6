"""Labels, and the tuples that hold labelled children.

Children live in a NamedTuple whose class is made from the labels and cached, so that equal labels
give equal tree structures. The class is found by its name, `Layers(stem,head)`, in this module:
that is how pickle, deepcopy and cloudpickle find it too, in this process or in a fresh one.
"""

import functools
import inspect
import keyword
import re
import threading
import types
import unicodedata
import weakref
from collections import namedtuple
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax.tree_util as jtu

from ..paths.errors import listed

# What the label `cls` is called between the call of a class and its `__init__`.
CLS = "cls "

_CLASS_NAME = re.compile(r"Layers\(([^()]+)\)")


# JAX never forgets a type that it was told of, so it is told of so many: more than any program has. What is
# made beyond these, of files of anybody's perhaps, lives as long as the models that have it.
_MOST_KEPT = 4096
_kept: dict[tuple[str, ...], type] = {}
_passing: weakref.WeakValueDictionary[tuple[str, ...], type] = weakref.WeakValueDictionary()
_making = threading.Lock()


def layers_class(labels: tuple[str, ...]) -> type:
    """The NamedTuple class for these labels: one, whoever asks and from whichever thread."""
    found = _kept.get(labels)
    if found is None:
        with _making:
            found = _kept.get(labels) or _passing.get(labels) or _new_class(labels)
    return found


def _new_class(labels: tuple[str, ...]) -> type:
    cls: Any = namedtuple("Layers", labels)
    cls.__module__ = __name__
    cls.__name__ = cls.__qualname__ = f"Layers({','.join(labels)})"
    if len(_kept) < _MOST_KEPT:
        _register(cls, labels)
        _kept[labels] = cls
    else:
        _passing[labels] = cls
    return cls


def _register(cls: Any, labels: tuple[str, ...]) -> None:
    # Leaves and key paths are those that JAX gives any NamedTuple; unflattened faster, without the
    # Python function that is its `__new__`.
    keys = [jtu.GetAttrKey(label) for label in labels]
    jtu.register_pytree_with_keys(
        cls,
        lambda layers: (tuple(zip(keys, layers, strict=True)), cls),
        tuple.__new__,
        lambda layers: (layers, cls),
    )


def __getattr__(name: str) -> type:
    # An old pickle names the class before this process has made it.
    if found := _CLASS_NAME.fullmatch(name):
        labels = tuple(found[1].split(","))
        if all(why_not_a_label(label) is None for label in labels):
            return layers_class(labels)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def layers_tuple(labels: Sequence[str], layers: Sequence[Any]) -> Any:
    """The NamedTuple of these labels and layers. Raises `ValueError` for what is no label."""
    for label in labels:
        if (reason := why_not_a_label(label)) is not None:
            raise ValueError(f"{label!r} cannot be a label: {reason}.")
    return layers_class(tuple(labels))(*layers)


def why_not_a_label(label: object) -> str | None:
    """Why this is no label for any class; None if it is one."""
    if not isinstance(label, str):
        return f"it is of type {type(label).__name__}, not a string"
    if not label.isidentifier():
        return "it is not a Python identifier"
    if (normal := unicodedata.normalize("NFKC", label)) != label:
        return f"Python reads it as {normal!r}"
    if keyword.iskeyword(label):
        return "it is a Python keyword"
    if label.startswith("_"):
        return "it starts with '_'"
    return None


# `op` and `inference` are words of every model: a Chain that took `op=` for a child would hide a
# Parallel that was meant, and Equinox overwrites whatever is called `inference`.
_WORDS = {
    "op": "it is how Parallel and SkipConnection combine",
    "inference": "Equinox sets every attribute of this name in eqx.nn.inference_mode",
}


def check_labels(cls: type, labels: Iterable[object]) -> None:
    """Raise `ValueError`, saying which and why, if one of these cannot be a label in `cls`."""
    seen = set()
    for label in labels:
        reason = why_not_a_label(label)
        if reason is None and label in reserved(cls):
            reason = f"{cls.__name__}.{label} is an attribute of the class"
        reason = _WORDS.get(str(label), reason)
        if label in seen:
            reason = "it is used twice"
        if reason is not None:
            raise ValueError(f"{label!r} cannot be a label in {cls.__name__}: {reason}.")
        seen.add(label)


@functools.lru_cache(maxsize=1024)
def reserved(cls: type) -> frozenset[str]:
    """The attributes of the class, which no label may hide."""
    names = {name for base in cls.__mro__ for name in vars(base) if not name.startswith("_")}
    return frozenset(names | set(getattr(cls, "__dataclass_fields__", ())))


def as_layers(cls: type, positional: Sequence[Any], labelled: Mapping[str, Any]) -> tuple[Any, ...]:
    """The tuple or NamedTuple of children that the arguments of a container spell.

    Raises `TypeError` for a mixture of positions and labels or a child that is no callable, and
    `ValueError` for a bad label.
    """
    if CLS in labelled:
        labelled = {"cls" if key == CLS else key: layer for key, layer in labelled.items()}
    if positional and labelled:
        raise TypeError(
            f"{cls.__name__} takes its layers by position or by label, not both: got "
            f"{len(positional)} by position and {listed(labelled)} by label."
        )
    if len(positional) == 1:
        (only,) = positional
        if isinstance(only, Mapping):
            positional, labelled = (), only
        elif isinstance(only, tuple) and (labels := getattr(only, "_fields", None)) is not None:
            check_labels(cls, labels)
            return _checked(cls, labels, only) if labels else ()
        elif type(only) in (list, tuple):
            positional = only
    if labelled:
        check_labels(cls, labelled)
        labels = tuple(labelled)
        return _checked(cls, labels, layers_class(labels)(*labelled.values()))
    return _checked(cls, range(len(positional)), tuple(positional))


def arranged(cls: type, items: Sequence[tuple[Hashable, Any]]) -> tuple[Any, ...]:
    """The tuple of children for `(key, child)` pairs, where all keys are labels or none is."""
    labels = [key for key, _ in items if isinstance(key, str)]
    values = [child for _, child in items]
    if not labels:
        return tuple(values)
    if len(labels) != len(items):
        unlabelled = len(items) - len(labels)
        raise ValueError(
            f"{cls.__name__} holds its layers by position or by label, not both: "
            f"{listed(labels)} would be labelled and {unlabelled} would not."
        )
    check_labels(cls, labels)
    return layers_class(tuple(labels))(*values)


def check_layer(cls: type, key: Hashable, layer: Any, why: str = "") -> None:
    """Raise `TypeError` for what cannot be a layer of a container of this class.

    `why` is what the message adds to "must be callable".
    """
    if callable(layer) and not _is_async(layer):
        return
    name = "A layer" if key is None else f"Layer {key!r}"
    if callable(layer):
        raise TypeError(
            f"{name} of {cls.__name__} cannot be an async function: {layer_name(layer)} returns no "
            "output until it is awaited."
        )
    raise TypeError(
        f"{name} of {cls.__name__} must be callable{why}; got {layer!r} of type {type(layer).__name__}."
    )


def _is_async(layer: Any) -> bool:
    if isinstance(layer, types.FunctionType | types.MethodType | functools.partial):
        return inspect.iscoroutinefunction(layer)
    return _class_is_async(type(layer))


# Every edit asks, and to look at a class takes longer than the rest of a small edit.
@functools.lru_cache(maxsize=4096)
def _class_is_async(cls: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(cls, "__call__", None))  # noqa: B004


def _checked(cls: type, keys: Iterable[Hashable], layers: tuple[Any, ...]) -> tuple[Any, ...]:
    for key, layer in zip(keys, layers, strict=True):
        check_layer(cls, key, layer, ", as every Equinox layer and function is")
    return layers


def layer_name(layer: Callable[..., Any] | Any) -> str:
    """The type of a layer, or the name of a function: what messages and `repr` call it."""
    if isinstance(layer, functools.partial):
        return f"partial({layer_name(layer.func)})"
    if isinstance(layer, type) or not hasattr(type(layer), "__dataclass_fields__"):
        return getattr(layer, "__name__", type(layer).__name__)
    return type(layer).__name__
