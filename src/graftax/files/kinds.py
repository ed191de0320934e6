"""The kinds of entries: what each must hold and may hold. The kind of an entry is what it holds."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from .errors import FormatError


class Kind(NamedTuple):
    """One kind of entry: the keys that it needs, those that it may have, and who reads it."""

    needs: frozenset[str]
    may: frozenset[str]
    read: Callable[[Any, Any], Any]

    def fits(self, keys: frozenset[str]) -> bool:
        """Whether an entry with these keys is of this kind."""
        return self.needs <= keys <= self.needs | self.may


class Kinds:
    """A table of kinds. No entry fits two of them, so their order means nothing."""

    def __init__(self) -> None:
        self.all: list[Kind] = []
        self._find = functools.lru_cache(maxsize=1024)(self._search)

    def register(
        self, needs: str, may: str = ""
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """The function below reads entries with the keys `needs`, and perhaps `may` (words)."""

        def registered(read: Callable[..., Any]) -> Callable[..., Any]:
            self.all.append(Kind(frozenset(needs.split()), frozenset(may.split()), read))
            return read

        return registered

    def reader(self, keys: frozenset[str]) -> Callable[[Any, Any], Any]:
        """Who reads entries with these keys. Raises `FormatError` if nobody does."""
        found = self._find(keys)
        if found is None:
            raise FormatError(
                f"an entry of no known kind: {sorted(keys)[:5]}; a newer graftax may know it"
            )
        return found

    def _search(self, keys: frozenset[str]) -> Callable[[Any, Any], Any] | None:
        return next((kind.read for kind in self.all if kind.fits(keys)), None)


KINDS = Kinds()
"""The kinds that `decode` reads."""
