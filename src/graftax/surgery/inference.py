"""The `inference` mode that layers have, and that a layer takes on in the model it joins."""

import functools
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax

from ..paths.edit import Edit, edited
from ..paths.tree import any_type, level_of, nodes_of, shallow_copy, values_of
from .state import is_index


@functools.lru_cache(maxsize=4096)
def has_mode(cls: Any) -> bool:
    """Whether layers of this type have a mode."""
    return issubclass(cls, eqx.Module) and "inference" in cls.__dataclass_fields__


def mode_of(node: Any) -> bool | None:
    """The mode of one node itself; None if it has none."""
    mode = values_of(node).get("inference") if has_mode(type(node)) else None
    return mode if isinstance(mode, bool) else None


def _layers_with_mode(tree: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    return ((address, node) for address, node in nodes_of(tree) if mode_of(node) is not None)


def keeps_statistics(layer: Any) -> bool:
    """Whether the mode of a layer is that of its running statistics, as in BatchNorm: frozen or not.

    A layer within that has a mode of its own keeps its own.
    """
    pending = list(level_of(layer).children)
    for node in pending:
        if is_index(node):
            return True
        if mode_of(node) is None:
            pending.extend(level_of(node).children)
    return False


def _with_mode(tree: Any, mode: bool, only_statistics: bool = False) -> Any:
    edits: dict[tuple[int, ...], Edit] = {
        address: lambda node: shallow_copy(node, inference=mode)
        for address, layer in _layers_with_mode(tree)
        if keeps_statistics(layer) or not only_statistics
    }
    return edited(tree, edits)


class InferenceMode:
    """The `inference` mode that the layers of a model agree on; looked up once, and only if needed.

    BatchNorms are frozen in models that train, to keep the statistics of the larger data they were
    trained on. So where all that is in inference mode keeps statistics, that says nothing of a Dropout.
    """

    def __init__(self, model: Any):
        self._model = model

    @functools.cached_property
    def _layers(self) -> list[Any]:
        return [layer for _, layer in _layers_with_mode(self._model)]

    @functools.cached_property
    def agreed(self) -> bool | None:
        """The mode; None if the layers differ or none has one."""
        modes = {mode_of(layer) for layer in self._layers}
        return modes.pop() if len(modes) == 1 else None

    @functools.cached_property
    def _is_only_frozen(self) -> bool:
        return self.agreed is True and all(map(keeps_statistics, self._layers))

    def given_to(self, new: Any, old: Any) -> Any:
        """`new` in the mode of the model. Where only the mode of `old` was changed, that was meant."""
        if not any_type(new, has_mode) or self.agreed is None or _same_but_mode(old, new):
            return new
        return _with_mode(new, self.agreed, only_statistics=self._is_only_frozen)


def _same_but_mode(old: Any, new: Any) -> bool:
    before, after = jax.tree.flatten(_with_mode(old, True)), jax.tree.flatten(_with_mode(new, True))
    return before[1] == after[1] and all(a is b for a, b in zip(before[0], after[0], strict=True))
