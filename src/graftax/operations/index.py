"""Which positions along an axis stay."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

Positions = (
    Sequence[int]
    | Sequence[bool]
    | slice
    | Int[Array | np.ndarray, " kept"]
    | Bool[Array | np.ndarray, " size"]
)
"""What may be said to keep positions: numbers, a slice, or a mask that is True where one stays."""


class Blocks(NamedTuple):
    """Positions counted in blocks: those of `kept`, of `number` of them. Made by `graftax.blocks`."""

    kept: tuple[int, ...]
    number: int


def blocks(index: Positions, *, of: int) -> Blocks:
    """An index for `graftax.take` that counts blocks: heads, groups, channels that were flattened.

    On an axis of length `n`, block `i` is the positions from `i * n / of` to `(i + 1) * n / of`. So
    one index fits axes of several lengths: queries and the fewer keys that they share.

    **Arguments:**

    - `index`: which blocks stay: numbers, a slice or a mask over the blocks.
    - `of`: how many blocks there are.

    **Returns:**

    A value to give to `graftax.take`.

    **Raises:**

    - `TypeError`, `ValueError`: the index is none, is out of range, names a block twice or names none.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> gx.take({"w": jnp.arange(6)}, {"w": 0}, gx.blocks([0, 2], of=3))["w"].tolist()
    [0, 1, 4, 5]

    ```
    """
    if of < 1:
        raise ValueError(f"There must be at least one block; got of={of}.")
    return Blocks(_positions(_known(index), of), of)


class Index:
    """The positions that stay, for axes of any length: what a rule of `graftax.take_from` is given.

    `count` and `kept` are those of `graftax.blocks`, None if positions are not counted in blocks.
    """

    def __init__(self, index: Positions | Blocks):
        self._index = index if isinstance(index, Blocks) else _known(index)
        self.kept: Any = index.kept if isinstance(index, Blocks) else None
        self.count: int | None = index.number if isinstance(index, Blocks) else None
        self.sizes: list[int] = []
        """The lengths that were asked for."""
        self._cuts: dict[tuple[int, int], tuple[Any, Any]] = {}

    def of(self, size: int) -> tuple[int, ...]:
        """The positions that stay on an axis of this length. Raises `ValueError` if it has not all."""
        self.sizes.append(size)
        if not isinstance(self._index, Blocks):
            return _positions(self._index, size)
        kept, count = self._index
        if size % count:
            raise ValueError(f"its {size} positions make no {count} blocks of one size")
        width = size // count
        return tuple(width * block + i for block in kept for i in range(width))

    def cut(self, array: Any, axis: int) -> Any:
        """The array with the positions that stay along its axis; None for None.

        One array cut alike at two places is one array again, which is how ties are known to hold.
        """
        if array is None:
            return None
        if (id(array), axis) not in self._cuts:
            kept = self.of(array.shape[axis])
            is_whole = kept == tuple(range(array.shape[axis]))
            cut = array if is_whole else _taken(array, np.array(kept), axis)
            # With the array itself, so that its id is not given to another.
            self._cuts[id(array), axis] = (array, cut)
        return self._cuts[id(array), axis][1]


def _taken(array: Any, kept: np.ndarray, axis: int) -> Any:
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.eval_shape(lambda a: jnp.take(a, kept, axis), array)
    library = np if isinstance(array, np.ndarray) else jnp
    return library.take(array, kept, axis)


def _known(index: Any) -> slice | np.ndarray:
    """The index as a slice or an array of integers or booleans. Raises `TypeError` for another."""
    if isinstance(index, slice):
        return index
    if isinstance(index, Tracer):
        raise TypeError(
            "The index of take decides on shapes: it must be known when a function is traced, and "
            "this one is an argument of it. Give it as a NumPy array from outside."
        )
    array = np.asarray(index) if isinstance(index, Sequence | np.ndarray | jax.Array) else None
    if array is not None and array.size == 0:
        raise ValueError("An empty index would leave nothing.")
    if array is None or array.ndim != 1 or array.dtype.kind not in "iub":
        hint = f" For one position write [{index!r}]." if isinstance(index, int) else ""
        raise TypeError(
            "The index of take is a sequence of integers, a slice, a mask of booleans or what "
            f"graftax.blocks gives; got {index!r}.{hint}"
        )
    return array


def _positions(index: slice | np.ndarray, size: int) -> tuple[int, ...]:
    if isinstance(index, slice):
        kept = tuple(range(size)[index])
    elif index.dtype.kind == "b":
        if len(index) != size:
            raise ValueError(f"the mask has {len(index)} elements for {size} positions")
        kept = tuple(int(i) for i in np.flatnonzero(index))
    else:
        kept = tuple(int(i) for i in index)
    if outside := [i for i in kept if not -size <= i < size]:
        raise ValueError(f"there is no position {outside[0]} among {size}")
    kept = tuple(i % size for i in kept)
    if not kept:
        raise ValueError("an empty index would leave nothing")
    if len(set(kept)) < len(kept):
        twice, _ = Counter(kept).most_common(1)[0]
        raise ValueError(f"position {twice} is named twice")
    return kept
