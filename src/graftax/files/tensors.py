"""The tensors of one safetensors file, read one by one through one open handle.

A file that is saved anew is replaced, not changed: whoever has it open still sees the old one, whole. So
the header and all tensors are read through the handle that was opened first, and nothing opens the file
a second time. A file that another program does change while it is read is refused. The `safetensors`
package cannot read through a handle, and its NumPy half knows no float8; the checks here are those that
it makes.
"""

import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..paths.errors import did_you_mean
from .bounded import parse_json
from .errors import FormatError

DTYPES = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
"""From the name of a dtype in a file to JAX's."""

# The format has these too, several numbers in a byte; no array of JAX's lies so.
_PACKED_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_BITS = _PACKED_BITS | {name: 8 * jnp.dtype(dtype).itemsize for name, dtype in DTYPES.items()}

METADATA = "__metadata__"
"""The one name that no tensor can have."""

LONGEST_HEADER = 100_000_000
"""In bytes: a longer one no reader of safetensors accepts."""

# What NumPy can hold.
_MOST_AXES, _MOST_BYTES = 64, 2**63 - 1

# XLA takes over memory that begins at such an address, where it would copy any other.
_ALIGNMENT = 64


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array to be filled, in memory that `jax.device_put` need not copy on a CPU."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def need_file(path: Path) -> None:
    """Raise `FileNotFoundError`, which names what is there instead, if there is no such file."""
    if path.is_dir():
        raise FileNotFoundError(f"{str(path)!r} is a directory; a file in it was expected.")
    if path.exists() and not path.is_file():
        raise FileNotFoundError(
            f"{str(path)!r} is a device or a pipe; a file was expected, of which any part can be read."
        )
    if not path.is_file():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        hint = did_you_mean(path.name, [other.name for other in beside])
        raise FileNotFoundError(
            f"There is no file {str(path)!r}.{hint or ' Check the path, or the download.'}"
        )


class _Entry(NamedTuple):
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @classmethod
    def read(cls, entry: Any) -> "_Entry":
        """Raises `ValueError`, `TypeError` or `KeyError` if this is none."""
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        if len(shape) > _MOST_AXES:
            raise ValueError(f"a tensor of {len(shape)} axes")
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError(f"a tensor of shape {shape} from byte {begin!r} to {end!r}")
        bits = _BITS[entry["dtype"]]
        # The axes of length 0 left out: what they say of the others must be possible too.
        if bits * math.prod(filter(None, shape)) // 8 > _MOST_BYTES:
            raise ValueError(f"a tensor of shape {shape}")
        if bits * math.prod(shape) != 8 * (end - begin):
            raise ValueError(f"{end - begin} bytes for a tensor of shape {shape}")
        return cls(entry["dtype"], shape, begin, end)


class TensorFile(Mapping[str, Any]):
    """A safetensors file as a mapping from name to array. `bytes_read` counts what was read of it.

    It holds the file open until it is closed; `with TensorFile(path) as tensors` closes it.

    Raises `FormatError` for a file that is damaged, `FileNotFoundError` for one that is not there, and
    `OSError` for one that cannot be read.
    """

    size: int
    """In bytes."""
    metadata: dict[str, str]

    def __init__(self, path: str | os.PathLike[str]):
        self.path: Path = Path(path)
        self.bytes_read: int = 0
        need_file(self.path)
        # Unbuffered: straight into the array, and not a byte more than is asked for.
        self._file: BinaryIO = open(self.path, "rb", buffering=0, opener=_at_once)  # noqa: SIM115
        try:
            self._read_header()
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self.close()
            reason = f"{error!r}" if isinstance(error, KeyError) else str(error)
            raise FormatError(
                f"{str(self.path)!r} is no whole safetensors file: {reason}. Fetch or save it again."
            ) from error
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        found = os.fstat(self._file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is a device or a pipe")
        self.size = found.st_size
        self._written = found.st_mtime_ns
        length = int.from_bytes(self._file.read(8), "little")
        if not 2 <= length <= min(LONGEST_HEADER, self.size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {self.size:,}")
        header = parse_json(str(_filled(self._file, bytearray(length)), "utf-8"), self.size)
        if not isinstance(header, dict):
            raise TypeError("its header is no JSON object")
        self.metadata = _metadata(header.pop(METADATA, None))
        self._entries = {name: _Entry.read(entry) for name, entry in header.items()}
        self._start = 8 + length
        _check_places(self._entries.values(), self.size - self._start)

    def dtype(self, name: str) -> np.dtype:
        """The dtype of a tensor, without reading it."""
        stored = self._entries[name].dtype
        if stored not in DTYPES:
            raise FormatError(
                f"{str(self.path)!r}: {name!r} has the dtype {stored}, unknown to JAX."
            )
        return jnp.dtype(DTYPES[stored])

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self._entries[name].shape

    def __getitem__(self, name: str) -> np.ndarray:
        array = empty(self.shape(name), self.dtype(name))
        self._file.seek(self._start + self._entries[name].begin)
        try:
            _filled(self._file, array.reshape(-1).view(np.uint8).data)
        except EOFError:
            raise FormatError(
                f"{str(self.path)!r} ends inside {name!r}: it was cut short while it was read."
            ) from None
        if os.fstat(self._file.fileno()).st_mtime_ns != self._written:
            raise FormatError(
                f"{str(self.path)!r} was written to while it was read: what was read is of two files. Save "
                "beside the file and move it to its place, as graftax.save does, and read it again."
            )
        self.bytes_read += array.nbytes
        return array

    def close(self) -> None:
        """Let the file go. Nothing can be read after that."""
        self._file.close()

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # What `Mapping` would do is read the tensor.
    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _at_once(path: str, flags: int) -> int:
    # Whatever took the place of the file since it was looked at: a pipe is not waited for.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _filled(file: Any, memory: Any) -> Any:
    """The memory, filled with the next bytes of the file. Raises `EOFError` if there are too few."""
    rest = memoryview(memory)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise EOFError("the file ends too early")
        rest = rest[count:]
    return memory


def _metadata(found: Any) -> dict[str, str]:
    metadata = {} if found is None else found
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TypeError(f"its {METADATA} does not map names to texts")
    return metadata


def _check_places(entries: Any, size: int) -> None:
    """Raise `ValueError` unless the tensors lie end to end, and fill the file to its end."""
    place = 0
    for begin, end in sorted((entry.begin, entry.end) for entry in entries):
        if begin != place:
            raise ValueError(f"tensors that overlap, or a gap between them, at byte {place:,}")
        place = end
    if place != size:
        raise ValueError(f"{place:,} bytes of tensors where there are {size:,}")
