"""What is collected while a model is written. `encode` makes the entries with it.

Which arrays are the same is decided in `graftax.surgery.same`: what stands in several places as one object
is stored once and comes back as one. Equal arrays are two, and so is each slice of a stacked array.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np

from ..paths.search import Match, search_all
from ..paths.tree import nodes_of
from ..surgery.same import identity
from ..surgery.state import marker_of
from . import arrays
from .checks import MOST_LABELS, MOST_LEVELS
from .errors import UnsavableError, Unstorable
from .names import full_name, name_of, public_name
from .tensors import METADATA


def refused(path: str, why: str) -> UnsavableError:
    """What to raise for something that a file cannot hold. `why` goes on after its path."""
    return UnsavableError(f"{path!r} {why}." if path else f"The model {why}.")


class Collected:
    """What a model holds besides its structure: arrays, names, markers. One for each file."""

    def __init__(self) -> None:
        self.markers: dict[Any, str] = {}
        self.places: dict[str, str] = {}
        """From the text that stands for a marker to the path of its first index."""
        self.named: dict[str, Any] = {}
        """Classes and functions that a reader has to be handed, by full name."""
        # The arrays themselves: an id stays taken only as long as its array lives.
        self._sources: dict[str, Any] = {}
        self._paths: dict[Hashable, Match] = {}
        self._entries: dict[Hashable, dict[str, Any]] = {}
        self.parts: list[Any] = []
        """Entries that were cut off, innermost first: JSON is not read at any depth."""
        self._labels: set[tuple[str, ...]] = set()
        self.depth = 0
        self.ties = 0
        """How many ties stand around what is being written."""

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What has to be written, by name."""
        return {name: arrays.raw(array) for name, array in self._sources.items()}

    def look_up_paths(self, model: Any) -> None:
        """Call the arrays of a model by the paths that `walk` prints, the first of each.

        What stands where no walk goes (a static field, a partial) is called by the way that `encode` took.
        Raises `UnsavableError` for what is too deep.
        """
        # What holds itself is infinitely deep, and a walk of it has no end.
        if any(len(address) > MOST_LEVELS for address, _ in nodes_of(model)):
            raise refused(
                "", f"is nested more than {MOST_LEVELS} levels deep: JAX cannot flatten it"
            )
        found = search_all(model, lambda node: isinstance(node, arrays.ARRAYS))
        # With the arrays themselves: an id is another's once its array is gone.
        self._paths |= {identity(match.node): match for match in reversed(found)}

    def array(self, array: Any, path: str) -> dict[str, Any]:
        """The entry of an array, which is the same wherever this object stands."""
        if identity(array) in self._entries:
            return self._entries[identity(array)]
        try:
            arrays.check_storable(array)
        except Unstorable as reason:
            raise refused(path, f"{reason}") from None
        known = self._paths.get(identity(array))
        name = self._free_name(path if known is None else known.path)
        self._sources[name] = array
        self._entries[identity(array)] = found = {"array": name, **arrays.described(array)}
        return found

    def _free_name(self, path: str) -> str:
        name, n = path or "value", 1
        while name in self._sources or name == METADATA:
            n += 1
            name = f"{path}#{n}"
        return name

    def name(self, thing: Any) -> str | None:
        """The name that leads to a class or function; None if none does."""
        if (name := public_name(thing)) is None and (name := name_of(thing)) is not None:
            self.named[name] = thing
        return name

    def class_name(self, cls: type, path: str) -> str:
        """The name of a class. Raises `UnsavableError` for one that no other process can be handed."""
        name = self.name(cls)
        if name is not None:
            return name
        if "<locals>" in cls.__qualname__:
            raise refused(
                path,
                f"is a {cls.__qualname__}, a class made inside a function: no other process can be handed "
                "it. Define it at the top of a module",
            )
        raise refused(
            path,
            f"is a {full_name(cls)}, and what stands under that name is not its class: it was defined anew "
            "since, or is hidden. Build the model again with the class that stands there",
        )

    def labels(self, labels: tuple[str, ...], path: str) -> list[str]:
        """The labels of a container. Raises `UnsavableError` for too many sets of them."""
        self._labels.add(labels)
        if len(self._labels) > MOST_LABELS:
            raise refused(
                path, f"has the labels after {MOST_LABELS} other sets of labels: too many"
            )
        return list(labels)

    def marker(self, index: Any, path: str) -> str:
        """The text that stands for the marker of a state."""
        own = marker_of(index)
        if own not in self.markers:
            text = self.markers[own] = self._free_marker(own, path)
            self.places[text] = path
        return self.markers[own]

    def _free_marker(self, marker: Any, path: str) -> str:
        text, n = (str(marker) if isinstance(marker, str) else path), 1
        while text in self.places:
            n += 1
            text = f"{path}#{n}"
        return text
