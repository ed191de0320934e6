"""The `inference` mode that layers have, and that a layer takes on in the model it joins."""

import functools
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax

from ..paths.edit import edited
from ..paths.search import search_all
from ..paths.tree import any_type, kind_of, shallow_copy, values_of


@functools.lru_cache(maxsize=4096)
def has_mode(cls: Any) -> bool:
    return issubclass(cls, eqx.Module) and "inference" in cls.__dataclass_fields__


def _is_mode(node: Any) -> bool:
    return has_mode(type(node)) and isinstance(values_of(node).get("inference"), bool)


def _modes(tree: Any) -> Iterator[bool]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if _is_mode(node):
            yield node.inference
        if (kind := kind_of(type(node))) is not None:
            pending.extend(kind.level(node).children)


def _with_mode(tree: Any, mode: bool) -> Any:
    matches = search_all(tree, _is_mode)
    return edited(
        tree, {m.address: lambda node: shallow_copy(node, inference=mode) for m in matches}
    )


class InferenceMode:
    """The `inference` mode that the layers of a model agree on; looked up once, and only if needed."""

    def __init__(self, model: Any):
        self._model = model
        self._agreed: bool | None = None
        self._known = False

    def agreed(self) -> bool | None:
        """The mode; None if the layers differ or none has one."""
        if not self._known:
            modes = set(_modes(self._model))
            self._agreed = modes.pop() if len(modes) == 1 else None
            self._known = True
        return self._agreed

    def given_to(self, new: Any, old: Any) -> Any:
        """`new` in the mode of the model. Where only the mode of `old` was changed, that was meant."""
        if not any_type(new, has_mode) or self.agreed() is None or _same_but_mode(old, new):
            return new
        return _with_mode(new, bool(self.agreed()))


def _same_but_mode(old: Any, new: Any) -> bool:
    before, after = jax.tree.flatten(_with_mode(old, True)), jax.tree.flatten(_with_mode(new, True))
    same = before[1] == after[1] and all(a is b for a, b in zip(before[0], after[0], strict=True))
    return same
