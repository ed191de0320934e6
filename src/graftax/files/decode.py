"""From JSON and arrays to a model. Nothing is imported or called that the file names.

The table `KINDS` says what each kind of entry must hold; `encode` writes these and no others. Reading takes
time and memory in proportion to the file: no entry is read twice, and no array is made twice.
"""

import dataclasses
import enum
import functools
import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import jax.tree_util as jtu

from ..paths.fields import is_static
from ..paths.tree import level_of, values_of
from ..structure.base import StructuralLayer
from ..structure.labels import arranged, layers_tuple
from ..surgery.relink import can_be_tied
from ..surgery.state import TAKEN, is_index_type, new_index
from ..surgery.tied import Tied
from .arrays import Stored, dtype_of_name
from .checks import MOST_TIES, fault
from .deep import Task, run
from .errors import FormatError
from .kinds import KINDS
from .methods import method_of
from .reading import Entry, Reading
from .shared import SharedNode


class Decoder(Reading):
    """Turns JSON into nodes; if it is lazy, with `Stored` where arrays will be. One for each file."""

    def decode(self, entry: Any) -> Any:
        """The node that an entry spells. Raises `FormatError`, and whatever damaged JSON may lead to."""
        if isinstance(entry, dict) and entry.keys() == {"deep", "parts"}:
            self.parts, entry = list(entry["parts"]), entry["deep"]
        return run(self.child(entry))


@KINDS.register("array", may="dtype shape random_key numpy byteorder weak")
def _(file: Reading, entry: Entry) -> Any:
    return file.array(entry)


@KINDS.register("part")
def _(file: Reading, entry: Entry) -> Any:
    return file.part(entry["part"])


@KINDS.register("tuple")
def _(file: Reading, entry: Entry) -> Task:
    return tuple((yield file.all(entry["tuple"])))


@KINDS.register("list")
def _(file: Reading, entry: Entry) -> Task:
    return file.all(entry["list"])


@KINDS.register("dict")
def _(file: Reading, entry: Entry) -> Task:
    return dict((yield _pairs(file, entry["dict"])))


@KINDS.register("OrderedDict")
def _(file: Reading, entry: Entry) -> Task:
    return OrderedDict((yield _pairs(file, entry["OrderedDict"])))


def _pairs(file: Reading, pairs: Sequence[Sequence[Any]]) -> Task:
    keys = yield file.all([key for key, _ in pairs])
    values = yield file.all([value for _, value in pairs])
    if len(set(keys)) != len(keys):
        raise FormatError("a dict has a key twice")
    return list(zip(keys, values, strict=True))


@KINDS.register("labelled items")
def _(file: Reading, entry: Entry) -> Task:
    layers = yield file.all(entry["items"])
    return layers_tuple(file.known_labels(entry["labelled"]), layers)


@KINDS.register("namedtuple labels items")
def _(file: Reading, entry: Entry) -> Task:
    name, labels = entry["namedtuple"], tuple(entry["labels"])
    cls = file.names.need(name, "the NamedTuple")
    return _named_tuple(cls, name, labels, (yield file.all(entry["items"])))


def _named_tuple(cls: Any, name: str, labels: tuple[Any, ...], items: list[Any]) -> Any:
    is_one = isinstance(cls, type) and issubclass(cls, tuple)
    if not is_one or getattr(cls, "_fields", None) != labels or len(items) != len(labels):
        raise FormatError(f"{name!r} is no NamedTuple of {list(labels)} here, as it is in the file")
    # Not by its `__new__`, which may be anybody's.
    return tuple.__new__(cls, items)


@KINDS.register("complex")
def _(file: Reading, entry: Entry) -> Task:
    return complex(*(yield file.all(entry["complex"])))


@KINDS.register("float")
def _(file: Reading, entry: Entry) -> float:
    if entry["float"] not in ("nan", "inf", "-inf"):
        raise FormatError(f"{entry['float']!r} is no float")
    return float(entry["float"])


@KINDS.register("slice")
def _(file: Reading, entry: Entry) -> Task:
    return slice(*(yield file.all(entry["slice"])))


@KINDS.register("ellipsis")
def _(file: Reading, entry: Entry) -> Any:
    return ...


@KINDS.register("shared_node")
def _(file: Reading, entry: Entry) -> Any:
    return SharedNode()


@KINDS.register("dtype")
def _(file: Reading, entry: Entry) -> Any:
    if (found := dtype_of_name(entry["dtype"])) is None:
        raise FormatError(f"{entry['dtype']!r} is no dtype of numbers")
    return found


@KINDS.register("enum", may="member flags")
def _(file: Reading, entry: Entry) -> Any:
    name = entry["enum"]
    cls = file.names.need(name, "the enumeration")
    if not isinstance(cls, enum.EnumMeta):
        raise FormatError(f"{name!r} is no enumeration")
    if "member" in entry and entry["member"] in cls.__members__:
        return cls[entry["member"]]
    if issubclass(cls, enum.Flag) and type(entry.get("flags")) is int:
        return cls(entry["flags"])
    raise FormatError(f"{name!r} has no member {entry.get('member')!r} here")


@KINDS.register("function")
def _(file: Reading, entry: Entry) -> Any:
    return file.names.need(entry["function"], "the function")


@KINDS.register("partial args keywords pytree")
def _(file: Reading, entry: Entry) -> Task:
    function = yield file.child(entry["partial"])
    if not callable(function):
        raise FormatError("a partial of something that is not callable")
    make, now = (jtu.Partial, False) if entry["pytree"] else (functools.partial, True)
    args = yield file.all(entry["args"], now)
    values = yield file.all(list(entry["keywords"].values()), now)
    return make(function, *args, **dict(zip(entry["keywords"], values, strict=True)))


@KINDS.register("method of")
def _(file: Reading, entry: Entry) -> Task:
    name = entry["method"]
    # Of magic methods Equinox makes no tree.
    (of,) = yield file.all([entry["of"]], now=str(name).startswith("__"))
    if method_of(of, name) is None:
        raise FormatError(f"{type(of).__name__} has no method {name!r} here")
    return getattr(of, name)


@KINDS.register("state_index", may="init taken unnamed")
def _(file: Reading, entry: Entry) -> Task:
    marker: Any = entry["state_index"]
    if not isinstance(marker, str):
        raise FormatError("a state marker is no text")
    if entry.get("unnamed"):
        # One that was never separated has no name, so that two models of one file share no state.
        marker = file.markers.setdefault(marker, object())
    init = TAKEN if entry.get("taken") else (yield file.child(entry["init"]))
    return new_index(marker, init)


@KINDS.register("tied links")
def _(file: Reading, entry: Entry) -> Task:
    file.ties += 1
    if file.ties > MOST_TIES:
        raise FormatError(f"it has more than {MOST_TIES} ties around one another")
    layer = yield file.child(entry["tied"])
    file.ties -= 1
    links = tuple((_address(source), _address(target)) for source, target in entry["links"])
    sources, targets = {source for source, _ in links}, [target for _, target in links]
    if sources & set(targets) or len(set(targets)) != len(targets):
        raise FormatError("its ties lead in a circle")
    for source, target in links:
        if not _can_be_source(_at(layer, source)) or _at(layer, target) is not None:
            raise FormatError("a tie does not lead from an array to a place that it leaves empty")
    node = object.__new__(Tied)
    values_of(node).update(layer=layer, links=links)
    return node


def _can_be_source(node: Any) -> bool:
    return isinstance(node, Stored) or can_be_tied(node)


def _address(numbers: Any) -> tuple[int, ...]:
    if not all(type(i) is int and i >= 0 for i in numbers):
        raise FormatError("a tie leads nowhere")
    return tuple(numbers)


def _at(node: Any, address: tuple[int, ...]) -> Any:
    for i in address:
        children = level_of(node).children
        if i >= len(children):
            raise FormatError("a tie leads nowhere")
        node = children[i]
    return node


@KINDS.register("module fields", may="unset")
def _(file: Reading, entry: Entry) -> Task:
    cls = file.module(entry["module"])
    # These have entries of their own kind, which are checked.
    if issubclass(cls, StructuralLayer | Tied) or is_index_type(cls):
        raise FormatError(f"{entry['module']!r} is no plain module")
    return _made(file, cls, entry, {})


@KINDS.register("module layers fields", may="labels namedtuple base unset")
def _(file: Reading, entry: Entry) -> Task:
    cls = _container_class(file, entry)
    layers = yield file.all(entry["layers"])
    labels = entry.get("labels") or range(len(layers))
    if len(labels) != len(layers):
        raise FormatError(f"a {cls.__name__} has {len(layers)} layers and {len(labels)} label(s)")
    children = arranged(cls, list(zip(labels, layers, strict=True)))
    if "labels" in entry:
        file.known_labels(entry["labels"])
    named = file.names.get(entry.get("namedtuple"))
    if getattr(named, "_fields", None) == tuple(labels):
        children = _named_tuple(named, entry["namedtuple"], tuple(labels), layers)
    return (yield _made(file, cls, entry, {"layers": children}))


def _container_class(file: Reading, entry: Entry) -> Any:
    name = entry["module"]
    cls = file.names.module(name)
    if cls is None and "base" in entry:
        cls = file.module(entry["base"])
        file.warnings.append(
            f"It holds a {name!r}, which is loaded as {entry['base']}, which computes the same: {name!r} "
            f"{file.names.unknown(name)}, to keep the type."
        )
    cls = cls or file.module(name)
    if not issubclass(cls, StructuralLayer):
        raise FormatError(f"{name!r} is no container")
    return cls


def _made(file: Reading, cls: Any, entry: Entry, fields: dict[str, Any]) -> Task:
    """The module of a class with these fields, and those of its entry."""
    declared = {field.name: field for field in dataclasses.fields(cls)}
    for name, value in entry["fields"].items():
        if name in declared:
            static = is_static(declared[name])
            (fields[name],) = yield file.all([value], now=static)
        else:
            file.warnings.append(
                f"{cls.__name__} has no field {name!r} here, but has in the file: it is left out."
            )
    for name in declared.keys() - fields.keys():
        # Not set, it is what the class says; but only if the class says something.
        if name not in entry.get("unset", ()) or not hasattr(cls, name):
            fields[name] = _default(cls, declared[name])
    node = object.__new__(cls)
    values_of(node).update((name, fields[name]) for name in declared if name in fields)
    if (why := fault(node)) is not None:
        raise FormatError(f"it holds a {cls.__name__} that cannot be: {why}")
    return node


def _default(cls: type, field: dataclasses.Field[Any]) -> Any:
    """The value of a field that the class has gained since the file was written."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    parameter = inspect.signature(cls.__init__).parameters.get(field.name)
    if parameter is None or parameter.default is inspect.Parameter.empty:
        raise FormatError(
            f"the field {field.name!r} of {cls.__name__} is missing, and has no default"
        )
    return parameter.default
