"""The calling convention: what a layer is given by the container that holds it.

One place decides, for containers and wrappers alike, who gets the state, the key and the keywords.
"""

import itertools
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from inspect import signature
from typing import Any, TypeGuard

import equinox as eqx
import jax

from ..paths.errors import did_you_mean, listed
from ..paths.tree import shallow_copy
from .labels import layer_name
from .notes import annotate
from .signature import signature_of


def fold_key(key: Any, label: Hashable) -> Any:
    """The random key of the child `label`: `fold_in(key, crc32(label))`, or the position itself.

    It depends on the label alone, so a layer that is added does not change what the others draw.
    """
    data = label if isinstance(label, int) else zlib.crc32(str(label).encode())
    return jax.random.fold_in(key, data)


def again_key(key: Any, label: Hashable, i: int) -> Any:
    """The key of a container for call `i` of its child `label`, where it calls that child again.

    The first call is as if it were the only one.
    """
    return key if key is None or i == 0 else fold_key(fold_key(key, label), i)


# What `eqx.nn.Sequential` hands to its stateful layers if it was given no state itself.
_NO_STATE = signature(eqx.nn.Sequential.__call__).parameters["state"].default


def is_stateful(layer: Any) -> bool:
    """Whether a layer is called with a state and returns one: as Equinox says, or if it declares it."""
    if isinstance(layer, eqx.nn.StatefulLayer):
        return type(layer).is_stateful(layer)
    return callable(layer) and "state" in signature_of(layer).keywords


def declared_keywords(layer: Any, inputs: int = 1) -> frozenset[str] | None:
    """The context keywords that a layer, or one at any depth inside it, takes; None for all.

    `inputs` is how many arguments it is given by position: these are no keywords.
    """
    own = getattr(type(layer), "_gx_declared", None)
    if own is not None:
        return own(layer)
    if not callable(layer):
        return frozenset()
    if _is_sequential(layer):
        return declared_by_any(layer.layers)
    signature = signature_of(layer)
    if signature.any_keyword:
        return None
    taken = signature.positional[:inputs]
    return signature.keywords.difference(taken, ("key", "state"))


def declared_by_any(
    layers: Iterable[Any], inputs: Iterable[int] = itertools.repeat(1)
) -> frozenset[str] | None:
    """The union of `declared_keywords` over some layers, each given so many inputs."""
    union: frozenset[str] = frozenset()
    for layer, count in zip(layers, inputs, strict=False):
        keywords = declared_keywords(layer, count)
        if keywords is None:
            return None
        union |= keywords
    return union


def overridden_call_keywords(cls: type, base: type) -> frozenset[str]:
    """The keywords a subclass adds by writing its own `__call__`."""
    call = cls.__call__
    if call is base.__call__:
        return frozenset()
    return signature_of(call).keywords - {"x", "key", "state"}


def check_context(layer: Any, context: Mapping[str, Any]) -> None:
    """Raise `TypeError` for a keyword that nobody at any depth declares."""
    if not context or (declared := declared_keywords(layer)) is None:
        return
    for keyword in context:
        if keyword not in declared:
            raise TypeError(
                f"No layer of this {layer_name(layer)} takes the keyword {keyword!r}. "
                f"Declared are: {listed(sorted(declared | {'key', 'state'}))}."
                + did_you_mean(keyword, declared)
            )


def _declared_of(context: Mapping[str, Any], layer: Any, inputs: int = 1) -> dict[str, Any]:
    """The keywords among these that a layer, or one at any depth inside it, declares."""
    declared = declared_keywords(layer, inputs)
    return {k: v for k, v in context.items() if declared is None or k in declared}


def _is_sequential(layer: Any) -> TypeGuard[eqx.nn.Sequential]:
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


def _in_context(layer: Any, context: Mapping[str, Any]) -> Any:
    keywords = _declared_of(context, layer)
    if not keywords:
        return layer
    if _is_sequential(layer):
        return shallow_copy(layer, layers=tuple(_in_context(x, keywords) for x in layer.layers))
    return _InContext(layer, keywords)


def call_layer(
    layer: Callable, inputs: tuple, state: Any, key: Any, context: Mapping[str, Any]
) -> tuple[Any, Any]:
    """`(output, state)` of a layer that is given what it takes of state, key and context."""
    if not callable(layer):
        raise TypeError(f"{layer!r} of type {type(layer).__name__} stands where a layer should.")
    keywords = _declared_of(context, layer, len(inputs)) if context else {}
    if keywords and _is_sequential(layer):
        layer, keywords = _in_context(layer, keywords), {}
    if key is not None and signature_of(layer).takes("key", len(inputs)):
        keywords["key"] = key
    if is_stateful(layer):
        if state is not None and state is not _NO_STATE:
            return layer(*inputs, state=state, **keywords)
        if "state" in signature_of(layer).required:
            raise TypeError(
                f"{layer_name(layer)} keeps a state: call the model as model(x, state=state), with "
                "the state that eqx.nn.make_with_state gave."
            )
    return layer(*inputs, **keywords), state


def call_child(
    parent: Any,
    label: Hashable,
    layer: Callable,
    inputs: tuple,
    state: Any,
    key: Any,
    context: Mapping[str, Any],
) -> tuple[Any, Any]:
    """`call_layer` for a child: with its own key, in its own scope, and with a note on an error."""
    # Folding costs a little time in tracing: it is not done for those who take no key.
    takes_key = key is not None and signature_of(layer).takes("key", len(inputs))
    key = fold_key(key, label) if takes_key else None
    try:
        with jax.named_scope(str(label)):
            return call_layer(layer, inputs, state, key, context)
    except Exception as error:
        annotate(error, parent, label, layer, inputs)
        raise


def split_inputs(owner: str, inputs: tuple, state: Any) -> tuple[Any, Any]:
    """`(x, state)`: a state may come last, as Equinox passes it, and several inputs are one tuple."""
    if inputs and isinstance(inputs[-1], eqx.nn.State):
        if state is not None:
            raise TypeError(f"{owner} was given a state twice: by position and by keyword.")
        *rest, state = inputs
        inputs = tuple(rest)
    if not inputs:
        raise TypeError(f"{owner} was called without an input.")
    return (inputs[0] if len(inputs) == 1 else inputs), state
