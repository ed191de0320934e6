"""Weights of others into a model, by name, and back."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import numpy as np

from ..paths.edit import edited
from ..surgery.state import StateValues, with_state_values
from ..surgery.statistics import running_statistics
from ..surgery.tied import tied_addresses
from .exportable import check_exportable
from .layouts import join_parts, transposed
from .rename import Layout, Rename, any_template
from .report import Report, WeightsError
from .slots import (
    Address,
    Slot,
    Statistics,
    batch_norm_names,
    batch_norms,
    state_statistics,
    weight_slots,
)
from .source import Source, open_source
from .writing import write_tensors


def load_weights(
    model: Any,
    source: str | os.PathLike[str] | Mapping[str, Any],
    rename: Mapping[str, str | Layout] | None = None,
    strict: bool = True,
    *,
    state: eqx.nn.State | None = None,
    ignore: Sequence[str] = (),
) -> Any:
    """The model with weights from a checkpoint, matched by name.

    Each array of the model is looked up under its path, renamed. The model's dtype wins: float16 in the
    checkpoint becomes float32 in a float32 model, and the other way round; but integers become no
    floats, and no integers too small for them. What differs between PyTorch's layers and Equinox's (the
    bias of a convolution, transposed convolutions, BatchNorm's statistics) is converted. Only tensors
    that are asked for are read.

    **Arguments:**

    - `model`: any pytree; `jax.ShapeDtypeStruct` may stand for arrays that are still to come.
    - `source`: a file (`.safetensors`; `.bin` if torch is installed), an index of shards, a directory
        in Hugging Face's layout, or a mapping from name to array.
    - `rename`: from a part of a path to the part of a name, applied in order: `{"encoder.{i}.norm1":
        "encoder.layer.{i}.attention.output.LayerNorm"}`, where `{i}` is one component. A `Layout` on the
        right says how the tensor lies there.
    - `strict`: whether everything has to fit. If not, what fits is loaded.
    - `state`: the state of the model, for running statistics.
    - `ignore`: names in the checkpoint that nobody needs, written like the right side of a rule.

    **Returns:**

    The model; with `state`, the pair `(model, state)`. With `strict=False`, the `Report` comes last.

    **Raises:**

    - `WeightsError`: with `strict`, one report of all that is missing, unexpected or does not fit.
    - `FileNotFoundError`, `FormatError`: the source is not there, or damaged.
    - `ImportError`: a `.bin` file, and torch is not installed.
    - `PatternError`: a malformed rule.
    - `ValueError`: two arrays of the model have one name, or its running statistics are in a state that
        was not given.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax, numpy as np
    >>> model = gx.Chain(up=eqx.nn.Linear(2, 3, use_bias=False, key=jax.random.key(0)))
    >>> weights = {"net.fc1.weight": np.ones((3, 2))}
    >>> model = gx.load_weights(model, weights, rename={"up": "net.fc1"})
    >>> model.up.weight.sum().item()
    6.0

    ```
    """
    names = Rename(rename or {})
    with open_source(source) as opened:
        slots = weight_slots(model, names, opened.own_layout)
        statistics = list(state_statistics(model, names, state, opened.own_layout))
        tied = tied_addresses(model)
        _check_distinct(
            [slot for slot in slots if slot.address not in tied]
            + [slot for each in statistics for group in each.slots for slot in group]
        )
        loading = _Loading(opened)
        edits = loading.values(slots, tied)
        state_values = loading.state_values(statistics)
        report = loading.report(any_template([ignore] if isinstance(ignore, str) else ignore))
    if strict and report:
        raise WeightsError("The checkpoint does not fit the model.", report)
    new = edited(model, {address: (lambda _, v=value: v) for address, value in edits.items()})
    new, new_state = with_state_values(new, state_values, state)
    parts = [new, *(() if state is None else (new_state,)), *(() if strict else (report,))]
    return parts[0] if len(parts) == 1 else tuple(parts)


class _Loading:
    """One load: what was used of the source, what was missing, what did not fit."""

    def __init__(self, source: Source):
        self._source = source
        self._used: set[str] = set()
        self._missing: dict[str, str] = {}
        self._misfits: dict[str, str] = {}

    def values(self, slots: Iterable[Slot], tied: Mapping[Address, Address]) -> dict[Address, Any]:
        """The new array at each address; one array for all places that are tied."""
        groups: dict[Address, list[Slot]] = {}
        for slot in slots:
            groups.setdefault(tied.get(slot.address, slot.address), []).append(slot)
        found = {}
        for group in groups.values():
            value = self._group_value(group)
            if value is not None:
                found.update({slot.address: value for slot in group})
        return found

    def _group_value(self, group: Sequence[Slot]) -> Any:
        # Of an array at several places, a checkpoint may hold one name or all.
        present = [slot for slot in group if slot.name in self._source]
        if not present:
            self._missing[group[0].path] = group[0].name
            return None
        first, *others = present
        value = self._read(first)
        for slot in others:
            again = self._read(slot)
            if value is not None and again is not None and not _same_bits(value, again):
                self._misfits[slot.path] = (
                    f"is tied to {first.path!r} in the model; in the checkpoint, {slot.name!r} and "
                    f"{first.name!r} differ"
                )
        return value

    def _read(self, slot: Slot) -> Any:
        self._used.add(slot.name)
        try:
            return slot.read(self._source)
        except ValueError as error:
            self._misfits[slot.path] = f"{error} (stored as {slot.name!r})"
            return None

    def state_values(self, statistics: Iterable[Statistics]) -> StateValues:
        """What the state becomes by what the source has of it."""
        values: StateValues = []
        for each in statistics:
            there = [group for group in each.optional if any(s.name in self._source for s in group)]
            new = [self._group_value(group) for group in (*each.slots, *there)]
            if not any(value is None for value in new):
                values += each.values(new)
        return values

    def report(self, ignored: Callable[[str], bool]) -> Report:
        """What did not fit."""
        unexpected = [n for n in self._source if n not in self._used and not ignored(n)]
        return Report(self._missing, tuple(unexpected), self._misfits)


def _same_bits(a: Any, b: Any) -> bool:
    # By bytes, because NaN is not equal to itself.
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def _check_distinct(slots: Iterable[Slot]) -> None:
    seen: dict[tuple[str, int], str] = {}
    for slot in slots:
        place = (slot.name, slot.layout.part if slot.layout else 0)
        if place in seen:
            raise ValueError(
                f"{seen[place]!r} and {slot.path!r} would both be {slot.name!r} in the checkpoint: a "
                "rename rule sends two arrays to one name."
            )
        seen[place] = slot.path


def export_weights(
    file: str | os.PathLike[str],
    model: Any,
    rename: Mapping[str, str | Layout] | None = None,
    *,
    state: eqx.nn.State | None = None,
) -> None:
    """Write the arrays of a model under other names: `load_weights` with the same rules reads them back.

    The tensors lie as PyTorch has them: fused and transposed where a `Layout` says so. A tied array is
    written once, under the name of its first place. The state of layers other than BatchNorm, for which
    there are no names in common use, is left out. BatchNorm's `num_batches_tracked` is the number that was
    loaded, and what was trained since (0 in mode "ema", which does not count).

    **Arguments:**

    - `file`: a `.safetensors` file to write.
    - `model`: any pytree.
    - `rename`: as in `graftax.load_weights`.
    - `state`: the state of the model, for running statistics.

    **Raises:**

    - `ValueError`: two arrays have one name, parts of a fused tensor are missing, or running
        statistics are in a state that was not given.
    - `UnsavableError`: a layer computes with another weight than it holds (`LoRA`, unless merged by
        `graftax.merge_lora`; `QuantizedLinear`; `eqx.nn.WeightNorm`; `eqx.nn.SpectralNorm`; a wrapper
        with arrays of its own), or an array is of a dtype that safetensors files do not hold.
    - `OSError`: the file cannot be written.
    - `PatternError`: a malformed rule.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax, os, tempfile
    >>> from safetensors.numpy import load_file
    >>> file = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> model = gx.Chain(up=eqx.nn.Linear(2, 3, key=jax.random.key(0)))
    >>> gx.export_weights(file, model, rename={"up": "net.fc1"})
    >>> sorted(load_file(file))
    ['net.fc1.bias', 'net.fc1.weight']

    ```
    """
    check_exportable(model)
    names, tied = Rename(rename or {}), tied_addresses(model)
    slots = [s for s in weight_slots(model, names, own_layout=False) if s.address not in tied]
    statistics = state_statistics(model, names, state, own_layout=False)
    _check_distinct([*slots, *(group[0] for each in statistics for group in each.slots)])
    by_name: dict[str, list[Slot]] = {}
    for slot in slots:
        by_name.setdefault(slot.name, []).append(slot)
    arrays = {name: _exported(name, parts) for name, parts in by_name.items()}
    for match, *_ in batch_norms(model):
        mean, variance, count = running_statistics(match.node, state)
        values = (mean, variance, np.asarray(count, np.int64))
        arrays.update(zip(batch_norm_names(match, names), values, strict=True))
    # What transformers looks for before it loads a file.
    write_tensors(file, arrays, {"format": "pt"})


def _exported(name: str, slots: list[Slot]) -> np.ndarray:
    layouts = [slot.layout or Layout(name) for slot in slots]
    layout = layouts[0]
    if any(other._replace(part=0) != layout._replace(part=0) for other in layouts):
        raise ValueError(f"{name!r} is made of parts with layouts that contradict each other.")
    if len(slots) != layout.of:
        raise ValueError(
            f"{name!r} is made of {layout.of} parts; the model has {len(slots)} of them."
        )
    slots = sorted(slots, key=lambda slot: slot.layout.part if slot.layout else 0)
    parts = [slot.conversion.write(np.asarray(slot.leaf)) for slot in slots]
    array = transposed(join_parts(parts), layout)
    return array if layout.shape is None else array.reshape(layout.shape)
