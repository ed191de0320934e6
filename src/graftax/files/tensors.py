"""The tensors of one safetensors file, read one by one.

The `safetensors` package checks the file; the bytes are read here, because its NumPy half knows no
float8 and because only what is asked for is to be read.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from ..paths.errors import did_you_mean
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

METADATA = "__metadata__"
"""The one name that no tensor can have."""


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
    if not path.is_file():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        hint = did_you_mean(path.name, [other.name for other in beside])
        raise FileNotFoundError(
            f"There is no file {str(path)!r}.{hint or ' Check the path, or the download.'}"
        )


class _Entry(NamedTuple):
    """What the header says of one tensor. That it is true, `safetensors` has checked."""

    dtype: str
    shape: tuple[int, ...]
    begin: int

    @classmethod
    def read(cls, entry: Any) -> "_Entry":
        return cls(entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][0])


class TensorFile(Mapping):
    """A safetensors file as a mapping from name to array. `bytes_read` counts what was read of it.

    Raises `FormatError` for a file that is damaged, `FileNotFoundError` for one that is not there.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.bytes_read = 0
        need_file(self.path)
        try:
            with safe_open(self.path, framework="np"):
                pass
            with open(self.path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header: dict[str, Any] = json.loads(file.read(length))
            self.metadata: dict[str, str] = header.pop(METADATA, None) or {}
            self._entries = {name: _Entry.read(entry) for name, entry in header.items()}
        except (SafetensorError, ValueError, TypeError, RecursionError, OSError) as error:
            raise FormatError(
                f"{str(self.path)!r} is no whole safetensors file: {error}. Fetch or save it again."
            ) from error
        self._start = 8 + length

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
        rest = array.reshape(-1).view(np.uint8).data
        # Unbuffered: straight into the array, and not a byte more than is asked for.
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self._start + self._entries[name].begin)
            while rest:
                count = file.readinto(rest)
                if not count:
                    raise FormatError(f"{str(self.path)!r} ends inside {name!r}: it was cut short.")
                self.bytes_read += count
                rest = rest[count:]
        return array

    # What `Mapping` would do is read the tensor.
    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self):
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
