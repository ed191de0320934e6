"""From JSON and arrays to a model. Nothing is imported or called that the file names."""

import dataclasses
import functools
import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu

from ..paths.tree import values_of
from ..structure.base import StructuralLayer
from ..structure.labels import arranged, layers_tuple
from ..surgery.state import TAKEN, is_index_type, new_index
from ..surgery.ties import Tied
from .errors import FormatError
from .names import Names
from .tensors import TensorFile


class Stored(NamedTuple):
    """An array that is still in the file: what its JSON says of it."""

    entry: Mapping[str, Any]


class Decoder:
    """Turns JSON into nodes, with `Stored` where arrays will be. One for each file."""

    def __init__(self, names: Names, tensors: TensorFile):
        self._names = names
        self._tensors = tensors
        self.warnings: list[str] = []
        """What the caller should be told once all is read."""
        self._methods: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "array": Stored,
            "tuple": lambda entry: tuple(self._all(entry["tuple"])),
            "list": lambda entry: self._all(entry["list"]),
            "dict": lambda entry: dict(self._pairs(entry["dict"])),
            "OrderedDict": lambda entry: OrderedDict(self._pairs(entry["OrderedDict"])),
            "layers": self._container,
            "module": self._module,
            "tied": self._tied,
            "state_index": self._state_index,
            "partial": self._partial,
            "function": self._function,
            "labelled": lambda entry: layers_tuple(entry["labelled"], self._all(entry["items"])),
            "items": self._named_tuple,
            "dtype": lambda entry: jnp.dtype(entry["dtype"]),
            "complex": lambda entry: complex(*self._all(entry["complex"])),
            "float": lambda entry: _special_float(entry["float"]),
            "slice": lambda entry: slice(*entry["slice"]),
            "ellipsis": lambda entry: Ellipsis,
        }

    def decode(self, entry: Any) -> Any:
        """The node that an entry spells."""
        if not isinstance(entry, dict):
            if isinstance(entry, list):
                raise FormatError("a list stands where a node should")
            return entry
        for kind, method in self._methods.items():
            if kind in entry:
                return method(entry)
        raise FormatError(f"an entry of no known kind: {sorted(entry)[:5]}")

    def _all(self, entries: list) -> list:
        return [self.decode(entry) for entry in entries]

    def _pairs(self, pairs: list) -> list[tuple[Any, Any]]:
        return [(self.decode(key), self.decode(value)) for key, value in pairs]

    def _named_tuple(self, entry: Mapping[str, Any]) -> Any:
        cls = self._names.module(entry["namedtuple"])
        if cls is None or getattr(cls, "_fields", None) != tuple(entry["labels"]):
            raise FormatError(
                f"it holds a {entry['namedtuple']!r}, a NamedTuple that is not known here: give the "
                "class in types=[...]"
            )
        return cls(*self._all(entry["items"]))

    def _container(self, entry: Mapping[str, Any]) -> Any:
        cls = self._names.module(entry["module"])
        if cls is None and "base" in entry:
            cls = self._names.module(entry["base"])
            self.warnings.append(
                f"{entry['module']!r} is not known here: it is loaded as {entry['base']}, which computes "
                "the same. Give the class in types=[...] to keep the type."
            )
        cls = self._known(cls, entry["module"])
        if not issubclass(cls, StructuralLayer):
            raise FormatError(f"{entry['module']!r} is no container")
        layers = self._all(entry["layers"])
        labels = entry.get("labels") or range(len(layers))
        children = arranged(cls, list(zip(labels, layers, strict=True)))
        named = self._names.module(entry.get("namedtuple"))
        if named is not None and getattr(named, "_fields", None) == tuple(labels):
            children = named(*layers)
        return self._made(cls, {**self._fields(entry), "layers": children})

    def _module(self, entry: Mapping[str, Any]) -> Any:
        cls = self._known(self._names.module(entry["module"]), entry["module"])
        # These have entries of their own kind, which are checked.
        if issubclass(cls, (StructuralLayer, Tied)) or is_index_type(cls):
            raise FormatError(f"{entry['module']!r} is no plain module")
        return self._made(cls, self._fields(entry))

    def _known(self, cls: type | None, name: Any) -> type:
        if cls is None or not issubclass(cls, eqx.Module):
            raise FormatError(
                f"it holds a {name!r}, which is no class of Equinox or graftax: give the class in "
                "types=[...]"
            )
        return cls

    def _fields(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.decode(value) for name, value in entry["fields"].items()}

    def _made(self, cls: Any, fields: dict[str, Any]) -> Any:
        declared = {field.name: field for field in dataclasses.fields(cls)}
        for name in set(fields) - set(declared):
            self.warnings.append(
                f"{cls.__name__} has no field {name!r} here, but has in the file: it is left out."
            )
            del fields[name]
        for name in set(declared) - set(fields):
            fields[name] = _default(cls, name, declared[name])
        node = object.__new__(cls)
        for name, field in declared.items():
            if field.metadata.get("static", False):
                fields[name] = self._at_once(fields[name])
        values_of(node).update({name: fields[name] for name in declared})
        return node

    def _tied(self, entry: Mapping[str, Any]) -> Any:
        links = tuple((_address(source), _address(target)) for source, target in entry["links"])
        sources, targets = {source for source, _ in links}, [target for _, target in links]
        if sources & set(targets) or len(set(targets)) != len(targets):
            raise FormatError("its ties lead in a circle")
        node = object.__new__(Tied)
        values_of(node).update(layer=self.decode(entry["tied"]), links=links)
        node.resolved()
        return node

    def _state_index(self, entry: Mapping[str, Any]) -> Any:
        if not isinstance(entry["state_index"], str):
            raise FormatError("a state marker is no text")
        init = TAKEN if entry.get("taken") else self.decode(entry["init"])
        return new_index(entry["state_index"], init)

    def _partial(self, entry: Mapping[str, Any]) -> Any:
        make = jtu.Partial if entry["pytree"] else functools.partial
        keywords = {str(name): self.decode(value) for name, value in entry["keywords"].items()}
        function = self.decode(entry["partial"])
        if not callable(function):
            raise FormatError("a partial of something that is not callable")
        return make(function, *self._at_once(self._all(entry["args"])), **self._at_once(keywords))

    def _at_once(self, node: Any) -> Any:
        """A node that JAX will not look into when the arrays are filled in: they are read now."""
        return filled(node, self._tensors)

    def _function(self, entry: Mapping[str, Any]) -> Any:
        function = self._names.function(entry["function"])
        if function is None:
            raise FormatError(
                f"it holds the function {entry['function']!r}, which is no public function of jax.nn or "
                "jax.numpy: give it in types=[...]"
            )
        return function


def _address(numbers: Any) -> tuple[int, ...]:
    if not all(type(i) is int and i >= 0 for i in numbers):
        raise FormatError("a tie leads nowhere")
    return tuple(numbers)


def _special_float(text: Any) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise FormatError(f"{text!r} is no float")
    return float(text)


def _default(cls: type, name: str, field: Any) -> Any:
    """The value of a field that the class has gained since the file was written."""
    if field.default is not inspect.Parameter.empty and not _is_missing(field.default):
        return field.default
    if not _is_missing(field.default_factory):
        return field.default_factory()
    parameter = inspect.signature(cls.__init__).parameters.get(name)
    if parameter is None or parameter.default is inspect.Parameter.empty:
        raise FormatError(f"the field {name!r} of {cls.__name__} is missing, and has no default")
    return parameter.default


def _is_missing(value: Any) -> bool:
    return type(value).__name__ == "_MISSING_TYPE"


def materialised(stored: Stored, tensors: TensorFile) -> Any:
    """The array that a `Stored` stands for."""
    entry = stored.entry
    raw = tensors[entry["array"]]
    if "shape" in entry:
        raw = raw.reshape(-1).view(jnp.dtype(entry["dtype"])).reshape(entry["shape"])
    if "random_key" in entry:
        return jax.random.wrap_key_data(jnp.asarray(raw), impl=entry["random_key"])
    if "numpy" in entry:
        return raw if entry["numpy"] == "array" else raw[()]
    # The memory is ours alone, so JAX may have it.
    array = jax.device_put(raw)
    if array.dtype != raw.dtype:
        raise FormatError(
            f"{entry['array']!r} is {raw.dtype}, which JAX holds only with jax_enable_x64 set: "
            'jax.config.update("jax_enable_x64", True)'
        )
    return array


def filled(node: Any, tensors: TensorFile) -> Any:
    """The node with arrays where `Stored` stands. What is stored once is one object again."""
    made: dict[str, Any] = {}

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, Stored):
            return leaf
        key = json.dumps(leaf.entry, sort_keys=True)
        if key not in made:
            made[key] = materialised(leaf, tensors)
        return made[key]

    return jax.tree.map(fill, node, is_leaf=lambda leaf: isinstance(leaf, Stored))
