"""What stands in a configuration, as a table: key, kind of value, default.

A family of models is a table from the arguments of its constructor to these keys.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..paths.errors import did_you_mean, listed
from .activations import ACTIVATIONS

# What does not fit is no size of an array, and no number of float32.
_LARGEST_SIZE, _LARGEST_NUMBER = 2**31 - 1, 1e38


def shown(value: Any) -> str:
    """A value in a message: its beginning, if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Kind(NamedTuple):
    """What a value may be.

    `read` makes of it what a constructor takes, or raises `ValueError` with what it should have been;
    `write` is the way back.
    """

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value


class Required:
    """The default of a key that has to be there."""


REQUIRED: Final = Required()


class Key(NamedTuple):
    """One value of a configuration."""

    name: str
    kind: Kind
    default: Any = REQUIRED
    """Of a configuration without it, as written there; another `Key` is looked up in its place."""
    blocks: Mapping[str, str] = {}
    """For a number of blocks: their paths, and the names of their weights in a checkpoint.

    `{"encoder.{i}": "encoder.layer.{i}"}`; for a list with the blocks of each stage, with two captures.
    Where there are several, one of them is that of the checkpoint.
    """
    depth: Callable[[Any], int | tuple[int, ...]] = lambda value: value
    """From the value to the number of blocks."""
    heads: tuple[str, ...] = ()
    """The heads of models that have it; all if there are none."""


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, which a truth value is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(smallest: int = 1, largest: int = _LARGEST_SIZE) -> Kind:
    """A whole number in a range, by default one that an array can have as its size."""

    def read(value: Any) -> int:
        if not is_whole(value) or not smallest <= value <= largest:
            raise ValueError(f"it should be a whole number from {smallest} to {largest:,d}.")
        return value

    return Kind(read)


def number(
    *, above: float | None = None, least: float | None = None, below: float | None = None
) -> Kind:
    """A finite number in a range."""
    bounds = {"above": above, "of at least": least, "below": below}
    said = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)

    def is_inside(value: int | float) -> bool:
        # Written so that NaN, with which every comparison is false, is outside.
        return (
            abs(value) < _LARGEST_NUMBER
            and (above is None or value > above)
            and (least is None or value >= least)
            and (below is None or value < below)
        )

    def read(value: Any) -> float:
        if not (is_whole(value) or isinstance(value, float)) or not is_inside(value):
            raise ValueError(f"it should be a finite number {said}".rstrip() + ".")
        return float(value)

    return Kind(read)


def one_of(*allowed: Any) -> Kind:
    """One of few values, as they are."""

    def read(value: Any) -> Any:
        if value not in allowed:
            words = [word for word in allowed if isinstance(word, str)]
            near = did_you_mean(value[:99], words) if isinstance(value, str) else ""
            raise ValueError(f"supported: {listed(map(repr, allowed))}.{near}")
        return allowed[allowed.index(value)]

    return Kind(read)


def one_of_named(**arguments: Any) -> Kind:
    """One of few words, each of which means an argument."""
    words = {argument: word for word, argument in arguments.items()}

    def read(value: Any) -> Any:
        return arguments[one_of(*arguments).read(value)]

    return Kind(read, words.__getitem__)


def sizes() -> Kind:
    """A list of sizes, as a tuple."""

    def read(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError("it should be a list of whole numbers.")
        return tuple(SIZE.read(entry) for entry in value)

    return Kind(read, list)


def numbers(count: int) -> Kind:
    """A list of so many numbers above 0, as a tuple."""

    def read(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list) or len(value) != count:
            raise ValueError(f"it should be a list of {count} numbers.")
        return tuple(FACTOR.read(entry) for entry in value)

    return Kind(read, list)


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it should be true or false.")
    return value


def _read_pair(value: Any) -> tuple[int, int]:
    if not isinstance(value, list):
        size = SIZE.read(value)
        return size, size
    if len(value) != 2:
        raise ValueError("it should be one size, or height and width.")
    height, width = sizes().read(value)
    return height, width


def _write_pair(value: tuple[int, int]) -> int | list[int]:
    return value[0] if value[0] == value[1] else list(value)


def _read_activation(value: Any) -> Callable[..., Any]:
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise ValueError(
            f"the activation {shown(value)} is not known. Known are: {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[value]


def _write_activation(value: Callable[..., Any]) -> str:
    for name, function in ACTIVATIONS.items():
        if function is value or repr(function) == repr(value):
            return name
    raise ValueError(f"no activation of transformers is known to be {value!r}.")


def _read_classes(value: Any) -> int:
    if not isinstance(value, dict):
        raise ValueError("it should name the classes by their numbers.")
    return len(value)


def _read_token(value: Any) -> int | None:
    return None if value is None else whole(-_LARGEST_SIZE).read(value)


def flag_as(if_true: Any, if_false: Any) -> Kind:
    """A truth value that means one of two arguments."""
    return Kind(
        lambda value: if_true if _read_flag(value) else if_false, lambda value: value == if_true
    )


SIZE: Final = whole()
NUMBER: Final = number()
EPSILON: Final = number(least=0.0)
FACTOR: Final = number(above=0.0)
RATE: Final = number(least=0.0, below=1.0)
FLAG: Final = Kind(_read_flag)
TOKEN: Final = Kind(_read_token)
PAIR: Final = Kind(_read_pair, _write_pair)
ACTIVATION: Final = Kind(_read_activation, _write_activation)

CLASSES: Final = Key(
    "id2label",
    Kind(_read_classes),
    Key("num_labels", SIZE, 2),
    heads=("classifier", "tokens"),
)
"""How many classes a classifier has: as many as are named."""
