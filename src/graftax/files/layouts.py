"""How the parameters of Equinox's layers lie in other libraries' checkpoints."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from .rename import Layout


class Conversion(NamedTuple):
    """`read` turns what a checkpoint holds into what the model does; `write` turns it back."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


AS_IT_IS = Conversion(lambda array: array, lambda array: array)


def transposed(array: np.ndarray, layout: Layout | None) -> np.ndarray:
    """The matrix the other way round, if the layout says so. Vectors stay as they are."""
    return array.T if layout is not None and layout.transpose and array.ndim == 2 else array


def split_part(array: np.ndarray, layout: Layout | None) -> np.ndarray:
    """The part of a fused tensor that a layout names. Raises `ValueError` if it does not split."""
    if layout is None or layout.of == 1:
        return array
    if array.ndim == 0 or array.shape[0] % layout.of:
        raise ValueError(
            f"shape {array.shape} does not split into {layout.of} along its first axis"
        )
    return np.split(array, layout.of, axis=0)[layout.part]


def join_parts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The fused tensor of its parts."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=0)


def layer_conversion(parent: Any, field: Any) -> Conversion:
    """The conversion between PyTorch's layout and Equinox's for one field of a layer."""
    spatial = getattr(parent, "num_spatial_dims", 0)
    is_conv = isinstance(parent, eqx.nn.Conv | eqx.nn.ConvTranspose)
    if is_conv and field == "bias":
        return Conversion(
            lambda a: a.reshape(-1, *(1,) * spatial) if a.ndim == 1 else a,
            lambda a: a.reshape(-1),
        )
    if isinstance(parent, eqx.nn.ConvTranspose) and field == "weight":
        return _conv_transpose(parent.groups, spatial)
    return AS_IT_IS


def _conv_transpose(groups: int, spatial: int) -> Conversion:
    # PyTorch holds (in, out / groups, ...), Equinox (out, in / groups, ...), mirrored in space: the
    # swap within each group, and its inverse, are the same function.
    def swap(array: np.ndarray) -> np.ndarray:
        if array.ndim != 2 + spatial or array.shape[0] % groups:
            return array
        outer, inner, *window = array.shape
        grouped = array.reshape(groups, outer // groups, inner, *window).swapaxes(1, 2)
        swapped = grouped.reshape(groups * inner, outer // groups, *window)
        return np.flip(swapped, tuple(range(2, 2 + spatial)))

    return Conversion(swap, swap)
