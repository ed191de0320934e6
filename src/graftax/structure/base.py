"""The base of all containers: labels, access, and the call that every container shares."""

import abc
import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import wadler_lindig as wl

from ..paths.errors import did_you_mean, listed
from ..paths.tree import Level, dynamic_fields, shallow_copy
from .access import Selectable, find_positions
from .calling import (
    call_child,
    check_context,
    declared_by_any,
    is_stateful,
    overridden_call_keywords,
    split_inputs,
)
from .labels import arranged, as_layers
from .printing import layer_doc


class _StructuralMeta(type(eqx.Module)):
    # Equinox's metaclass calls its own first argument `cls`, so a label `cls` has to go round it.
    def __call__(cls, /, *args: Any, **kwargs: Any) -> Any:
        if "cls" in kwargs and not args:
            # Without `self`, which may be a label too.
            options = tuple(inspect.signature(cls.__init__).parameters)[1:]
            labelled = {k: kwargs.pop(k) for k in tuple(kwargs) if k not in options}
            args = (labelled,)
        return super().__call__(*args, **kwargs)


class StructuralLayer(Selectable, eqx.nn.StatefulLayer, metaclass=_StructuralMeta):
    """A layer made of labelled layers. The abstract base of `Chain`, `Parallel`, `SkipConnection`.

    `m.stem`, `m["stem"]` and `m[0]` are the same layer; slices keep the class and the labels.

    A subclass says what it computes in `_forward`; all else (state, keys, context keywords, scopes,
    notes on errors) is done here once. Subclassing a *concrete* container needs nothing at all.

    Source: `eqx.nn.Sequential`, Flux's `Chain`.
    """

    layers: tuple

    def __init__(self, /, *layers: Any, **labelled: Any):
        """**Arguments:**

        - `layers`: the children, by position; or one mapping, NamedTuple, list or tuple of them.
        - `labelled`: the children, by label. Either these or `layers`, not both.

        **Raises:**

        - `TypeError`: positions and labels mixed, or a child that is not callable.
        - `ValueError`: a label that is no identifier, is private, or hides an attribute.
        """
        self.layers = as_layers(type(self), layers, labelled)

    @abc.abstractmethod
    def _forward(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        """`(output, state)` for the input `x`."""

    def __call__(self, /, *inputs: Any, state: Any = None, key: Any = None, **context: Any) -> Any:
        """**Arguments:**

        - `inputs`: the input; several travel as one tuple. An `eqx.nn.State` may come last.
        - `state`: the `eqx.nn.State` of the model, if any layer keeps one.
        - `key`: a random key. Each child draws from its own, folded with its label or position.
        - `context`: any other keyword goes to each layer, at any depth, that declares it.

        **Returns:**

        The output; with `state`, the pair `(output, state)`.

        **Raises:**

        - `TypeError`: a keyword that no layer declares, or no input.
        - Whatever a layer raises, with one note that says where, which layer and which shapes.
        """
        x, state = split_inputs(type(self).__name__, inputs, state)
        check_context(self, context)
        y, new_state = self._forward(x, state, key, context)
        return y if state is None else (y, new_state)

    def _call(
        self, label: Hashable, layer: Any, inputs: tuple, state: Any, key: Any, context: Mapping
    ) -> tuple[Any, Any]:
        return call_child(self, label, layer, inputs, state, key, context)

    def is_stateful(self) -> bool:
        """Whether any layer, at any depth, keeps an Equinox state."""
        return any(is_stateful(layer) for layer in self._gx_callables())

    def _gx_callables(self) -> Iterator[Any]:
        """Every layer this container calls, the ones in fields (`op`, `shortcut`) included."""
        yield from self.layers
        for name in self._field_children():
            value = getattr(self, name)
            if callable(value):
                yield value

    def _gx_declared(self) -> frozenset[str] | None:
        inside = declared_by_any(self._gx_callables())
        own = overridden_call_keywords(type(self), StructuralLayer)
        return None if inside is None else inside | own

    # --- Access ---

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in order. Empty if the children have positions only."""
        return getattr(self.layers, "_fields", ())

    def items(self) -> tuple[tuple[str | int, Any], ...]:
        """`((label or position, layer), ...)`, in order."""
        return tuple(zip(self.labels or range(len(self.layers)), self.layers, strict=True))

    def __len__(self) -> int:
        return len(self.layers)

    # A container without children is still a model, not nothing.
    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def __contains__(self, label: object) -> bool:
        return label in self.labels or (label in self._field_children() and label != "op")

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str) and index not in self.labels and index in self:
            return getattr(self, index)
        found = find_positions(self, index)
        if isinstance(found, int):
            return self.layers[found]
        items = self.items()
        return self._with_items([items[i] for i in found])

    def __getattr__(self, name: str) -> Any:
        layers = self.__dict__.get("layers")
        labels = getattr(layers, "_fields", ())
        if name in labels:
            return getattr(layers, name)
        message = f"{type(self).__name__} has no attribute {name!r}"
        if not name.startswith("_"):
            message += f" and no layer of this label. Its labels are: {listed(labels)}."
            message += did_you_mean(name, labels)
        raise AttributeError(message, name=name, obj=self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.labels})

    # --- How paths, walks and edits see it: `layers` is elided ---

    @classmethod
    def _field_names(cls) -> tuple[str, ...]:
        return tuple(name for name in dynamic_fields(cls) if name != "layers")

    def _field_children(self) -> tuple[str, ...]:
        return tuple(n for n in self._field_names() if self.__dict__.get(n) is not None)

    def _gx_level(self) -> Level:
        layers = self.__dict__["layers"]
        keys: Sequence[Hashable] = getattr(layers, "_fields", None) or range(len(layers))
        names = self._field_names()
        if not names:
            return Level(keys, layers, len(layers))
        fields = (self.__dict__.get(name) for name in names)
        return Level((*keys, *names), (*layers, *fields), len(layers))

    def _gx_replace(self, new: Mapping[int, Any]) -> Any:
        layers = list(self.layers)
        fields = {}
        names = self._field_names()
        for i, child in new.items():
            if i < len(layers):
                layers[i] = child
            else:
                fields[names[i - len(layers)]] = child
        cls = type(self.layers)
        fields["layers"] = cls(*layers) if self.labels else cls(layers)
        return shallow_copy(self, **fields)

    def _gx_rearrange(self, items: list[tuple[Hashable, Any]]) -> Any:
        names = self._field_names()
        given = dict(items)
        fields = {name: given.get(name) for name in names}
        children = [(key, child) for key, child in items if key not in names]
        return shallow_copy(self._with_items(children), **fields)

    def _with_items(self, items: Sequence[tuple[Hashable, Any]]) -> Any:
        """The same container around other children. Its class checks what its constructor checks."""
        new = shallow_copy(self, layers=arranged(type(self), items))
        new._check()
        return new

    def _check(self) -> None:
        """Raise `ValueError` for a number of children that the container cannot work with."""

    def __pdoc__(self, **kwargs: Any) -> wl.AbstractDoc:
        children = [(key if self.labels else None, layer) for key, layer in self.items()]
        return layer_doc(self, children, **kwargs)
