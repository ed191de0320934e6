"""Which layers say by the names of their arrays what they compute, and so can be exported.

A reader elsewhere knows names and nothing else. It opens `query.weight` of an adapted layer as the weight
of the layer, which is another model. What stands for another weight than the one it holds is refused.
"""

import functools
from typing import Any

import equinox as eqx

from ..operations.lora import LoRA
from ..operations.quantization import QuantizedLinear
from ..paths.errors import listed
from ..paths.search import search_all
from ..paths.tree import INNER, level_of
from ..structure.wrapper import Wrapper
from .errors import UnsavableError


@functools.singledispatch
def other_weights(layer: Any) -> str | None:
    """How a layer's weight is not the one it holds, and what to do; None if it is."""
    return None


@other_weights.register
def _(layer: LoRA) -> str | None:
    return "it adds a change to its weight. Merge it first: graftax.merge_lora(model)"


@other_weights.register
def _(layer: QuantizedLinear) -> str | None:
    return (
        "its weight is whole numbers of a scale. Export the model as it was before graftax.quantize, "
        "or graftax.save it (an adapter around it is merged by graftax.merge_lora)"
    )


@other_weights.register
def _(layer: eqx.nn.WeightNorm | eqx.nn.SpectralNorm) -> str | None:
    return (
        "it computes its weight anew at each call. Put the layer inside, with that weight, in its "
        "place, or graftax.save the model"
    )


@other_weights.register
def _(layer: Wrapper) -> str | None:
    level = level_of(layer)
    own = [
        key
        for key, child in zip(level.keys, level.children, strict=True)
        if key is not INNER and eqx.is_array(child)
    ]
    if not own:
        return None
    return (
        f"it changes what stands at its path by {listed(own)}. Put a layer without it in its place, or "
        "graftax.save the model"
    )


def check_exportable(model: Any) -> None:
    """Raise `UnsavableError`, with paths, for layers that compute with other weights than they hold."""
    found = search_all(model, lambda node: other_weights(node) is not None)
    if found:
        first = found[0].node
        alike = [repr(match.path) for match in found if type(match.node) is type(first)]
        raise UnsavableError(
            f"Under its names, another library would read another model: {listed(alike)} is a "
            f"{type(first).__name__}, and {other_weights(first)}."
        )
