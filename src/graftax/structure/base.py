"""The base of all containers: labels, access, and the call that every container shares."""

import abc
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import wadler_lindig as wl

from ..paths.errors import did_you_mean, listed
from ..paths.tree import Level, dynamic_fields, shallow_copy, values_of
from .access import Selectable, find_positions, items_of
from .calling import (
    check_context,
    declared_by_any,
    is_stateful,
    overridden_call_keywords,
    split_inputs,
)
from .labels import CLS, arranged, as_layers
from .printing import layer_doc
from .signature import is_binary


def _field_children(container: Any) -> tuple[str, ...]:
    values, names = values_of(container), dynamic_fields(type(container), "layers")
    return tuple(name for name in names if values.get(name) is not None)


class _StructuralMeta(type(eqx.Module)):
    # Equinox's metaclass and `__new__` call their own first argument `cls`: a label goes round them.
    def __call__(cls, /, *args: Any, **kwargs: Any) -> Any:
        if "cls" in kwargs:
            kwargs = {CLS if key == "cls" else key: value for key, value in kwargs.items()}
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
        - `key`: a random key. Each child draws from its own, folded with its label or position; one
            that is called again draws anew.
        - `context`: any other keyword goes to each layer, at any depth, that declares it.

        **Returns:**

        The output; with `state`, the pair `(output, state)`.

        **Raises:**

        - `TypeError`: a keyword that no layer declares, or no input.
        - Whatever a layer raises, with one note that says where, which layer and which shapes.
        """
        x, state = split_inputs(type(self).__name__, inputs, state)
        check_context(self, context)
        # By way of the class, here and elsewhere: a bound method of a module is a module to Equinox, and
        # making one flattens all that the layer holds.
        y, new_state = type(self)._forward(self, x, state, key, context)
        return y if state is None else (y, new_state)

    def is_stateful(self) -> bool:
        """Whether any layer, at any depth, keeps an Equinox state."""
        return any(is_stateful(layer) for layer, _ in type(self)._gx_calls(self))

    def _gx_calls(self) -> Iterator[tuple[Any, int]]:
        """Every layer this container calls, those in fields (`op`, `shortcut`) included, and on how
        many inputs."""
        yield from ((layer, 1) for layer in self.layers)
        for name in _field_children(self):
            value = getattr(self, name)
            if callable(value):
                yield value, 2 if name == "op" and is_binary(value) else 1

    def _gx_declared(self) -> frozenset[str] | None:
        calls = tuple(type(self)._gx_calls(self))
        inside = declared_by_any([layer for layer, _ in calls], [inputs for _, inputs in calls])
        own = overridden_call_keywords(type(self), StructuralLayer)
        return None if inside is None else inside | own

    # --- Access ---

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in order. Empty if the children have positions only."""
        return getattr(self.layers, "_fields", ())

    def items(self) -> tuple[tuple[str | int, Any], ...]:
        """`((label or position, layer), ...)`, in order."""
        return items_of(self)

    def __len__(self) -> int:
        return len(self.layers)

    # A container without children is still a model, not nothing.
    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def __contains__(self, label: object) -> bool:
        return label in self.labels or (label in _field_children(self) and label != "op")

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str) and index not in self.labels and index in self:
            return getattr(self, index)
        found = find_positions(self, index)
        if isinstance(found, int):
            return self.layers[found]
        items = items_of(self)
        return type(self)._with_items(self, [items[i] for i in found])

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

    def _gx_level(self) -> Level:
        values = values_of(self)
        layers = values["layers"]
        keys: Sequence[Hashable] = getattr(layers, "_fields", None) or range(len(layers))
        names = dynamic_fields(type(self), "layers")
        if not names:
            return Level(keys, layers, len(layers))
        return Level((*keys, *names), (*layers, *map(values.get, names)), len(layers))

    def _gx_replace(self, new: Mapping[int, Any]) -> Any:
        old = values_of(self)["layers"]
        layers = list(old)
        fields = {}
        for i, child in new.items():
            if i < len(layers):
                layers[i] = child
            else:
                fields[dynamic_fields(type(self), "layers")[i - len(layers)]] = child
        fields["layers"] = tuple.__new__(type(old), layers)
        return shallow_copy(self, **fields)

    def _gx_rearrange(self, items: list[tuple[Hashable, Any]]) -> Any:
        names = dynamic_fields(type(self), "layers")
        given = dict(items)
        fields = {name: given.get(name) for name in names}
        children = [(key, child) for key, child in items if key not in names]
        return shallow_copy(type(self)._with_items(self, children), **fields)

    def _with_items(self, items: Sequence[tuple[Hashable, Any]]) -> Any:
        """The same container around other children. Its class checks what its constructor checks."""
        new = shallow_copy(self, layers=arranged(type(self), items))
        type(self)._check(new)
        return new

    def _check(self) -> None:
        """Raise `ValueError` for a number of children that the container cannot work with."""

    def __pdoc__(self, **kwargs: Any) -> wl.AbstractDoc:
        children = [(key if self.labels else None, layer) for key, layer in items_of(self)]
        return layer_doc(self, children, **kwargs)
