"""How long saving and loading take next to plain safetensors and Equinox: `make bench`.

Wall time, by turns in one process, on one temporary directory. `graftax.save` waits until the file is
on the disk before it takes the place of the old one; so the peers are made to wait as well.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from rich.console import Console
from safetensors.numpy import load_file, save_file
from timing import Case, print_table

import graftax as gx
from graftax.files.tensors import TensorFile

WIDTH = 2048


def model_of(megabytes: int) -> gx.Chain:
    """A chain of linear layers of 16 MB each."""
    count = max(1, megabytes * 1_000_000 // (4 * WIDTH * WIDTH))
    keys = jax.random.split(jax.random.key(0), count)
    return gx.Chain([eqx.nn.Linear(WIDTH, WIDTH, use_bias=False, key=key) for key in keys])


def synced(path: Path) -> None:
    """Wait until a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def cases(model: gx.Chain, directory: Path, size: str) -> Iterator[Case]:
    """Saving and loading, against each peer."""
    ours, plain, own = (directory / name for name in ("graftax", "plain", "equinox"))

    def named() -> dict[str, np.ndarray]:
        return {path: np.asarray(a) for path, a in gx.walk(model) if eqx.is_array(a)}

    def save_plain() -> None:
        save_file(named(), plain)
        synced(plain)

    def save_equinox() -> None:
        eqx.tree_serialise_leaves(str(own), model)
        synced(Path(f"{own}.eqx"))

    def ready(tree: Any) -> None:
        jax.block_until_ready(jax.tree.leaves(eqx.filter(tree, eqx.is_array)))

    def load_plain() -> None:
        ready([jax.numpy.asarray(array) for array in load_file(plain).values()])

    save_plain()
    save_equinox()
    gx.save(ours, model)
    yield Case("save", size, lambda: gx.save(ours, model), save_plain, "safetensors.numpy", 1.1)
    yield Case("save", size, lambda: gx.save(ours, model), save_equinox, "tree_serialise_leaves")
    yield Case("load", size, lambda: ready(gx.load(ours)), load_plain, "safetensors.numpy", 1.1)
    yield Case(
        "load",
        size,
        lambda: ready(gx.load(ours)),
        lambda: ready(eqx.tree_deserialise_leaves(f"{own}.eqx", model)),
        "tree_deserialise_leaves",
    )


def bytes_of_one_layer(file: Path) -> tuple[int, int]:
    """(bytes read to load one layer by its path, bytes of the file)."""
    opened: list[TensorFile] = []

    class Counted(TensorFile):
        def __init__(self, path: Any):
            super().__init__(path)
            opened.append(self)

    original, gx.files.saving.TensorFile = gx.files.saving.TensorFile, Counted
    try:
        gx.load(file, where=".0")
    finally:
        gx.files.saving.TensorFile = original
    return sum(each.bytes_read for each in opened), file.stat().st_size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="the size of the model")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row, at least")
    options = parser.parse_args()
    model = model_of(options.megabytes)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        size = f"{gx.select(model, '').nbytes / 1e6:,.0f} MB"
        rows = list(cases(model, directory, size))
        print_table("files", rows, options.seconds, time.perf_counter)
        read, whole = bytes_of_one_layer(directory / "graftax")
    Console().print(f"one layer by its path: {read:,} of {whole:,} bytes are read")


if __name__ == "__main__":
    main()
