"""Running statistics that a model holds itself, lent to one call in inference mode."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax

from ..paths.tree import level_of
from ..structure.above import Above
from ..structure.labels import layer_name
from .inference import mode_of
from .state import check_markers, index_leaves, is_index, is_taken


def held_state(layer: Any, inference: Any = None) -> eqx.nn.State | None:
    """The state with the values that a layer holds itself, if in inference mode it needs no other.

    `inference` is what the call says of the mode, which overrules the layer.

    None if it keeps no state, if any value was taken out of it, or if any is held by a part that is in
    training mode or knows no modes. The values get no gradient: `eqx.filter_grad` tells parameters by
    their dtype, and would train them too.
    """
    found = index_leaves(layer)
    modes = [inference] if isinstance(inference, bool) else _modes_of_indices(layer, False)
    if not found or any(map(is_taken, found)) or not all(modes):
        return None
    check_markers(layer)
    return jax.tree.map(jax.lax.stop_gradient, eqx.nn.State(layer))


def _modes_of_indices(node: Any, mode: bool) -> Iterator[bool]:
    """For each index, whether the nearest node around it that has a mode is in inference mode."""
    if is_index(node):
        yield mode
        return
    own = mode_of(node)
    for child in level_of(node).children:
        yield from _modes_of_indices(child, mode if own is None else own)


def with_held_state(
    layer: Any, run: Callable[[eqx.nn.State], tuple[Any, Any]], inference: Any = None
) -> Any:
    """The output of a layer that is called without a state: `run` calls it with what it holds itself.

    Raises `TypeError` if it holds nothing, or if the call would change what it holds, as in training.
    """
    state = held_state(layer, inference)
    if state is None:
        raise TypeError(f"{layer_name(layer)} {_remedy(layer)}")
    lent = jax.tree.leaves(state)
    output, after = run(state)
    given_back = jax.tree.leaves(after)
    # By identity: in a trace there are no numbers to compare.
    if len(lent) != len(given_back) or any(
        a is not b for a, b in zip(lent, given_back, strict=True)
    ):
        raise TypeError(f"{layer_name(layer)} {_remedy(layer)}")
    return output


def _remedy(layer: Any) -> str:
    if any(map(is_taken, index_leaves(layer))):
        return (
            "keeps a state: call the model as model(x, state=state), with the state that "
            "eqx.nn.make_with_state gave."
        )
    return (
        "keeps a state: call the model as model(x, state=state), after model, state = "
        "eqx.nn.make_with_state(lambda: model)(). Its running statistics are still in the model, and this "
        "call would change them; in inference mode, eqx.nn.inference_mode(model), none is needed."
    )


# A call asks these, see `structure.above`.
Above.held_state = staticmethod(held_state)
Above.with_held_state = staticmethod(with_held_state)
