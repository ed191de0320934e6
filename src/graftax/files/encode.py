"""From a model to its structure as JSON, and its arrays by path.

Every kind of node has an entry of its own, by the dispatch on its type at `entry`; `decode` has the table
of what each entry must hold. What cannot be loaded as it was is refused here, with its path.
"""

import enum
import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import GeneratorType, MethodType
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
from jax.core import Tracer

from ..paths.path import join
from ..structure.base import StructuralLayer
from ..structure.labels import layers_class
from ..structure.standard import standard_base
from ..structure.wrapper import Wrapper
from ..surgery.state import init_of, is_index, is_taken, marker_of
from ..surgery.tied import Tied
from .checks import MOST_LEVELS, MOST_TIES, fault, levels
from .collected import Collected, refused
from .deep import Task, run
from .errors import Unstorable
from .methods import as_method, borrows_a_name
from .names import full_name, public_name, why_nameless
from .scalars import exactly, scalar
from .shared import SharedNode

# JSON is read by recursion, a level of a model being some four of JSON. What is nested deeper is cut off
# every so many levels, into a list of its own.
_CUT = 40


class Encoder(Collected):
    """Turns nodes into JSON, and collects the arrays and names that they hold. One for each file."""

    def encode(self, node: Any, path: str) -> Any:
        """The JSON of one node. Raises `UnsavableError` with its path."""
        self.parts: list[Any] = []
        self.look_up_paths(node)
        found = run(_child(node, self, path))
        return {"deep": found, "parts": self.parts} if self.parts else found


def _child(node: Any, file: Collected, path: str) -> Any:
    """The entry of a node inside another, or the task that makes it."""
    # A member of an enumeration may be a number or text too, and is neither.
    make = _enum if isinstance(node, enum.Enum) else entry
    found = make(node, file, path)
    if not isinstance(found, GeneratorType):
        return found
    file.depth += levels(isinstance(node, StructuralLayer))
    if file.depth > MOST_LEVELS:
        raise refused(
            path, f"is nested more than {MOST_LEVELS} levels deep, which JAX cannot flatten"
        )
    return _cut(found, file, node)


def _cut(task: Task, file: Collected, node: Any) -> Task:
    found = yield task
    before = file.depth
    file.depth -= levels(isinstance(node, StructuralLayer))
    if file.depth == 0 or before // _CUT == file.depth // _CUT:
        return found
    file.parts.append(found)
    return {"part": len(file.parts) - 1}


def _whole(path: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Unstorable as reason:
        raise refused(path, str(reason)) from None


@functools.singledispatch
def entry(node: Any, file: Collected, path: str) -> Any:
    """The JSON of a node, or the task that makes it, by the type of the node."""
    if callable(node):
        return _function(node, file, path)
    raise refused(path, f"is a {type(node).__name__}, which a file cannot hold: {node!r}")


@entry.register(type(None))
@entry.register(bool)
@entry.register(int)
@entry.register(float)
@entry.register(complex)
@entry.register(str)
@entry.register(np.dtype)
@entry.register(type(...))
def _(node: Any, file: Collected, path: str) -> Any:
    return _whole(path, lambda: scalar(node))


@entry.register(jax.Array)
@entry.register(Tracer)
@entry.register(np.ndarray)
@entry.register(np.generic)
def _(node: Any, file: Collected, path: str) -> Any:
    return file.array(node, path)


@entry.register
def _(node: slice, file: Collected, path: str) -> Any:
    parts = [node.start, node.stop, node.step]
    return {"slice": (yield _each(parts, [path] * 3, file))}


@entry.register(SharedNode)
def _(node: Any, file: Collected, path: str) -> Any:
    return {"shared_node": True}


def _enum(node: enum.Enum, file: Collected, path: str) -> Any:
    cls = type(node)
    name = file.class_name(cls, path)
    if node.name in cls.__members__ and cls.__members__[node.name] is node:
        return {"enum": name, "member": node.name}
    # Several flags at once are no member of their own, but what their value stands for.
    if isinstance(node, enum.Flag) and type(node.value) is int and cls(node.value) is node:
        return {"enum": name, "flags": node.value}
    raise refused(path, f"is {node!r}, which is no member of {name} any more")


def _each(nodes: Sequence[Any], paths: Sequence[str], file: Collected) -> Task:
    found = []
    for node, path in zip(nodes, paths, strict=True):
        found.append((yield _child(node, file, path)))
    return found


def _sequence(nodes: Sequence[Any], path: str, file: Collected) -> Task:
    return _each(nodes, [join(path, i) for i in range(len(nodes))], file)


@entry.register
def _(node: list, file: Collected, path: str) -> Task:
    _whole(path, lambda: exactly(list, node))
    return {"list": (yield _sequence(node, path, file))}


@entry.register
def _(node: tuple, file: Collected, path: str) -> Task:
    labels = getattr(node, "_fields", None)
    if labels is None:
        _whole(path, lambda: exactly(tuple, node))
        return {"tuple": (yield _sequence(node, path, file))}
    items = yield _each(node, [join(path, label) for label in labels], file)
    if type(node) is layers_class(labels):
        return {"labelled": file.labels(labels, path), "items": items}
    name = file.class_name(type(node), path)
    return {"namedtuple": name, "labels": list(labels), "items": items}


@entry.register
def _(node: dict, file: Collected, path: str) -> Task:
    cls = type(node)
    if cls not in (dict, OrderedDict):
        raise refused(path, f"is a {cls.__name__}; a file holds dict and OrderedDict")
    pairs = []
    for key, value in node.items():
        pairs.append((yield _each([key, value], [path, join(path, key)], file)))
    return {cls.__name__: pairs}


@entry.register
def _(node: functools.partial, file: Collected, path: str) -> Task:
    if type(node) not in (functools.partial, jtu.Partial) or vars(node):
        raise refused(
            path,
            f"is a {type(node).__name__} of {full_name(node.func)} that was given attributes of its own "
            "(by functools.update_wrapper?). Use a plain functools.partial",
        )
    keywords = dict(node.keywords)
    paths = [join(join(path, "keywords"), name) for name in keywords]
    values = yield _each(list(keywords.values()), paths, file)
    return {
        "partial": (yield _child(node.func, file, join(path, "func"))),
        "args": (yield _sequence(node.args, join(path, "args"), file)),
        "keywords": dict(zip(keywords, values, strict=True)),
        "pytree": isinstance(node, jtu.Partial),
    }


@entry.register
def _(node: MethodType, file: Collected, path: str) -> Task:
    return _bound(node, file, path)


@entry.register
def _(node: eqx.Module, file: Collected, path: str) -> Task:
    if is_index(node):
        return _state_index(node, file, path)
    return (_bound if borrows_a_name(node) else _module)(node, file, path)


def _bound(node: Any, file: Collected, path: str) -> Task:
    method = as_method(node)
    if method is None:
        return _function(node, file, path)
    of = yield _child(method.of, file, path)
    return {"method": method.name, "of": of}


def _module(node: Any, file: Collected, path: str) -> Task:
    name = file.class_name(type(node), path)
    fields, unset = yield _fields(node, file, path)
    return {"module": name, "fields": fields, **unset}


@entry.register
def _(node: StructuralLayer, file: Collected, path: str) -> Task:
    cls = type(node)
    name = file.class_name(cls, path)
    keys = node.labels or range(len(node.layers))
    layers = yield _each(node.layers, [join(path, key) for key in keys], file)
    fields, unset = yield _fields(node, file, path, skipped="layers")
    found: dict[str, Any] = {"module": name, "layers": layers, "fields": fields, **unset}
    if node.labels:
        found["labels"] = file.labels(node.labels, path)
        if type(node.layers) is not layers_class(node.labels):
            found["namedtuple"] = file.class_name(type(node.layers), path)
    base = standard_base(cls)
    if base is not None and base is not cls:
        found["base"] = public_name(base)
    return found


def _fields(node: Any, file: Collected, path: str, skipped: str = "") -> Task:
    """The entries of the fields of a module, and the names of those that it was never given."""
    values: Mapping[str, Any] = object.__getattribute__(node, "__dict__")
    if (why := fault(node)) is not None:
        raise refused(path, f"is a {type(node).__name__} that cannot be: {why}")
    names = [name for name in node.__dataclass_fields__ if name != skipped]
    # What a wrapper wraps, and the labelled layers it has beside that, stand at its own path.
    elided = ("layer", getattr(type(node), "beside", None)) if isinstance(node, Wrapper) else ()
    found = {}
    for name in names:
        if name in values:
            found[name] = yield _child(
                values[name], file, path if name in elided else join(path, name)
            )
    unset = [name for name in names if name not in values]
    for name in unset:
        if not hasattr(type(node), name):
            raise refused(join(path, name), "was never set, and its class says nothing of it")
    return found, ({"unset": unset} if unset else {})


@entry.register
def _(node: Tied, file: Collected, path: str) -> Task:
    links = [[list(source), list(target)] for source, target in node.links]
    file.ties += 1
    if file.ties > MOST_TIES:
        raise refused(
            path, f"is tied inside {MOST_TIES} ties around it. Tie the whole model at once"
        )
    layer = yield _child(node.layer, file, path)
    file.ties -= 1
    return {"tied": layer, "links": links}


def _state_index(node: Any, file: Collected, path: str) -> Task:
    found: dict[str, Any] = {"state_index": file.marker(node, path)}
    if not isinstance(marker_of(node), str):
        found["unnamed"] = True
    if is_taken(node):
        return found | {"taken": True}
    return found | {"init": (yield _child(init_of(node), file, join(path, "init")))}


def _function(node: Any, file: Collected, path: str) -> Any:
    if (name := file.name(node)) is not None:
        return {"function": name}
    short = getattr(node, "__name__", type(node).__name__)
    raise refused(
        path,
        f"is {short}, which no name leads to: {why_nameless(node)}. A file holds functions of jax.nn and "
        "jax.numpy, functools.partial of these, methods of modules, functions at the top of a module (load "
        "with types=[it]), and every eqx.Module",
    )
