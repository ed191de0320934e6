"""Files that are written whole or not at all, beside readers, other writers and the killed.

The new file is written under a name of its own, `.graftax-....part`, in the same directory, and then
moved to its place. A writer holds a lock on its part as long as it lives; the system lets go of the lock
when the writer is killed. So a part that can be locked is nobody's any more, and a later save takes it
away.
"""

import contextlib
import errno
import json
import os
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .bounded import is_bounded
from .errors import UnsavableError
from .tensors import DTYPES, LONGEST_HEADER, METADATA

try:
    import fcntl
except ImportError:  # not on Windows: there, nothing is locked and nothing taken away
    fcntl = None

_STORED = {dtype: name for name, dtype in DTYPES.items()}
_PART = ".graftax-{}.part"
_ANY_PART = _PART.format("[0-9a-f]" * 32)


def write_tensors(
    file: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write a safetensors file, whole or not at all, as readable as any other file.

    Raises `UnsavableError` for a name or dtype that the format lacks, `OSError` if the file cannot be
    written, or if a directory, a device or a pipe stands there.
    """
    # As safetensors does: where a tensor begins suits its dtype, because the widest come first.
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header = _header({name: arrays[name] for name in names}, metadata)
    with replacement(file) as out:
        out.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            out.write(_bytes_of(arrays[name]))


def _header(arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    entries: dict[str, object] = {METADATA: metadata}
    begin = 0
    for name, array in arrays.items():
        if name == METADATA:
            raise UnsavableError(f"No tensor of a safetensors file can be called {METADATA!r}.")
        if array.dtype.name not in _STORED:
            raise UnsavableError(f"{name!r} is {array.dtype}, which safetensors files do not hold.")
        end = begin + array.nbytes
        entries[name] = {
            "dtype": _STORED[array.dtype.name],
            "shape": array.shape,
            "data_offsets": (begin, end),
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise UnsavableError(f"The name of a tensor is no text: {error}.") from None
    if not is_bounded(text, begin + len(encoded)) or len(encoded) > LONGEST_HEADER - 8:
        raise UnsavableError(
            f"The model is of so many parts that no reader would take the header, {len(encoded):,} "
            "bytes, for an honest one. Put numbers that belong together into one array."
        )
    # Padded, so that the first tensor begins where any dtype may.
    return encoded + b" " * (-len(encoded) % 8)


def _bytes_of(array: np.ndarray) -> memoryview:
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def replacement(file: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `file` if all goes well, and else vanishes.

    Raises `OSError` if it cannot be written, or if a directory, a device or a pipe stands there.
    """
    path = _target(file)
    _take_leftovers_away(path.parent)
    part, out = _new_part(path.parent)
    try:
        with out:
            # First of all: what is written must not be for more eyes than what it replaces.
            if path.exists():
                os.chmod(part, stat.S_IMODE(path.stat().st_mode))
            yield out
            out.flush()
            os.fsync(out.fileno())
            # Before the lock is let go with the file: else it would be taken for a leftover.
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _target(file: str | os.PathLike[str]) -> Path:
    """The file to be replaced or made: through a link, what it points at, as `open` does."""
    path = Path(file)
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "a device or a pipe"
        raise OSError(f"{str(path)!r} is {what}, which a saved file cannot take the place of.")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "The file is protected against writing", str(path))
    try:
        path = path.resolve()
    except RuntimeError as error:
        raise OSError(errno.ELOOP, "The links lead in a circle", str(path)) from error
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no directory {str(path.parent)!r} to write to.")
    return path


def _new_part(directory: Path) -> tuple[Path, BinaryIO]:
    """A new file under a name that no other has, locked. It gets the permissions that `open` gives."""
    while True:
        # Short, whatever the name of the file: names are of 255 bytes at most.
        part = directory / _PART.format(uuid.uuid4().hex)
        out = open(part, "xb")  # noqa: SIM115
        _lock(out.fileno(), wait=True)
        # Between the two, another save may have taken it for a leftover.
        if _is_at(out.fileno(), part):
            return part, out
        out.close()


def _take_leftovers_away(directory: Path) -> None:
    for part in directory.glob(_ANY_PART):
        # One of another user's, or that another save has just moved or taken away.
        with contextlib.suppress(OSError):
            _take_away_if_left(part)


def _take_away_if_left(part: Path) -> None:
    handle = os.open(part, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        if is_file and _lock(handle, wait=False) and _is_at(handle, part):
            part.unlink()
    finally:
        os.close(handle)


def _lock(handle: int, wait: bool) -> bool:
    """Whether the file is locked now; not if another holds it, or where there are no such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False
