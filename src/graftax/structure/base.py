"""The base of all containers: labels, access, and how paths and edits see their children."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from ..paths.errors import did_you_mean, listed
from ..paths.tree import Level, dynamic_fields, shallow_copy, values_of
from ..paths.types import Self
from .access import find_positions, items_of
from .labels import arranged, as_layers, check_layer
from .node import Node
from .printing import Child

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # `Chain` alone stands for one of any layers: type checkers ask for no argument.
    L = TypeVar("L", bound=tuple[Any, ...], default=tuple[Any, ...])
else:
    from typing import TypeVar

    L = TypeVar("L", bound=tuple)


def _field_children(container: Any) -> tuple[str, ...]:
    values, names = values_of(container), dynamic_fields(type(container), "layers")
    return tuple(name for name in names if values.get(name) is not None)


class StructuralLayer(Node, Generic[L]):
    """A layer made of labelled layers. The abstract base of `Chain`, `Parallel`, `SkipConnection`.

    `m.stem`, `m["stem"]` and `m[0]` are the same layer; slices keep the class and the labels.

    A subclass says what it computes in `forward`. Subclassing a *concrete* container needs nothing at all.

    Source: `eqx.nn.Sequential`, Flux's `Chain`.
    """

    layers: L

    def __init__(self, /, *layers: Any, **labelled: Any):
        """**Arguments:**

        - `layers`: the children, by position; or one mapping, NamedTuple, list or tuple of them.
        - `labelled`: the children, by label. Either these or `layers`, not both.

        **Raises:**

        - `TypeError`: positions and labels mixed, or a child that is not callable.
        - `ValueError`: a label that is no identifier, is private, or hides an attribute.
        """
        held: Any = as_layers(type(self), layers, labelled)
        self.layers = held

    def _packed(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return inputs if len(inputs) == 1 else (inputs,)

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
        return label in self.labels or label in _field_children(self)

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

    def tree_level(self) -> Level:
        """The layers under their labels or positions, then the other fields under their names."""
        values = values_of(self)
        layers = values["layers"]
        keys: Sequence[Hashable] = getattr(layers, "_fields", None) or range(len(layers))
        names = dynamic_fields(type(self), "layers")
        if not names:
            return Level(keys, layers, len(layers))
        return Level((*keys, *names), (*layers, *map(values.get, names)), len(layers))

    def tree_replace(self, new: Mapping[int, Any]) -> Self:
        """The same container with other children."""
        old = values_of(self)["layers"]
        layers, fields = list(old), {}
        for i, child in new.items():
            if i < len(layers):
                layers[i] = child
            else:
                fields[dynamic_fields(type(self), "layers")[i - len(layers)]] = child
        fields["layers"] = tuple.__new__(type(old), layers)
        return shallow_copy(self, **fields)

    def tree_check(self, new: Mapping[int, Any]) -> None:
        """A layer gives way only to a layer, and `op` to what the constructor takes."""
        old = values_of(self)["layers"]
        keys = getattr(old, "_fields", None) or range(len(old))
        for i, child in new.items():
            # In a mask, or the rest of a partition, there are no layers to keep.
            if i < len(old) and callable(old[i]):
                check_layer(type(self), keys[i], child)
        fields = {i: child for i, child in new.items() if i >= len(old)}
        if fields and any(map(callable, old)):
            type(self)._check(type(self).tree_replace(self, fields))

    def tree_rearrange(self, items: Sequence[tuple[Hashable, Any]]) -> Self:
        """The container with these children, in this order. Fields such as `op` keep their place.

        Raises `ValueError` or `TypeError` for what cannot stand in it.
        """
        names = dynamic_fields(type(self), "layers")
        given = dict(items)
        fields = {name: given.get(name) for name in names}
        children = [(key, child) for key, child in items if key not in names]
        held = {id(layer) for layer in self.layers}
        for key, child in children:
            if id(child) not in held:
                check_layer(type(self), key, child)
        changed = shallow_copy(type(self)._with_items(self, children), **fields)
        type(self)._check(changed)
        return changed

    def _with_items(self, items: Sequence[tuple[Hashable, Any]]) -> Self:
        """The same container around other children. Its class checks what its constructor checks."""
        new = shallow_copy(self, layers=arranged(type(self), items))
        type(self)._check(new)
        return new

    def _check(self) -> None:
        """Raise `ValueError` for a number of children that the container cannot work with."""

    _held: ClassVar[str] = "layers"

    def _shown(self) -> list[Child]:
        return [(key if self.labels else None, layer) for key, layer in items_of(self)]
