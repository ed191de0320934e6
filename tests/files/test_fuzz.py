"""Hostile and damaged files: a documented error or a correct load; nothing runs, nothing swells.

`make fuzz MINUTES=10` runs many more of the same cases; `common_fuzz` says what they are.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import common_guard

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "fuzz.py"


def test_whatever_a_file_holds_it_is_refused_by_name_or_loaded_right():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    counts = [re.fullmatch(r"\w+: (\d+) cases, of which (\d+) loaded", line)
              for line in done.stdout.splitlines()]  # fmt: skip
    assert len(counts) == 7 and sum(int(each[1]) for each in counts) == 2000
    # Neither the mutations nor the checks are in vain.
    assert all(0 < int(each[2]) < int(each[1]) for each in counts)


# --- The guard itself ---


@pytest.mark.parametrize(
    "fault",
    [
        lambda folder: os.system("true"),
        lambda folder: subprocess.run(["true"]),
        lambda folder: eval("1 + 1"),
        lambda folder: exec("x = 1"),
        lambda folder: __import__("antigravity"),
        lambda folder: open("/etc/passwd").close(),
        lambda folder: (folder / "new").write_text("x"),
        lambda folder: os.mkdir(folder / "new"),
    ],
)
def test_the_guard_sees_what_is_run_imported_opened_or_written(tmp_path, fault):
    sys.modules.pop("antigravity", None)
    with pytest.raises((AssertionError, RuntimeError)), common_guard.guarded(tmp_path, 1):
        fault(tmp_path)
    assert "antigravity" not in sys.modules and not os.listdir(tmp_path)


def test_the_guard_sees_a_fault_that_is_taken_for_an_error_of_the_file(tmp_path):
    with pytest.raises(AssertionError, match="passwd"), common_guard.guarded(tmp_path, 1):
        try:
            open("/etc/passwd").close()
        except RuntimeError as error:
            assert "passwd" in str(error)


def busy():
    end = time.process_time() + 1.2
    while time.process_time() < end:
        sum(range(1000))


@pytest.mark.parametrize(
    ("waste", "message"),
    [(lambda: b"x" * 300_000_000, "bytes of memory"), (busy, " s for")],
)
def test_the_guard_sees_memory_and_time(tmp_path, waste, message):
    with pytest.raises(AssertionError, match=message), common_guard.guarded(tmp_path, 1_000):
        waste()
