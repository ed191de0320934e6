"""What is known while one file is read: its names, tensors and parts. `decode` reads entries with it."""

from collections.abc import Mapping, Sequence
from types import GeneratorType
from typing import Any

import equinox as eqx
import jax

from .arrays import Stored, materialised
from .checks import MOST_LABELS, MOST_LEVELS, levels
from .deep import Task
from .errors import FormatError
from .kinds import KINDS
from .names import Names
from .tensors import TensorFile

Entry = Mapping[str, Any]


class Reading:
    """One file that is read. Nothing in it is used twice: no part, and no tensor in two ways."""

    def __init__(self, names: Names, tensors: TensorFile, lazy: bool = False):
        self.names = names
        self.tensors = tensors
        self.warnings: list[str] = []
        """What the caller should be told once all is read."""
        self.markers: dict[str, object] = {}
        """From the text that stands for a marker without a name to the marker."""
        self._labels: set[tuple[str, ...]] = set()
        self.ties = 0
        """How many ties stand around what is being read."""
        self._now = 0 if lazy else 1
        self.parts: list[Any] = []
        """Entries that were cut off from a structure too deep to be nested; None for those read."""
        self._depth = 0
        self._spelled: dict[str, Entry] = {}
        self._made: dict[str, Any] = {}

    def child(self, entry: Any) -> Any:
        """The node that an entry inside another spells, or the task that makes it."""
        if isinstance(entry, dict):
            found = KINDS.reader(frozenset(entry))(self, entry)
            return self._inside(found, entry) if isinstance(found, GeneratorType) else found
        if isinstance(entry, list):
            raise FormatError("a list stands where a node should")
        return entry

    def _inside(self, task: Task, entry: Entry) -> Task:
        self._depth += _levels(entry)
        if self._depth > MOST_LEVELS:
            raise FormatError(f"it is nested more than {MOST_LEVELS} levels deep")
        found = yield task
        self._depth -= _levels(entry)
        return found

    def all(self, entries: Sequence[Any], now: bool = False) -> Task:
        """The task of reading several entries, for a list of nodes.

        With `now`, arrays in them are read even of a lazy file: for places that JAX does not look into,
        where `filled` would not find them.
        """
        found = []
        self._now += now
        for entry in entries:
            # What is no entry of its own kind stands for itself.
            plain = not isinstance(entry, dict | list)
            found.append(entry if plain else (yield self.child(entry)))
        self._now -= now
        return found

    def part(self, i: Any) -> Any:
        """A part that was cut off: each is read once, so none can hold itself."""
        if type(i) is not int or not 0 <= i < len(self.parts) or self.parts[i] is None:
            raise FormatError(f"there is no part {i!r} to put in, or it is put in twice")
        found, self.parts[i] = self.parts[i], None
        return self.child(found)

    def array(self, entry: Entry) -> Any:
        """The array of an entry, `Stored` if it is for later.

        Raises `FormatError` if two entries read a tensor differently: each is made once.
        """
        name = entry["array"]
        if name not in self.tensors:
            raise FormatError(f"it holds no tensor {name!r}, which its structure asks for")
        if self._spelled.setdefault(name, entry) != entry:
            raise FormatError(f"its structure reads the tensor {name!r} in two ways")
        return self._array(entry) if self._now else Stored(entry)

    def _array(self, entry: Entry) -> Any:
        name = entry["array"]
        if name not in self._made:
            self._made[name] = materialised(entry, self.tensors)
        return self._made[name]

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
        """A node that was read lazily, with its arrays. What is stored once is one object again."""
        fill = lambda leaf: self._array(leaf.entry) if isinstance(leaf, Stored) else leaf
        return jax.tree.map(fill, node)


def _levels(entry: Entry) -> int:
    return 0 if "part" in entry else levels("layers" in entry)
