"""Fuzz what reads files: `make fuzz MINUTES=10`, or the 2,000 cases of the tests if no time is given.

Prints one line a kind of case, and for each fault the command that runs its case again. The cases are those
of `tests/common_fuzz.py`, run without pytest: its hooks import and compile what a user's process does not.
"""

import argparse
import itertools
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from common_fuzz import Fuzz
from common_soak import torn_reads

# As many of each as it has ways to go wrong.
COUNTS = {
    "bytes": 250,
    "header": 250,
    "structure": 700,
    "weights": 200,
    "index": 200,
    "config": 250,
    "command": 150,
}


def main() -> int:
    """The exit status: 1 if there was any fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, help="how long; a tenth of it readers beside writers"
    )
    parser.add_argument("--case", metavar="KIND:NUMBER", help="run this one case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder))
        if options.case:
            kind, _, number = options.case.partition(":")
            print("loaded" if fuzz.run(kind, int(number)) else "refused")
            return 0
        faults = run_all(fuzz, cases_for(options.minutes))
    if options.minutes:
        faults += soak(options.minutes * 6)
    return 1 if faults else 0


def cases_for(minutes: float | None) -> Iterator[tuple[str, int]]:
    """Kinds and numbers: those of the tests, or others for so long."""
    if minutes is None:
        yield from ((kind, i) for kind, count in COUNTS.items() for i in range(count))
        return
    end = time.monotonic() + minutes * 54
    # Behind those of the tests, and never the same twice.
    for number in itertools.count(time.time_ns()):
        for kind in COUNTS:
            if time.monotonic() > end:
                return
            yield kind, number


def run_all(fuzz: Fuzz, cases: Iterable[tuple[str, int]]) -> int:
    """The number of faults, each of which is printed."""
    run: Counter[str] = Counter()
    loaded: Counter[str] = Counter()
    faults = 0
    for kind, number in cases:
        run[kind] += 1
        try:
            loaded[kind] += fuzz.run(kind, number)
        except Exception:
            faults += 1
            print(
                f"\nFAULT: python scripts/fuzz.py --case {kind}:{number}\n{traceback.format_exc()}"
            )
    for kind, count in run.items():
        print(f"{kind}: {count} cases, of which {loaded[kind]} loaded")
    return faults


def soak(seconds: float) -> int:
    """The number of reads that saw two saves at once."""
    torn = 0
    for processes in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            reads, bad = torn_reads(Path(folder), seconds / 2, processes)
            print(
                f"readers beside {'processes' if processes else 'threads'}: {reads} reads, {bad} torn"
            )
            torn += bad
    return torn


if __name__ == "__main__":
    sys.exit(main())
