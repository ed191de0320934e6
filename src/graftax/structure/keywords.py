"""Who takes which keyword of a call: asked once, at the door, for the whole model."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

import equinox as eqx

from ..paths.errors import did_you_mean, listed
from ..paths.tree import INNER, level_of, shallow_copy
from .labels import layer_name
from .signature import is_binary, signature_of


class Takers(NamedTuple):
    """The keywords that a layer takes, itself or at any depth inside, and the same of each child."""

    keywords: frozenset[str] | None
    """None: it takes every keyword."""
    inside: Mapping[Hashable, "Takers"]
    """By the label or position of the child; `INNER` is what a wrapper wraps."""

    def checked(self, node: Any, context: Iterable[str]) -> "Takers":
        """Itself. Raises `TypeError` for a keyword that nobody at any depth takes."""
        if self.keywords is None:
            return self
        for keyword in context:
            if keyword not in self.keywords:
                raise TypeError(
                    f"No layer of this {layer_name(node)} takes the keyword {keyword!r}. "
                    f"Declared are: {listed(sorted(self.keywords | {'key', 'state'}))}."
                    + did_you_mean(keyword, self.keywords)
                )
        return self

    def of(self, label: Hashable, layer: Any, inputs: int) -> "Takers":
        """Those of a child; read now if the node runs something that it does not hold."""
        known = self.inside.get(label)
        return takers_of(layer, inputs) if known is None else known

    def among(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords of a context that are taken here."""
        if self.keywords is None:
            return dict(context)
        return {name: value for name, value in context.items() if name in self.keywords}


def takers_of(layer: Any, inputs: int = 1) -> Takers:
    """Who takes what in a layer that is given so many inputs by position. O(number of nodes)."""
    if hasattr(type(layer), "runs_by_record"):
        return _takers_in_node(layer, inputs)
    if is_sequential(layer):
        inside: dict[Hashable, Takers] = {i: takers_of(each) for i, each in enumerate(layer.layers)}
        return Takers(_union(inside.values()), inside)
    return Takers(signature_of(layer).context_of(inputs) if callable(layer) else frozenset(), {})


def _takers_in_node(node: Any, inputs: int) -> Takers:
    level = level_of(node)
    inside = {}
    for key, child in zip(level.keys, level.children, strict=True):
        if callable(child):
            count = inputs if key is INNER else 2 if key == "op" and is_binary(child) else 1
            inside[key] = takers_of(child, count)
    keywords = _union(inside.values())
    if not type(node).runs_by_record and keywords is not None:
        keywords |= signature_of(node).keywords - {"x", "key", "state"}
    return Takers(keywords, inside)


def _union(takers: Iterable[Takers]) -> frozenset[str] | None:
    found: set[str] = set()
    for each in takers:
        if each.keywords is None:
            return None
        found |= each.keywords
    return frozenset(found)


def is_sequential(layer: Any) -> TypeGuard[eqx.nn.Sequential]:
    """Whether it runs its layers as `eqx.nn.Sequential` does, whose call takes no other keywords."""
    cls = eqx.nn.Sequential
    return isinstance(layer, cls) and type(layer).__call__ is cls.__call__


class _InContext(eqx.nn.StatefulLayer):
    """A layer of an `eqx.nn.Sequential` with the keywords that its call cannot hand on."""

    layer: Any
    keywords: dict[str, Any]

    def __init__(self, layer: Any, keywords: dict[str, Any]):
        self.layer, self.keywords = layer, keywords

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        return self.layer(*inputs, **keywords, **self.keywords)

    def is_stateful(self) -> bool:
        return isinstance(self.layer, eqx.nn.StatefulLayer) and self.layer.is_stateful()


def add_context(
    layer: Any, keywords: dict[str, Any], takers: Takers | None
) -> tuple[Any, dict[str, Any]]:
    """`(layer, keywords)` to call: keywords that a `Sequential` cannot pass on are bound inside it."""
    if not keywords or takers is None or not is_sequential(layer):
        return layer, keywords
    bound = [_bound(each, keywords, takers.inside[i]) for i, each in enumerate(layer.layers)]
    return shallow_copy(layer, layers=tuple(bound)), {}


def _bound(layer: Any, context: Mapping[str, Any], takers: Takers) -> Any:
    layer, keywords = add_context(layer, takers.among(context), takers)
    return _InContext(layer, keywords) if keywords else layer
