"""What did not fit when weights were loaded."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..paths.errors import nearest


@dataclasses.dataclass(frozen=True)
class Report:
    """What a checkpoint and a model do not have in common. Empty, and false, if all fits.

    `missing` maps paths of the model to the names that were looked for, `unexpected` lists names that
    nobody asked for, and `misfits` maps paths to the reason why their tensor does not fit.
    """

    missing: dict[str, str]
    unexpected: tuple[str, ...]
    misfits: dict[str, str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misfits)

    def __str__(self) -> str:
        expected = _Nearest(self.unexpected)
        looked_for = _Nearest(tuple(self.missing.values()))
        missing = [
            f"{path} (looked for {name!r}{expected.hint('; nearest: {!r}', name, i)})"
            for i, (path, name) in enumerate(self.missing.items())
        ]
        unexpected = [
            f"{name}{looked_for.hint(' (nearest: {!r})', name, i)}"
            for i, name in enumerate(self.unexpected)
        ]
        misfits = [f"{path}: {why}" for path, why in self.misfits.items()]
        return "\n".join(
            [
                *_section("missing in the checkpoint", missing),
                *_section("unexpected in the checkpoint", unexpected),
                *_section("that do not fit" if len(misfits) > 1 else "that does not fit", misfits),
            ]
        )


# How many names are looked at more closely. In a large model, nearly all names are alike.
_POOL, _FINALISTS = 200, 12
# How many names get a hint. Of more, the first tell the cause, and each takes a millisecond.
_HINTED = 300


class _Nearest:
    """Finds the nearest of many names, by the components that two of them share.

    Comparing each with each, letter by letter, would take minutes for the names of a large model.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._parts = [frozenset(name.split(".")) for name in names]
        self._having: dict[str, list[int]] = {}
        for i, parts in enumerate(self._parts):
            for part in parts:
                self._having.setdefault(part, []).append(i)

    def hint(self, form: str, name: str, number: int) -> str:
        """The text that names the nearest one, for the name of this number; empty if none is near."""
        if number >= _HINTED:
            return ""
        parts = set(name.split("."))
        pool: set[int] = set()
        # What few names have says most about them.
        for having in sorted((self._having.get(part, ()) for part in parts), key=len):
            if len(pool) < _POOL:
                pool.update(having[: _POOL - len(pool)])
        ranked = sorted(pool or range(len(self._names))[:_POOL], key=lambda i: self._rank(i, parts))
        found = nearest(name, [self._names[i] for i in ranked[: _FINALISTS if pool else _POOL]])
        return form.format(found[0]) if found else ""

    def _rank(self, i: int, parts: set[str]) -> tuple[int, int]:
        return -len(self._parts[i] & parts), i


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{len(lines)} {title}:", *(f"  {line}" for line in lines)] if lines else []


class WeightsError(ValueError):
    """Weights that do not fit the model. `report` says which."""

    def __init__(self, message: str, report: Report):
        self.report = report
        super().__init__(f"{message}\n{report}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (str(self), self.report))


def _restored(message: str, report: Report) -> WeightsError:
    error = WeightsError.__new__(WeightsError, message)
    ValueError.__init__(error, message)
    error.report = report
    return error
