"""To keep some positions along an axis of one layer: the protocol; the rules are in `axis_rules`."""

import functools
from collections.abc import Sequence, Set
from typing import Any

from ..structure.wrapper import Wrapper
from .index import Index
from .inner import computed_as, has_own_arrays

Axis = int | str | Sequence[int | str] | Set[int | str]
"""`"out"` or `"in"`: what a layer gives or is given; a number: an axis of its weight; or several."""


@functools.singledispatch
def take_from(layer: Any, axis: Axis, index: Index) -> Any:
    """The rule of `graftax.take` for one layer, by its type; register one for a layer of your own.

    A rule cuts every array that has the axis and sets every size that follows. It is not taken for
    a subclass with a field or a `__call__` of its own, of which it knows nothing.

    **Arguments:**

    - `layer`: the layer.
    - `axis`: as given to `graftax.take`.
    - `index`: `index.cut(array, axis)` is the array with the positions that stay; `index.of(size)`
        are these, on an axis of that length. `index.kept` and `index.count` are the blocks that stay
        and how many there were, or None.

    **Returns:**

    The smaller layer.

    **Raises:**

    - `ValueError`: it cannot be cut so; say why. `graftax.take` adds the path.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax, jax.numpy as jnp
    >>> class Scale(eqx.Module):
    ...     factor: jax.Array
    ...     def __call__(self, x):
    ...         return self.factor * x
    >>> @gx.take_from.register
    ... def _(layer: Scale, axis, index):
    ...     return gx.update(layer, factor=index.cut(layer.factor, 0))
    >>> model = gx.Chain(scale=Scale(jnp.arange(4.0)))
    >>> gx.take(model, {"scale": 0}, [1, 3]).scale.factor.tolist()
    [1.0, 3.0]

    ```
    """
    raise TypeError(f"no rule is registered for {type(layer).__name__}")


def rule_class(cls: type) -> type | None:
    """The class whose rule holds for `cls`, itself or the nearest base; None if there is none."""
    return next((base for base in cls.__mro__[:-1] if base in take_from.registry), None)


def cut_layer(layer: Any, axis: Axis, index: Index) -> Any:
    """The layer, or the one inside its wrappers, by its rule. Raises `ValueError` if none holds."""
    cls = rule_class(type(layer))
    if cls is None and isinstance(layer, Wrapper):
        if has_own_arrays(layer):
            raise ValueError(f"{type(layer).__name__} has arrays of its own; {_REGISTER}")
        return layer.tree_replace({0: cut_layer(layer.layer, axis, index)})
    if cls is None:
        raise ValueError(
            "it is no layer that take knows. Pick the layers with weights inside it, or arrays by their "
            f"number of axis; or {_REGISTER}"
        )
    if cls is not type(layer) and not issubclass(cls, computed_as(layer)):
        raise ValueError(
            f"it has a field or a call that {cls.__name__} has not, of which the rule for that knows "
            f"nothing; {_REGISTER}"
        )
    return take_from(layer, axis, index)


_REGISTER = "register a rule for its class, as in the documentation of graftax.take_from"


def sides(axis: Axis, names: Sequence[str | int]) -> tuple[Any, ...]:
    """The names of the axes meant, where `names` are those of the weight's axes in order.

    Raises `ValueError` for one that there is not.
    """
    wanted = axis if isinstance(axis, list | tuple) else (axis,)
    return tuple(dict.fromkeys(_side(each, names) for each in wanted))


def _side(axis: Any, names: Sequence[str | int]) -> str | int:
    is_number = isinstance(axis, int) and not isinstance(axis, bool)
    if is_number and 0 <= axis < len(names):
        return names[axis]
    if not is_number and axis in names:
        return axis
    known = ", ".join(str(i) if i == name else f"{i} or {name!r}" for i, name in enumerate(names))
    raise ValueError(f"it has no axis {axis!r}; its axes are {known}")


def named_sides(axis: Axis, names: Sequence[str]) -> tuple[str, ...]:
    """As `sides`, for a layer without a weight of its own, whose axes have no numbers."""
    wanted = axis if isinstance(axis, list | tuple) else (axis,)
    if unknown := [each for each in wanted if each not in names]:
        raise ValueError(
            f"it has no axis {unknown[0]!r}; its axes are {', '.join(map(repr, names))}"
        )
    return tuple(dict.fromkeys(str(each) for each in wanted))
