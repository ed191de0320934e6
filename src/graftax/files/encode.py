"""From a model to its structure as JSON, and its arrays by path."""

import functools
import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..paths.path import join
from ..paths.search import search_all
from ..structure.base import StructuralLayer
from ..structure.labels import layers_class
from ..structure.standard import standard_base
from ..structure.wrappers import Wrapper
from ..surgery.state import init_of, is_index, is_taken, marker_of
from ..surgery.ties import Tied
from .errors import UnsavableError
from .names import full_name, function_name, module_name
from .tensors import DTYPES, METADATA

_ARRAYS = (jax.Array, np.ndarray, np.generic)
_DICTS = {dict: "dict", OrderedDict: "OrderedDict"}


class Encoder:
    """Turns nodes into JSON, and collects the arrays that they hold. One for each file."""

    def __init__(self, model: Any) -> None:
        arrays = search_all(model, lambda node: isinstance(node, _ARRAYS))
        self._paths = {id(match.node): match.path for match in reversed(arrays)}
        self.arrays: dict[str, np.ndarray] = {}
        self._keys: dict[int, dict[str, Any]] = {}
        self._kept: list[Any] = []
        self.markers: dict[Any, str] = {}
        self.places: dict[str, str] = {}
        """From the text that stands for a marker to the path of its first index."""

    def encode(self, node: Any, path: str) -> Any:
        """The JSON of one node. Raises `UnsavableError` with its path."""
        if node is None or isinstance(node, bool | str):
            return node
        if isinstance(node, _ARRAYS):
            return self._array(node, path)
        if isinstance(node, int) and type(node) is int:
            return node
        if type(node) in (float, complex):
            return _number(node)
        if is_index(node):
            return self._state_index(node, path)
        for kind, method in self._methods().items():
            if isinstance(node, kind):
                return method(node, path)
        if isinstance(node, jnp.dtype):
            return {"dtype": node.name}
        if node is Ellipsis:
            return {"ellipsis": True}
        return self._function(node, path)

    def _methods(self) -> Mapping[type, Callable[[Any, str], Any]]:
        return {
            Tied: self._tied,
            StructuralLayer: self._container,
            eqx.Module: self._module,
            tuple: self._tuple,
            list: lambda node, path: {"list": self._sequence(node, path)},
            dict: self._dict,
            functools.partial: self._partial,
            slice: lambda node, path: {"slice": [node.start, node.stop, node.step]},
        }

    def _array(self, array: Any, path: str) -> dict[str, Any]:
        if id(array) in self._keys:
            return self._keys[id(array)]
        found: dict[str, Any] = {"array": self._free_key(self._paths.get(id(array), path))}
        if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            found["random_key"] = str(jax.random.key_impl(array))
            stored = np.asarray(jax.random.key_data(array))
        else:
            stored = np.asarray(array)
            if not isinstance(array, jax.Array):
                found["numpy"] = "array" if isinstance(array, np.ndarray) else "scalar"
        if (raw := as_storable(stored)) is not stored:
            found |= {"dtype": stored.dtype.name, "shape": list(stored.shape)}
        self.arrays[found["array"]] = raw
        self._keys[id(array)] = found
        # The id stays taken only as long as the array lives.
        self._kept.append(array)
        return found

    def _free_key(self, path: str) -> str:
        key, n = path or "value", 1
        while key in self.arrays or key == METADATA:
            n += 1
            key = f"{path}#{n}"
        return key

    def _sequence(self, nodes: Any, path: str) -> list[Any]:
        return [self.encode(node, join(path, i)) for i, node in enumerate(nodes)]

    def _tuple(self, node: Any, path: str) -> Any:
        labels = getattr(node, "_fields", None)
        if labels is None:
            return {"tuple": self._sequence(node, path)}
        items = [self.encode(x, join(path, label)) for label, x in zip(labels, node, strict=True)]
        if type(node) is layers_class(labels):
            return {"labelled": list(labels), "items": items}
        return {"namedtuple": full_name(type(node)), "labels": list(labels), "items": items}

    def _dict(self, node: Any, path: str) -> Any:
        cls = type(node)
        if cls is defaultdict or cls not in _DICTS:
            raise UnsavableError(
                f"{path!r} is a {cls.__name__}; a file holds dict and OrderedDict."
            )
        items = [[self.encode(k, path), self.encode(v, join(path, k))] for k, v in node.items()]
        return {_DICTS[cls]: items}

    def _container(self, node: StructuralLayer, path: str) -> Any:
        cls = type(node)
        layers = [self.encode(layer, join(path, key)) for key, layer in node.items()]
        fields = self._fields(node, path, skipped=("layers",))
        found: dict[str, Any] = {"module": module_name(cls), "layers": layers, "fields": fields}
        if node.labels:
            found["labels"] = list(node.labels)
            if type(node.layers) is not layers_class(node.labels):
                found["namedtuple"] = full_name(type(node.layers))
        base = standard_base(cls)
        if base not in (None, cls):
            found["base"] = module_name(base)
        return found

    def _module(self, node: eqx.Module, path: str) -> Any:
        if module_name(type(node)).endswith(">") or "<locals>" in module_name(type(node)):
            raise UnsavableError(
                f"{path!r} is a {type(node).__qualname__}, a class made inside a function: no other "
                "process can be handed it. Define it at the top of a module."
            )
        return {"module": module_name(type(node)), "fields": self._fields(node, path)}

    def _fields(self, node: Any, path: str, skipped: tuple[str, ...] = ()) -> dict[str, Any]:
        found = {}
        for name in node.__dataclass_fields__:
            if name not in skipped and name in node.__dict__:
                inner = isinstance(node, Wrapper) and name == "layer"
                found[name] = self.encode(node.__dict__[name], path if inner else join(path, name))
        return found

    def _tied(self, node: Tied, path: str) -> Any:
        links = [[list(source), list(target)] for source, target in node.links]
        return {"tied": self.encode(node.layer, path), "links": links}

    def _state_index(self, node: Any, path: str) -> Any:
        own = marker_of(node)
        marker = self.markers.get(own)
        if marker is None:
            marker = self.markers[own] = self._free_marker(own, path)
            self.places[marker] = path
        if is_taken(node):
            return {"state_index": marker, "taken": True}
        return {"state_index": marker, "init": self.encode(init_of(node), join(path, "init"))}

    def _free_marker(self, marker: Any, path: str) -> str:
        text, n = (str(marker) if isinstance(marker, str) else path), 1
        while text in self.markers.values():
            n += 1
            text = f"{path}#{n}"
        return text

    def _partial(self, node: functools.partial, path: str) -> Any:
        return {
            "partial": self.encode(node.func, join(path, "func")),
            "args": self._sequence(node.args, join(path, "args")),
            "keywords": {
                name: self.encode(value, join(join(path, "keywords"), name))
                for name, value in node.keywords.items()
            },
            "pytree": isinstance(node, jtu.Partial),
        }

    def _function(self, node: Any, path: str) -> Any:
        name = function_name(node)
        if name is None and callable(node):
            name = full_name(node)
            if "<" in name or not hasattr(node, "__module__") or not hasattr(node, "__name__"):
                raise UnsavableError(
                    f"{path!r} is {name.rpartition('.')[2]}, which has no name that a file could "
                    "hold. Use a function of jax.nn or jax.numpy, functools.partial of one, a function "
                    "at the top of a module (and load with types=[it]), or a small eqx.Module."
                )
        if name is None:
            raise UnsavableError(
                f"{path!r} is a {type(node).__name__}, which a file cannot hold: {node!r}."
            )
        return {"function": name}


def _number(value: float | complex) -> Any:
    if isinstance(value, complex):
        return {"complex": [_number(value.real), _number(value.imag)]}
    return value if math.isfinite(value) else {"float": repr(value)}


STORABLE = frozenset(DTYPES.values())


def as_storable(array: np.ndarray) -> np.ndarray:
    """The array itself if safetensors knows its dtype, else its bytes along a new last axis."""
    if array.dtype.name in STORABLE:
        return array
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).reshape(*array.shape, array.dtype.itemsize)
