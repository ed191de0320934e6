"""Transparent wrappers with labelled layers of their own, which stand beside those of what they wrap."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from ..paths.tree import INNER, Level, shallow_copy, values_of
from ..paths.types import Self
from .call import Call
from .labels import arranged, as_layers, check_layer
from .printing import Child
from .wrapper import Wrapper

# Functions, not methods: to Equinox a bound method of a module is a module, and making one flattens all
# that the node holds.


def _own(node: Any) -> list[tuple[str, Any]]:
    """The labelled layers of the wrapper itself."""
    # While JAX or Equinox take it apart, something else may stand there.
    layers: Any = values_of(node).get(node.beside)
    labels = getattr(layers, "_fields", ())
    return list(zip(labels, layers, strict=True)) if labels else []


def _with_own(node: Any, layer: Any, items: Sequence[tuple[Hashable, Any]]) -> Any:
    beside = arranged(type(node), items)
    changed = shallow_copy(node, **{"layer": layer, node.beside: beside})
    type(node)._check_names(changed, [key for key, _ in items])
    return changed


class Beside(Wrapper):
    """A wrapper whose one other field is a tuple of labelled layers. The base of `Residual` and `Then`."""

    beside: ClassVar[str]
    """The name of that field."""

    def __init__(self, layer: Callable[..., Any], /, **labelled: Callable[..., Any]):
        super().__init__(layer)
        object.__setattr__(self, self.beside, as_layers(type(self), (), labelled))
        type(self)._check_names(self, labelled)

    def __getattr__(self, name: str) -> Any:
        for label, layer in _own(self):
            if label == name:
                return layer
        return super().__getattr__(name)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str) and index in (own := dict(_own(self))):
            return own[index]
        return super().__getitem__(index)

    def __contains__(self, label: object) -> bool:
        return label in dict(_own(self)) or super().__contains__(label)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dict(_own(self))})

    def _ipython_key_completions_(self) -> list[str]:
        return [*super()._ipython_key_completions_(), *dict(_own(self))]

    def tree_level(self) -> Level:
        """What it wraps under `INNER`, then its own layers under their labels."""
        items = _own(self)
        keys = (INNER, *(label for label, _ in items))
        return Level(keys, (values_of(self).get("layer"), *(layer for _, layer in items)), 0)

    def tree_replace(self, new: Mapping[int, Any]) -> Self:
        """The same wrapper around another layer, or with other layers of its own."""
        items = [(INNER, self.layer), *_own(self)]
        for i, child in new.items():
            items[i] = items[i][0], child
        return _with_own(self, items[0][1], items[1:])

    def tree_check(self, new: Mapping[int, Any]) -> None:
        """A layer gives way only to a layer."""
        items = [(None, self.layer), *_own(self)]
        for i, child in new.items():
            if callable(items[i][1]):
                check_layer(type(self), items[i][0], child)

    def tree_rearrange(self, items: Sequence[tuple[Hashable, Any]]) -> Self:
        """The same wrapper with more, fewer or renamed layers of its own."""
        inner = [layer for key, layer in items if key is INNER]
        own = [(key, layer) for key, layer in items if key is not INNER]
        if len(inner) != 1 or any(not isinstance(key, str) for key, _ in own):
            raise ValueError(
                f"{type(self).__name__} holds one layer, and others beside it by label."
            )
        for key, layer in own:
            check_layer(type(self), key, layer)
        return _with_own(self, inner[0], own)

    def _shown(self) -> list[Child]:
        return [(None, self.layer), *_own(self)]


class Residual(Beside):
    """A `SkipConnection` around one layer that does not show in paths: `x + layer(before(x))`.

    So the parts of a block's attention are `encoder.3.attention.query` whether the block has a norm
    before it or not. What runs before has its own label at the same place: `attention.norm1`.

    Source: Xiong et al., On Layer Normalization in the Transformer Architecture, arXiv:2002.04745.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> block = gx.Residual(gx.Chain(double=lambda x: 2 * x), norm=lambda x: x + 1)
    >>> block(3), block.norm(3), block.double(3)
    (11, 4, 6)

    ```
    """

    beside: ClassVar[str] = "before"
    _held: ClassVar[str] = "layer before"

    before: tuple[Any, ...]

    def __init__(self, layer: Callable[..., Any], /, **before: Callable[..., Any]):
        """**Arguments:**

        - `layer`: what the input is added to.
        - `before`: labelled layers that run before it, in order, e.g. `norm1=...`, inside the residual.

        **Raises:**

        - `TypeError`: one of them is not callable.
        - `ValueError`: a label that cannot be one, or that `layer` has too.
        """
        super().__init__(layer, **before)

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """The input, and what the layer makes of it, added."""
        (x,) = y = inputs
        for label, layer in _own(self):
            y = (call(layer, *y, label=label),)
        return x + call(self.layer, *y)


class Then(Beside):
    """A layer and further labelled layers behind it, at the layer's own path: `after(layer(x))`.

    To put a layer behind another that stands in no order: a branch of a `Parallel`, an `op`. No path
    changes, and what is behind has its own label at the same place.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> model = gx.Parallel(left=gx.Then(lambda x: 2 * x, scale=lambda x: 10 * x), right=abs)
    >>> model(3), gx.select(model, "left.scale").paths
    ((60, 3), ('left.scale',))

    ```
    """

    beside: ClassVar[str] = "after"
    _held: ClassVar[str] = "layer after"

    after: tuple[Any, ...]

    def __init__(self, layer: Callable[..., Any], /, **after: Callable[..., Any]):
        """**Arguments:**

        - `layer`: what runs first. It is given what this is given.
        - `after`: labelled layers that run behind it, in order.

        **Raises:**

        - `TypeError`: one of them is not callable.
        - `ValueError`: a label that cannot be one, or that `layer` has too.
        """
        super().__init__(layer, **after)

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the last of the layers behind gives."""
        y = call(self.layer, *inputs)
        for label, layer in _own(self):
            y = call(layer, y, label=label)
        return y

    def tree_rearrange(self, items: Sequence[tuple[Hashable, Any]]) -> Any:
        """The same with more, fewer or renamed layers behind; the layer alone if there are none left."""
        changed = super().tree_rearrange(items)
        return changed if changed.after else changed.layer
