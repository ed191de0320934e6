"""What did not fit when weights were loaded."""

import dataclasses

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
        looked_for = list(self.missing.values())
        return "\n".join(
            [
                *_section(
                    "missing in the checkpoint",
                    [
                        f"{path} (looked for {name!r}{_near(name, self.unexpected)})"
                        for path, name in self.missing.items()
                    ],
                ),
                *_section(
                    "unexpected in the checkpoint",
                    [
                        f"{name}{_near(name, looked_for, ' (nearest: {!r})')}"
                        for name in self.unexpected
                    ],
                ),
                *_section("of another shape", [f"{p}: {why}" for p, why in self.misfits.items()]),
            ]
        )


def _near(name: str, names: object, form: str = "; nearest: {!r}") -> str:
    found = nearest(name, list(names))  # pyright: ignore[reportArgumentType]
    return form.format(found[0]) if found else ""


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{len(lines)} {title}:", *(f"  {line}" for line in lines)] if lines else []


class WeightsError(ValueError):
    """Weights that do not fit the model. `report` says which."""

    def __init__(self, message: str, report: Report):
        self.report = report
        super().__init__(f"{message}\n{report}")

    def __reduce__(self):
        return (_restored, (str(self), self.report))


def _restored(message: str, report: Report) -> WeightsError:
    error = WeightsError.__new__(WeightsError, message)
    ValueError.__init__(error, message)
    error.report = report
    return error
