"""What is known while one file is read: its names, tensors and parts. `decode` reads entries with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax

from .arrays import Stored, materialised
from .checks import MOST_LABELS
from .deep import Task
from .errors import FormatError
from .kinds import KINDS
from .names import Names
from .tensors import TensorFile

Entry = Mapping[str, Any]


class Reading:
    """One file that is read. Nothing in it is used twice: no part, and no tensor in two ways."""

    def __init__(self, names: Names, tensors: TensorFile):
        self.names = names
        self.tensors = tensors
        self.warnings: list[str] = []
        """What the caller should be told once all is read."""
        self.markers: dict[str, object] = {}
        """From the text that stands for a marker without a name to the marker."""
        self._labels: set[tuple[str, ...]] = set()
        self.ties = 0
        """How many ties stand around what is being read."""
        self.parts: list[Any] = []
        """Entries that were cut off from a structure too deep to be nested; None for those read."""
        self._spelled: dict[str, Entry] = {}
        self._made: dict[str, Any] = {}

    def child(self, entry: Any) -> Any:
        """The node that an entry inside another spells, or the task that makes it."""
        if isinstance(entry, dict):
            return KINDS.reader(frozenset(entry))(self, entry)
        if isinstance(entry, list):
            raise FormatError("a list stands where a node should")
        return entry

    def all(self, entries: Sequence[Any]) -> Task:
        """The task of reading several entries, for a list of nodes."""
        found = []
        for entry in entries:
            # What is no entry of its own kind stands for itself.
            plain = not isinstance(entry, dict | list)
            found.append(entry if plain else (yield self.child(entry)))
        return found

    def part(self, i: Any) -> Any:
        """A part that was cut off: each is read once, so none can hold itself."""
        if type(i) is not int or not 0 <= i < len(self.parts) or self.parts[i] is None:
            raise FormatError(f"there is no part {i!r} to put in, or it is put in twice")
        found, self.parts[i] = self.parts[i], None
        return self.child(found)

    def stored(self, entry: Entry) -> Stored:
        """An array that is still in the file. Raises `FormatError` if two entries read it differently."""
        name = entry["array"]
        if name not in self.tensors:
            raise FormatError(f"it holds no tensor {name!r}, which its structure asks for")
        if self._spelled.setdefault(name, entry) != entry:
            raise FormatError(f"its structure reads the tensor {name!r} in two ways")
        return Stored(entry)

    def known_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """These labels. Raises `FormatError` if the file has more sets of them than any model."""
        self._labels.add(tuple(labels))
        if len(self._labels) > MOST_LABELS:
            raise FormatError(f"it has more than {MOST_LABELS} different sets of labels")
        return tuple(labels)

    def module(self, name: Any) -> type:
        """The class of Equinox modules of this name. Raises `FormatError` if there is none."""
        cls = self.names.need(name, "a")
        if not isinstance(cls, type) or not issubclass(cls, eqx.Module):
            raise FormatError(f"{name!r} is no class of Equinox modules")
        return cls

    def filled(self, node: Any) -> Any:
        """The node with arrays where `Stored` stands. What is stored once is one object again."""
        return jax.tree.map(self._fill, node, is_leaf=_is_stored)

    def _fill(self, leaf: Any) -> Any:
        if not isinstance(leaf, Stored):
            return leaf
        name = leaf.entry["array"]
        if name not in self._made:
            self._made[name] = materialised(leaf.entry, self.tensors)
        return self._made[name]


def _is_stored(node: Any) -> bool:
    return isinstance(node, Stored)
