"""Times taken by turns, and a table of them."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

SAMPLE = 2e-3
"""Seconds that one sample takes at least, by repetition if need be, so that the clock is fine enough."""


class Row(NamedTuple):
    """One line of the table. `goal` is what the ratio may be at most; None if there is none."""

    task: str
    size: str
    ours: float
    peer: float
    peer_name: str
    goal: float | None

    @property
    def ratio(self) -> float:
        """Our time over the peer's."""
        return self.ours / self.peer

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        return None if self.goal is None else self.ratio <= self.goal


def interleaved(
    functions: Sequence[Callable[[], Any]], seconds: float, least: int = 9
) -> list[float]:
    """The median time of each function, in seconds, measured by turns: A B A B ...

    So what else the machine does meanwhile falls on all of them alike. As `timeit` does, the garbage
    collector is left out.
    """
    repeats = [max(1, round(SAMPLE / _sample(function, 1))) for function in functions]
    repeats = [max(1, round(n * SAMPLE / _sample(f, n) / n)) * n for f, n in zip(functions, repeats)]
    samples: list[list[float]] = [[] for _ in functions]
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while len(samples[0]) < least or time.perf_counter() < end:
            for function, n, taken in zip(functions, repeats, samples, strict=True):
                taken.append(_sample(function, n) / n)
    finally:
        gc.enable()
    return [statistics.median(taken) for taken in samples]


def _sample(function: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return time.perf_counter() - start
