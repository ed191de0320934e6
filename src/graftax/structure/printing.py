"""How a child is printed inside its container."""

import dataclasses
from collections.abc import Iterator, Sequence
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


Child = tuple[object, Any]
"""A label, or None for one that prints none; and what stands there."""


def layer_doc(layer: Any, children: Sequence[Child], held: str, **kwargs: Any) -> wl.AbstractDoc:
    """`Type(label=child, ..., field=value)`: the children, then the fields that are not as by default.

    `held` are the names of the fields that the children stand in, which do not show.
    """
    hide_defaults = kwargs.get("hide_defaults", True)
    shown = [*children, *_fields(layer, held.split(), hide_defaults)]
    docs = [child_doc(label, child, **kwargs) for label, child in shown]
    begin = wl.TextDoc(type(layer).__name__ + "(")
    return wl.bracketed(begin, docs, wl.comma, wl.TextDoc(")"), kwargs["indent"])


def _fields(layer: Any, held: Sequence[str], hide_defaults: bool) -> Iterator[Child]:
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name, field.default)
        if field.name not in held and not (hide_defaults and _same(value, field.default)):
            yield field.name, value


def treescope_of(layer: Any, children: Sequence[Child], held: str, path: Any, render: Any) -> Any:
    """What `layer_doc` prints, as treescope shows it: foldable, each child with its path."""
    # Only treescope asks, so it is there.
    from treescope import rendering_parts as parts

    def line(label: object, child: Any, place: str) -> Any:
        name = "" if label is None else f"{label}="
        inside = render(child, path=None if path is None else f"{path}{place}")
        return parts.siblings_with_annotations(name, inside)

    # What a wrapper wraps is reached through it: it has the path of the wrapper.
    is_wrapper = held.split()[0] == "layer"
    places = [
        f".{label}" if label is not None else "" if is_wrapper and i == 0 else f"[{i}]"
        for i, (label, _) in enumerate(children)
    ]
    lines = [line(*child, place) for child, place in zip(children, places, strict=True)]
    lines += [line(name, value, f".{name}") for name, value in _fields(layer, held.split(), True)]
    more = parts.siblings(",", parts.fold_condition(collapsed=parts.text(" ")))
    last = parts.fold_condition(expanded=parts.text(","))
    ends = [*[more] * (len(lines) - 1), last][: len(lines)]
    lines = list(map(parts.build_full_line_with_annotations, lines, ends))
    begin = parts.siblings(parts.maybe_qualified_type_name(type(layer)), "(")
    return parts.build_foldable_tree_node_from_children(begin, lines, suffix=")", path=path)
