"""The places of a model that weights go to, and the names they have in a checkpoint."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..paths.path import join
from ..paths.search import search
from ..surgery.edit import at
from ..surgery.tie import Tied
from .layouts import AS_IT_IS, Conversion, layer_conversion, split_part, transposed
from .rename import Layout, Rename

Address = tuple[int, ...]


class Slot(NamedTuple):
    """One array of a model: where it stands, and where and how it lies in a checkpoint."""

    path: str
    address: Address
    leaf: Any
    name: str
    layout: Layout | None
    conversion: Conversion

    def read(self, stored: np.ndarray) -> Any:
        """The array for the model. Raises `ValueError` if what is stored does not fit."""
        array = np.asarray(stored)
        if self.layout is not None and self.layout.shape == array.shape:
            array = array.reshape(self.leaf.shape)
        part = split_part(transposed(array, self.layout), self.layout)
        return _fitted(self.conversion.read(part), self.leaf)


def _fitted(array: np.ndarray, leaf: Any) -> Any:
    if array.shape != leaf.shape:
        raise ValueError(f"has shape {leaf.shape}, the checkpoint {array.shape}")
    same_kind = any(
        jnp.issubdtype(array.dtype, kind) and jnp.issubdtype(leaf.dtype, kind)
        for kind in (jnp.floating, jnp.complexfloating, jnp.integer, jnp.bool_)
    )
    if not same_kind:
        raise ValueError(f"has dtype {leaf.dtype}, the checkpoint {array.dtype}")
    if isinstance(leaf, np.ndarray):
        return array.astype(leaf.dtype)
    return jnp.asarray(array.astype(leaf.dtype))


def _is_weight(node: Any) -> bool:
    is_array = eqx.is_array_like(node) and hasattr(node, "dtype")
    is_array = is_array or isinstance(node, jax.ShapeDtypeStruct)
    return is_array and not jnp.issubdtype(node.dtype, jax.dtypes.prng_key)


def weight_slots(model: Any, rename: Rename, own_layout: bool) -> list[Slot]:
    """Every array of the model that a checkpoint would hold; running statistics are left out.

    `own_layout` says that graftax wrote the checkpoint: its tensors lie as in the model.
    """
    is_state = [lambda node: isinstance(node, eqx.nn.StateIndex)]
    stateful = {match.address for match in search(model, None, is_state)}
    slots = []
    for match in search(model, None, [_is_weight]):
        if any(match.address[:i] in stateful for i in range(len(match.address))):
            continue
        name, layout = rename(match.path)
        parent = at(model, match.address[:-1]) if match.address else None
        conversion = (
            AS_IT_IS if own_layout else layer_conversion(parent, match.keys and match.keys[-1])
        )
        slots.append(Slot(match.path, match.address, match.node, name, layout, conversion))
    return slots


def tied_addresses(model: Any) -> dict[Address, Address]:
    """From where a tied array stands second to where it stands first."""
    found = {}
    for match in search(model, None, [lambda node: isinstance(node, Tied)]):
        inside = (*match.address, 0)
        found.update({inside + target: inside + source for source, target in match.node.links})
    return found


class Statistics(NamedTuple):
    """The running statistics of one BatchNorm, and the names they have in a checkpoint."""

    path: str
    address: Address
    layer: eqx.nn.BatchNorm
    mean: str
    variance: str
    batches: str


def batch_statistics(model: Any, rename: Rename) -> Iterator[Statistics]:
    """The statistics of every BatchNorm in the model, under PyTorch's names for them."""
    for match in search(model, None, [lambda node: isinstance(node, eqx.nn.BatchNorm)]):
        mean, variance, count = (
            rename(join(match.path, name)).name
            for name in ("running_mean", "running_var", "num_batches_tracked")
        )
        yield Statistics(match.path, match.address, match.node, mean, variance, count)
