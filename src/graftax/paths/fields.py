"""The fields of an Equinox module: which are static, and what turns a value into what one holds.

Equinox keeps both in the metadata of the field, of which its documentation says nothing. Nobody else in
graftax looks there, and the test of this file says so by name when it changes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any


def is_static(field: dataclasses.Field[Any]) -> bool:
    """Whether a field is part of the structure, and no child."""
    return bool(field.metadata.get("static", False))


def converter_of(field: dataclasses.Field[Any]) -> Callable[[Any], Any] | None:
    """What a module calls on a value before it becomes this field."""
    return field.metadata.get("converter")


def _dynamic_fields(cls: Any, beside: str | None = None) -> tuple[str, ...]:
    """The names of the fields of an Equinox module that are pytree children, but for `beside`."""
    return tuple(f.name for f in dataclasses.fields(cls) if not is_static(f) and f.name != beside)


# With a type of its own: a class of modules that cannot be hashed looks unhashable itself to pyright.
dynamic_fields: Callable[..., tuple[str, ...]] = functools.lru_cache(maxsize=4096)(_dynamic_fields)
