"""While a hostile file is read: nothing is imported, run or opened outside, and it costs little.

Python tells its audit hooks whatever it is about to do. A hook cannot be taken away again, so there is one,
and it looks only while a guard is up.
"""

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_FORBIDDEN = (
    "import",
    "compile",
    "exec",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "pickle.",
    "marshal.",
    "shutil.",
    "tempfile.",
    "urllib.",
    "webbrowser.",
    "pty.",
    "sys.addaudithook",
    "code.__new__",
)
# To look what is there, for a hint in an error.
_ALLOWED = ("os.listdir", "os.scandir")

_folder: str | None = None
_literals = False
_faults: list[str] = []


def _watch(event: str, arguments: tuple) -> None:
    if _folder is None:
        return
    if event == "open":
        if _may_be_opened(arguments[0], _folder) and not _writes(arguments):
            return
    elif not event.startswith(_FORBIDDEN) or event in _ALLOWED or _is_harmless(event, arguments):
        return
    _faults.append(f"{event}{arguments}"[:500])
    # So that it does not happen. It may be taken for the fault of the file, so it is kept as well.
    raise RuntimeError(_faults[-1])


def _may_be_opened(place: object, folder: str) -> bool:
    if not isinstance(place, str | bytes):
        return True
    path = os.path.realpath(os.fsdecode(place))
    # JAX reads the source of what runs, for its tracebacks.
    running = path.endswith(".py") and path in {
        os.path.realpath(getattr(module, "__file__", None) or "") for module in sys.modules.values()
    }
    return path.startswith(folder) or running


def _writes(arguments: tuple) -> bool:
    mode, flags = arguments[1:3]
    return bool(set(mode or "") & set("wax+")) or bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))


# How `collections.namedtuple` makes `__new__`; how `inspect` reads the signature of a function of C, which
# is no text of the file's.
_HARMLESS_SOURCES = ("lambda _cls, ", "def foo(")


def _is_harmless(event: str, arguments: tuple) -> bool:
    if event == "compile":
        source = arguments[0]
        text = bytes(source).decode() if isinstance(source, bytes) else str(source)
        # What `ast.literal_eval` reads is taken apart, and never run.
        return text.startswith(_HARMLESS_SOURCES) or (_literals and arguments[1] == "<unknown>")
    if event == "exec":
        inner = {code.co_name for code in arguments[0].co_consts if hasattr(code, "co_name")}
        return inner == {"<lambda>"}
    return False


sys.addaudithook(_watch)


@contextlib.contextmanager
def guarded(folder: Path, size: int, literals: bool = False) -> Iterator[None]:
    """What is done inside opens files in the folder only, to read, and costs what suits `size` bytes.

    That is at most a second, and one more for each 10 MB; and at most four times the size, and 100 MB.
    `literals` says that keys in a pattern are read, as `ast.literal_eval` does it.
    Raises `AssertionError`.
    """
    global _folder, _literals
    _literals = literals
    before, began = _fresh_peak(), time.process_time()
    _folder = os.path.realpath(folder)
    try:
        yield
    finally:
        _folder = None
        faults, _faults[:] = list(_faults), []
        assert not faults, faults
    seconds, used = time.process_time() - began, _peak() - before
    assert seconds <= 1 + size / 10_000_000, f"{seconds:.1f} s for {size:,} bytes"
    assert used <= 4 * size + 100_000_000, f"{used:,} bytes of memory for {size:,} bytes"


def _fresh_peak() -> int:
    """The memory in use. Where the system can, the peak is set back to it."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as references:
        references.write("5")
    return _peak()


def _peak() -> int:
    """The most memory that this process used, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
