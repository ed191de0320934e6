"""What tests of the convolutional families share: what leaves each layer, and comparisons of files."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

import graftax as gx
from common_zoo import check_round_trip, fixture, same_bits, separated


def parts(name: str) -> tuple[Any, eqx.nn.State | None]:
    """The model of a fixture and its state, None if it keeps none."""
    return separated(name)


def features(model: Any, x: Any, state: Any = None, prefix: str = "") -> dict[str, Any]:
    """What leaves every layer of every Chain and SkipConnection in a model, by path."""
    found = {}
    chain = gx.Chain({str(k): v for k, v in model.items()} if model.labels else list(model))
    outputs = gx.activations(chain, x, state=state)
    for label, y in (outputs if state is None else outputs[0]).items():
        path = f"{prefix}{label}"
        if isinstance(model[label], gx.Chain | gx.SkipConnection):
            found |= features(model[label], x, state, f"{path}.")
        found[path] = x = y
    return found


@functools.cache
def run(name: str) -> Mapping[str, np.ndarray]:
    """The features of a fixture for its batch of images; the output is the last."""
    model, state = parts(name)
    # An ordered mapping would come out of `jit` as it is; a dict comes out sorted.
    paths: list[str] = []

    def all_of(x):
        found = features(model, x, state)
        paths[:] = found
        return list(found.values())

    outputs = jax.jit(jax.vmap(all_of))(fixture(name).io["input.pixel_values"])
    return dict(zip(paths, map(np.asarray, outputs), strict=True))


def check_export(tensors: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray]) -> None:
    """What was exported is what was stored, bit for bit, counts of batches too where it had them."""
    counts = {n for n in tensors if n.endswith("num_batches_tracked")}
    if not counts & stored.keys():
        assert all(tensors[n] == 0 for n in counts)
        tensors = parameters(tensors)
    same_bits(tensors, stored)


def parameters(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors without the counts of batches, which Equinox keeps otherwise and inference ignores."""
    return {n: a for n, a in tensors.items() if not n.endswith("num_batches_tracked")}


def check_state_round_trip(tmp_path: Path, name: str) -> None:
    """A saved fixture loads with its state, bit for bit."""
    model, state = parts(name)
    check_round_trip(tmp_path, model)
    gx.save(tmp_path / "with_state.safetensors", model, state)
    _, loaded = eqx.nn.make_with_state(gx.load)(tmp_path / "with_state.safetensors")
    pairs = list(zip(jax.tree.leaves(loaded), jax.tree.leaves(state), strict=True))
    assert len(pairs) == 3 * len(gx.select(model, eqx.nn.BatchNorm))
    for found, expected in pairs:
        assert found.dtype == expected.dtype
        assert np.asarray(found).tobytes() == np.asarray(expected).tobytes()


def count_parameters(model: Any) -> int:
    """The numbers that are learnt: running statistics are none."""
    is_state = lambda node: isinstance(node, eqx.nn.StateIndex)
    leaves = jax.tree.leaves(model, is_leaf=is_state)
    return sum(leaf.size for leaf in leaves if not is_state(leaf) and hasattr(leaf, "shape"))


@eqx.filter_jit
def call(layer: Any, *inputs: Any, **keywords: Any) -> Any:
    """The output of a layer, compiled: op by op, each test would compile each of them."""
    return layer(*inputs, **keywords)
