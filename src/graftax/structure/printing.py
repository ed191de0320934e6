"""How a child is printed inside its container."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import wadler_lindig as wl

from .labels import layer_name


def child_doc(label: object, child: Any, **kwargs: Any) -> wl.AbstractDoc:
    """`label=child`. A function is printed by its name: its address says nothing and changes."""
    if callable(child) and not isinstance(child, eqx.Module) and hasattr(child, "__name__"):
        doc = wl.TextDoc(layer_name(child))
    else:
        doc = wl.pdoc(child, **kwargs)
    return doc if label is None else wl.TextDoc(f"{label}=") + doc


def _same(value: Any, default: Any) -> bool:
    # Text is compared: what comes out of a pickle is equal, not identical.
    return value is default or (isinstance(value, str) and value == default)


def layer_doc(layer: Any, children: Sequence[tuple[object, Any]], **kwargs: Any) -> wl.AbstractDoc:
    """`Type(label=child, ..., field=value)`: the children, then the fields that are not as by default.

    `children` are what the field `layers` or `layer` holds; a label None prints no label.
    """
    docs = [child_doc(label, child, **kwargs) for label, child in children]
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name, field.default)
        hidden = _same(value, field.default) and kwargs.get("hide_defaults", True)
        if field.name not in ("layers", "layer") and not hidden:
            docs.append(child_doc(field.name, value, **kwargs))
    begin = wl.TextDoc(type(layer).__name__ + "(")
    return wl.bracketed(begin, docs, wl.comma, wl.TextDoc(")"), kwargs["indent"])
