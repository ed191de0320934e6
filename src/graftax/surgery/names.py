"""The names that edits give to values of a state."""

from collections.abc import Container, Iterable
from typing import Any


class Name(str):
    """The marker of a layer that an edit brought in or copied: where it was put, and what it was before.

    It is a function of the edit, so that the same edit done twice gives equal models, which one compiled
    function serves; but for names of layers that were removed meanwhile, which are left out. All that
    tells one such layer from another is in the text, because `jit` gives back, of two equal markers, the
    one that it saw first.
    """

    origin: Any
    """The marker before: a name in another model, or in this one, or the `object()` of a new layer."""
    copied: bool
    """Whether the origin is a layer of the same model."""

    @classmethod
    def make(cls, path: str, origin: Any, copied: bool, taken: Container[Any]) -> "Name":
        """A name that is not taken, nor was that of a layer that an edit removed."""
        history = f", {'copy of' if copied else 'from'} {origin}" if isinstance(origin, str) else ""
        n = 1
        while (text := f"{path}#{n}{history}") in taken or (text in removed and text in in_states):
            n += 1
        name = cls(text)
        name.origin, name.copied = origin, copied
        return name


class Held:
    """The marker of a layer while an edit has it in hand: equal to the marker, but known again.

    So `state.get` works with it, and what an edit makes of the layer is told from what it brings in.
    """

    def __init__(self, name: Any, own: bool):
        self.name: Any = name
        self.own: bool = own

    def __eq__(self, other: object) -> bool:
        # Two edits must not be the same to the cache of a jitted function: it would give back the
        # marker that it saw first, and with it whether the layer is of this model.
        return self is other if isinstance(other, Held) else self.name == other

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return repr(self.name)


class _Recent:
    """The names noted last. Only which name comes next hangs on it, never what a model computes."""

    most = 65_536

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def note(self, markers: Iterable[Any]) -> None:
        names = (each for each in markers if isinstance(each, str) and "#" in each)
        self._names.update(dict.fromkeys(names))
        for oldest in list(self._names)[: max(0, len(self._names) - self.most)]:
            del self._names[oldest]

    def __contains__(self, name: str) -> bool:
        return name in self._names


# After `remove`, nothing in the model says that a layer was there, but a state may still hold its values.
# A layer put in its place must not get them, and so not its name. Names that no state ever knew are free.
in_states: _Recent = _Recent()
removed: _Recent = _Recent()
