"""Other values for the fields of one node, static ones included."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx

from ..paths.errors import did_you_mean, listed
from ..paths.fields import converter_of
from ..paths.tree import INNER, level_of, replaced, shallow_copy
from ..structure.base import StructuralLayer
from ..structure.labels import as_layers


def update(node: Any, /, **fields: Any) -> Any:
    """The node with other values in some fields, static fields such as `stride` included.

    Labels are fields, and a wrapper passes on what is not its own. Converters and `__check_init__`
    of an Equinox module run as at its construction; `__init__` does not.

    **Arguments:**

    - `node`: an Equinox module, a container, a NamedTuple, a dataclass or a dict.
    - `fields`: the new values.

    **Returns:**

    A node of the same type.

    **Raises:**

    - `AttributeError`: it has no such field; names the fields there are and the nearest one.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> conv = eqx.nn.Conv2d(3, 8, 3, key=jax.random.key(0))
    >>> gx.update(conv, stride=(2, 2)).stride
    (2, 2)

    ```
    """
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
    changed = copy.copy(node)
    changed.update(mine)
    return changed


def _own_fields(node: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(node):
        names = tuple(f.name for f in dataclasses.fields(node))
        return names + (node.labels if isinstance(node, StructuralLayer) else ())
    if isinstance(node, Mapping):
        return tuple(key for key in node if isinstance(key, str))
    return getattr(node, "_fields", ())


def _update_inner(node: Any, fields: dict[str, Any], own: tuple[str, ...]) -> Any:
    level = level_of(node)
    if level.keys and level.keys[0] is INNER:
        return replaced(node, {0: update(level.children[0], **fields)})
    name = next(iter(fields))
    raise AttributeError(
        f"{type(node).__name__} has no field {name!r}. Its fields are: {listed(own)}."
        + did_you_mean(name, own)
    )


def _updated_module(node: Any, fields: dict[str, Any]) -> Any:
    if isinstance(node, StructuralLayer):
        layers: Any = node.layers
        if "layers" in fields:
            layers = as_layers(type(node), (fields["layers"],), {})
        labelled = {name: value for name, value in fields.items() if name in node.labels}
        fields = {name: value for name, value in fields.items() if name not in labelled}
        fields["layers"] = layers._replace(**labelled) if labelled else layers
    converters = {f.name: converter_of(f) for f in dataclasses.fields(node)}
    new = shallow_copy(
        node, **{k: convert(v) if (convert := converters[k]) else v for k, v in fields.items()}
    )
    if isinstance(new, StructuralLayer):
        new._check()
    for cls in type(node).__mro__:
        if "__check_init__" in cls.__dict__:
            cls.__dict__["__check_init__"](new)
    return new
