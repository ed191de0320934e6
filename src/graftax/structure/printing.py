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


def layer_doc(layer: Any, children: Sequence[tuple[object, Any]], **kwargs: Any) -> wl.AbstractDoc:
    """`Type(label=child, ..., field=value)`: the children, then the fields that are not as by default.

    `children` are what the field `layers` or `layer` holds; a label None prints no label.
    """
    docs = [child_doc(label, child, **kwargs) for label, child in children]
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name, field.default)
        if field.name not in ("layers", "layer") and value is not field.default:
            docs.append(child_doc(field.name, value, **kwargs))
    begin = wl.TextDoc(type(layer).__name__ + "(")
    return wl.bracketed(begin, docs, wl.comma, wl.TextDoc(")"), kwargs["indent"])
