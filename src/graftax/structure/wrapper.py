"""The base of all wrappers: layers around one layer that do not show in paths."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from ..paths.functor import children
from ..paths.tree import INNER, Level, dynamic_fields, shallow_copy, values_of
from ..paths.types import Self
from .call import Call
from .labels import check_layer
from .node import Node
from .printing import Child


class Wrapper(Node):
    """One layer, run in another way; to paths, attributes and items it is not there.

    So wrapping a layer changes no path and no checkpoint key: `Wrapper(m).stem is m.stem`. Subclass it
    for a wrapper of your own, and say in `forward` what it computes: `call(self.layer, *inputs)` is what
    the layer gives, whatever state, keys and keywords it takes.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> class Doubled(gx.Wrapper):
    ...     "Twice what the layer gives."
    ...     def forward(self, call, *inputs):
    ...         return 2 * call(self.layer, *inputs)
    >>> model = Doubled(gx.Chain(next=lambda x: x + 1))
    >>> model(3), len(model), model.labels
    (8, 1, ('next',))

    ```
    """

    layer: Any

    def __init__(self, layer: Callable[..., Any]):
        """**Arguments:**

        - `layer`: the layer to run.

        **Raises:**

        - `TypeError`: it is not callable.
        - `ValueError`: it has a child of the same name as a field of the wrapper's own.
        """
        if not callable(layer):
            raise TypeError(
                f"{type(self).__name__} wraps a callable; got {layer!r} of type "
                f"{type(layer).__name__}."
            )
        check_layer(type(self), None, layer)
        self.layer = layer
        type(self)._check_names(self, dynamic_fields(type(self), "layer"))

    def _check_names(self, names: Iterable[Hashable]) -> None:
        # Both would stand at one path.
        inside = children(self.layer)
        hidden = [name for name in names if name in inside]
        if hidden:
            raise ValueError(
                f"{type(self).__name__} would hide {hidden[0]!r} of the {type(self.layer).__name__} it "
                "wraps: it has a field of that name itself. Rename the label, or do not wrap twice."
            )

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the wrapped layer gives."""
        return call(self.layer, *inputs)

    def __getattr__(self, name: str) -> Any:
        # Private names belong to whoever asks for them; `layer` is missing only while JAX unflattens.
        if name.startswith("_") or name == "layer":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.layer, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.layer)})

    def __getitem__(self, index: Any) -> Any:
        return self.layer[index]

    def __len__(self) -> int:
        return len(self.layer)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layer)

    def __contains__(self, label: object) -> bool:
        return label in self.layer

    def tree_level(self) -> Level:
        """What it wraps under `INNER`, which no path shows, then its own fields under their names."""
        own = dynamic_fields(type(self), "layer")
        return Level((INNER, *own), tuple(map(values_of(self).get, ("layer", *own))), 0)

    def tree_replace(self, new: Mapping[int, Any]) -> Self:
        """The same wrapper around another layer, or with other fields.

        Raises `ValueError` where two things would stand at one path.
        """
        names = ("layer", *dynamic_fields(type(self), "layer"))
        changed = shallow_copy(self, **{names[i]: child for i, child in new.items()})
        type(self)._check_names(changed, type(self)._own_names(changed))
        return changed

    def tree_check(self, new: Mapping[int, Any]) -> None:
        """A layer gives way only to a layer."""
        if 0 in new and callable(self.layer):
            check_layer(type(self), None, new[0])

    def _own_names(self) -> list[Hashable]:
        """The keys of its own children that stand beside those of what it wraps."""
        level = type(self).tree_level(self)
        pairs = zip(level.keys, level.children, strict=True)
        return [key for key, child in pairs if key is not INNER and child is not None]

    def _ipython_key_completions_(self) -> list[str]:
        inside = getattr(self.layer, "_ipython_key_completions_", list)
        return inside()

    _held: ClassVar[str] = "layer"

    def _shown(self) -> list[Child]:
        return [(None, self.layer)]


def unwrap(layer: Any) -> Any:
    """The layer inside all wrappers: the one that a type criterion reaches."""
    while isinstance(layer, Wrapper):
        layer = layer.layer
    return layer
