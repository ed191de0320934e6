"""Times taken by turns, and a table of them."""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

SAMPLE = 2e-3
"""Seconds of one sample, at least: what is faster is repeated, so that the clock is fine enough."""


Clock = Callable[[], float]


class Case(NamedTuple):
    """Two functions to compare. `goal` is what our time may be at most, as a part of the peer's."""

    task: str
    size: str
    ours: Callable[[], Any]
    peer: Callable[[], Any]
    peer_name: str
    goal: float | None = None


def interleaved(
    functions: Sequence[Callable[[], Any]], seconds: float, clock: Clock = time.process_time
) -> list[float]:
    """The median time of each function, in seconds, measured by turns: A B A B ...

    By default it is the time of the processor that this process used, so other processes do not show;
    and what still shows of them, a colder cache say, falls on all functions alike. As in `timeit`, the
    garbage collector waits.
    """
    repeats = [_repeats(function, clock) for function in functions]
    samples: list[list[float]] = [[] for _ in functions]
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while len(samples[0]) < 9 or time.perf_counter() < end:
            for function, n, taken in zip(functions, repeats, samples, strict=True):
                taken.append(_sample(function, n, clock) / n)
    finally:
        gc.enable()
    return [statistics.median(taken) for taken in samples]


def _repeats(function: Callable[[], Any], clock: Clock) -> int:
    n = 1
    while (taken := _sample(function, n, clock)) < SAMPLE:
        n *= max(2, min(100, round(SAMPLE / max(taken, 1e-9))))
    return n


def _sample(function: Callable[[], Any], repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        function()
    return clock() - start


def print_table(
    title: str, cases: Sequence[Case], seconds: float, clock: Clock = time.process_time
) -> None:
    """Measure the cases, each for so many seconds, and print a row for each."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in ("task", "size", "graftax", "peer", "", "ratio", "goal", "met"):
        table.add_column(heading, justify="left" if heading in ("task", "") else "right")
    # Where the output is no terminal, rich would take it to be narrow.
    console = Console(width=None if sys.stdout.isatty() else 120)
    task = ""
    with console.status("measuring") as status:
        for case in cases:
            status.update(f"{case.task}, {case.size}")
            ours, peer = interleaved((case.ours, case.peer), seconds, clock)
            if task != case.task:
                table.add_section()
            table.add_row(
                case.task if task != case.task else "",
                case.size,
                _time(ours),
                _time(peer),
                case.peer_name,
                f"{ours / peer:.2g}",
                "" if case.goal is None else f"<= {case.goal:g}",
                _verdict(ours / peer, case.goal),
            )
            task = case.task
    console.print(table)


def _verdict(ratio: float, goal: float | None) -> str:
    if goal is None:
        return ""
    return "[green]yes[/]" if ratio <= goal else "[red]no[/]"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
