"""The places of a model that weights go to, and the names they have in a checkpoint."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..paths.edit import at, edited
from ..paths.path import join, render
from ..paths.search import Match, search_all
from ..surgery.state import StateValues, indices, value_of
from ..surgery.statistics import check_count, state_values, statistics_index
from ..surgery.tied import tied_addresses
from .layouts import AS_IT_IS, Conversion, layer_conversion, split_part, transposed
from .rename import Layout, Rename
from .source import Source
from .tensors import empty

Address = tuple[int, ...]


class Slot(NamedTuple):
    """One array of a model: where it stands, and where and how it lies in a checkpoint."""

    path: str
    address: Address
    leaf: Any
    name: str
    layout: Layout | None = None
    conversion: Conversion = AS_IT_IS

    def read(self, source: Source) -> Any:
        """The array for the model. Raises `ValueError` if what is stored does not fit."""
        array, leaf = source[self.name], self.leaf
        if self.layout is not None and self.layout.shape == array.shape:
            array = array.reshape(leaf.shape)
        array = split_part(transposed(array, self.layout), self.layout)
        array = self.conversion.read(array)
        if array.shape != leaf.shape:
            raise ValueError(f"has shape {leaf.shape}, the checkpoint {array.shape}")
        cast = _cast(array, leaf.dtype, source.is_fresh(self.name))
        if isinstance(leaf, np.ndarray | np.generic):
            return cast if isinstance(leaf, np.ndarray) else cast[()]
        # The memory is nobody else's, so JAX may have it.
        return jax.device_put(cast)


_KINDS = (jnp.floating, jnp.complexfloating, jnp.integer, jnp.bool_)


def _cast(array: np.ndarray, dtype: np.dtype, is_fresh: bool) -> np.ndarray:
    """The numbers in the dtype of the model, in memory that is nobody else's."""
    if array.dtype == dtype and is_fresh:
        return array
    same_kind = [kind for kind in _KINDS if jnp.issubdtype(dtype, kind)]
    if not any(jnp.issubdtype(array.dtype, kind) for kind in same_kind):
        raise ValueError(f"has dtype {dtype}, the checkpoint {array.dtype}")
    new = empty(array.shape, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        new[...] = array
    if jnp.integer in same_kind:
        fits = (new == array).all()
    else:
        # Rounded is right; infinite is not.
        fits = (np.isfinite(new) | ~np.isfinite(array)).all()
    if not fits:
        raise ValueError(f"has dtype {dtype}, too small for the numbers in the checkpoint")
    return new


def _is_weight(node: Any) -> bool:
    is_array = eqx.is_array_like(node) and hasattr(node, "dtype")
    is_array = is_array or isinstance(node, jax.ShapeDtypeStruct)
    return is_array and not jnp.issubdtype(node.dtype, jax.dtypes.prng_key)


def weight_slots(model: Any, rename: Rename, own_layout: bool) -> list[Slot]:
    """Every array of the model that a checkpoint would hold; running statistics are left out.

    `own_layout` says that graftax wrote the checkpoint: its tensors lie as in the model.
    """
    stateful = {match.address for match in indices(model)}
    slots = []
    for match in search_all(model, _is_weight):
        if any(match.address[:i] in stateful for i in range(len(match.address))):
            continue
        name, layout = rename(match.path)
        parent = at(model, match.address[:-1]) if match.address else None
        conversion = (
            AS_IT_IS if own_layout else layer_conversion(parent, match.keys and match.keys[-1])
        )
        slots.append(Slot(match.path, match.address, match.node, name, layout, conversion))
    return slots


class Statistics(NamedTuple):
    """Arrays of a state that belong together: all of them are loaded, or none.

    Of each array, the slots at all its places: more than one, where layers are tied.
    """

    slots: list[tuple[Slot, ...]]
    optional: list[tuple[Slot, ...]]
    """What not every checkpoint has; it comes after the others."""
    values: Callable[[list[Any]], StateValues]


def state_statistics(
    model: Any, rename: Rename, state: eqx.nn.State | None, own_layout: bool
) -> Iterator[Statistics]:
    """What a checkpoint would hold of a model's state.

    Of graftax's own, that is everything; of others, the statistics of BatchNorm under PyTorch's names.
    Raises `ValueError` if the state is needed and was not given.
    """
    if own_layout:
        yield from (
            _own_state(places, rename, state) for places in tied_places(model, indices(model))
        )
    else:
        yield from (_batch_norm(places, rename, state) for places in batch_norms(model))


def tied_places(model: Any, matches: Iterable[Match]) -> list[list[Match]]:
    """The matches, those that are tied together."""
    tied, places = tied_addresses(model), {}
    for match in matches:
        places.setdefault(tied.get(match.address, match.address), []).append(match)
    return list(places.values())


def batch_norms(model: Any) -> list[list[Match]]:
    """Every BatchNorm of the model, those with tied statistics together."""
    norms = {m.address: m for m in search_all(model, lambda x: isinstance(x, eqx.nn.BatchNorm))}
    kept = [
        match
        for match in indices(model)
        if (norm := norms.get(match.address[:-1])) and match.node is statistics_index(norm.node)
    ]
    return [[norms[match.address[:-1]] for match in places] for places in tied_places(model, kept)]


def _own_state(places: list[Match], rename: Rename, state: eqx.nn.State | None) -> Statistics:
    index = places[0].node
    value = value_of(index, state, places[0].path)
    arrays = search_all(value, _is_weight)

    def slot(match: Match, array: Match) -> Slot:
        path = render((*match.keys, "init", *array.keys))
        return Slot(path, array.address, array.node, rename(path).name)

    def values(new: list[Any]) -> StateValues:
        edits = {array.address: lambda _, x=x: x for array, x in zip(arrays, new, strict=True)}
        return [(index, edited(value, edits))]

    slots = [tuple(slot(match, array) for match in places) for array in arrays]
    return Statistics(slots, [], values)


def _batch_norm(places: list[Match], rename: Rename, state: eqx.nn.State | None) -> Statistics:
    layer = places[0].node
    leaves = (*value_of(statistics_index(layer), state), np.zeros((), np.int64))
    conversions = (AS_IT_IS, AS_IT_IS, _COUNT)

    def slots_at(match: Match) -> list[Slot]:
        return [
            Slot(join(match.path, field), (), leaf, name, None, conversion)
            for field, leaf, name, conversion in zip(
                _FIELDS, leaves, batch_norm_names(match, rename), conversions, strict=True
            )
        ]

    mean, variance, count = zip(*map(slots_at, places), strict=True)
    return Statistics([mean, variance], [count], lambda new: state_values(layer, *new))


def _counted(array: np.ndarray) -> np.ndarray:
    for count in array.ravel():
        check_count(count)
    return array


_COUNT = Conversion(_counted, lambda array: array)

_FIELDS = ("running_mean", "running_var", "num_batches_tracked")


def batch_norm_names(match: Match, rename: Rename) -> list[str]:
    """The names that mean, variance and count of a BatchNorm have in PyTorch's checkpoints."""
    return [rename(join(match.path, field)).name for field in _FIELDS]
