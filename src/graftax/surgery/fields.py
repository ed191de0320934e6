"""Other values for the fields of one node, static ones included."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import equinox as eqx

from ..paths.errors import did_you_mean, listed
from ..paths.fields import converter_of
from ..paths.tree import INNER, level_of, shallow_copy, with_children
from ..structure.base import StructuralLayer
from ..structure.labels import as_layers
from ..structure.node import Node
from .forms import in_form
from .markers import settle_markers
from .state import has_state, is_index

M = TypeVar("M")


def update(node: M, /, **fields: Any) -> M:
    """The node with other values in some fields, static fields such as `stride` included.

    Fields of Equinox's layers take the form that their constructor gives them: `stride=2` becomes
    `(2, 2)`. What follows from arrays is set along (`out_features` after another weight), and what
    contradicts is refused. Labels are fields, and a wrapper passes on what is not its own. Converters
    and `__check_init__` of any Equinox module run as at its construction; the `__init__` of a class
    of your own does not. A layer with state that comes from elsewhere has a state of its own, as in any
    edit: `graftax.extend_state`.

    **Arguments:**

    - `node`: an Equinox module, a container, a NamedTuple, a dataclass or a dict.
    - `fields`: the new values.

    **Returns:**

    A node of the same type.

    **Raises:**

    - `AttributeError`: it has no such field; names the fields there are and the nearest one.
    - `ValueError`: a value that the constructor refuses, or fields that contradict each other, such
        as a `bias` of three for a `weight` of four rows: with both shapes.
    - `TypeError`: what is no layer, for a layer of a container.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> conv = eqx.nn.Conv2d(3, 8, 3, key=jax.random.key(0))
    >>> gx.update(conv, stride=2, padding=1).padding
    ((1, 1), (1, 1))
    >>> linear = eqx.nn.Linear(3, 8, use_bias=False, key=jax.random.key(0))
    >>> gx.update(linear, weight=linear.weight[:5]).out_features
    5

    ```
    """
    new = _updated(node, fields)
    # An index among the fields is one of the node's own, with another value.
    layers = [value for value in fields.values() if not is_index(value)]
    return settle_markers(node, new) if any(map(has_state, layers)) else new


def _updated(node: Any, fields: dict[str, Any]) -> Any:
    own = _own_fields(node)
    inner = {name: value for name, value in fields.items() if name not in own}
    mine = {name: value for name, value in fields.items() if name in own}
    if inner:
        node = _update_inner(node, inner, own)
    if not mine:
        return node
    if isinstance(node, eqx.Module):
        return _updated_module(node, mine)
    if dataclasses.is_dataclass(node):
        return dataclasses.replace(node, **mine)  # pyright: ignore[reportArgumentType]
    if isinstance(node, tuple):
        return node._replace(**mine)  # pyright: ignore[reportAttributeAccessIssue]
    changed: Any = copy.copy(node)
    changed.update(mine)
    return changed


def _own_fields(node: Any) -> tuple[str, ...]:
    if isinstance(node, Node):
        names = [key for key in type(node).tree_level(node).keys if isinstance(key, str)]
        return tuple(dict.fromkeys([*(f.name for f in dataclasses.fields(node)), *names]))
    if dataclasses.is_dataclass(node):
        return tuple(f.name for f in dataclasses.fields(node))
    if isinstance(node, Mapping):
        return tuple(key for key in node if isinstance(key, str))
    return getattr(node, "_fields", ())


def _update_inner(node: Any, fields: dict[str, Any], own: tuple[str, ...]) -> Any:
    level = level_of(node)
    if level.keys and level.keys[0] is INNER:
        return with_children(node, {0: _updated(level.children[0], fields)})
    name = next(iter(fields))
    raise AttributeError(
        f"{type(node).__name__} has no field {name!r}. Its fields are: {listed(own)}."
        + did_you_mean(name, own)
    )


def _updated_module(node: Any, fields: dict[str, Any]) -> Any:
    """An Equinox module with other fields: converted, in form and checked as at its construction."""
    if isinstance(node, Node):
        return _checked(_updated_node(node, fields))
    return _checked(in_form(node, shallow_copy(node, **_converted(node, fields)), fields))


def _updated_node(node: Any, fields: dict[str, Any]) -> Any:
    """A container or wrapper: its labels are fields, and what gives way to a layer must be one."""
    fields = _converted(node, fields)
    if isinstance(node, StructuralLayer) and "layers" in fields:
        node = shallow_copy(node, layers=as_layers(type(node), (fields.pop("layers"),), {}))
    level = level_of(node)
    names = ["layer" if key is INNER else str(key) for key in level.keys]
    children = {i: fields[name] for i, name in enumerate(names) if name in fields}
    node = with_children(node, children)
    static = {name: value for name, value in fields.items() if name not in names}
    changed = shallow_copy(node, **static)
    if isinstance(changed, StructuralLayer):
        changed._check()
        return changed
    return in_form(node, changed, static)


def _converted(node: Any, fields: dict[str, Any]) -> dict[str, Any]:
    converters = {f.name: converter_of(f) for f in dataclasses.fields(node)}
    return {k: convert(v) if (convert := converters.get(k)) else v for k, v in fields.items()}


def _checked(module: Any) -> Any:
    for cls in type(module).__mro__:
        if "__check_init__" in cls.__dict__:
            cls.__dict__["__check_init__"](module)
    return module
