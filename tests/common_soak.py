"""Readers beside writers: whoever reads a file while it is saved again and again sees one save."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import graftax as gx

_WIDTH, _LAYERS = 64, 24


def _value(n: int) -> list[np.ndarray]:
    shapes = [(_WIDTH, _WIDTH), *[(_WIDTH,)] * _LAYERS]
    return [np.full(shape, n, np.float32) for shape in shapes]


def _write(file: Path, first: int, step: int, stop: threading.Event) -> None:
    n = first
    while not stop.is_set():
        gx.save(file, _value(n))
        n += step


def _reads(file: Path) -> Iterator[list]:
    """One read after the other, by all doors in turn."""
    blank = _value(0)
    directory = file.parent
    while True:
        yield gx.load(file)
        named = gx.load_weights(
            {f"a{i}": leaf for i, leaf in enumerate(blank)}, file, {"a{i}": "{i}"}
        )
        yield list(named.values())
        yield [gx.load(file, where="[1]")]
        yield jax.tree.leaves(gx.load_weights(blank, directory))


def torn_reads(directory: Path, seconds: float, processes: bool = False) -> tuple[int, int]:
    """(reads, those that mixed two saves) of a file that two writers save again and again."""
    file = directory / "model.safetensors"
    gx.save(file, _value(-1))
    # Threads share the locks of a process, processes share none: both must work.
    context = multiprocessing.get_context("spawn")
    stop = context.Event() if processes else threading.Event()
    make = context.Process if processes else threading.Thread
    writers = [make(target=_write, args=(file, i, 2, stop)) for i in range(2)]
    for writer in writers:
        writer.start()
    reads, torn, end = 0, 0, time.monotonic() + seconds
    try:
        for read in _reads(file):
            seen = {float(number) for leaf in read for number in np.ravel(leaf)}
            reads, torn = reads + 1, torn + (len(seen) != 1)
            if time.monotonic() > end:
                break
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [path.name for path in directory.iterdir()] == [file.name], "a part was left"
    return reads, torn
