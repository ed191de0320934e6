"""One array of a model, and the entry that says how its bytes lie in the file."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .errors import FormatError, Unstorable
from .tensors import DTYPES, TensorFile

Entry = Mapping[str, Any]

ARRAYS = (jax.Array, np.ndarray, np.generic)

STORABLE = frozenset(DTYPES.values())
# What Python's own numbers become: the only arrays that JAX makes weakly typed.
_WEAK = frozenset(("int32", "int64", "float32", "float64", "complex64", "complex128"))


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """An array that is still in the file: what its JSON says of it. A leaf, as the array will be."""

    entry: Entry


def check_storable(array: Any) -> None:
    """Raise `Unstorable` for an array whose bytes are not there, or mean nothing outside this process."""
    if isinstance(array, Tracer):
        raise Unstorable(
            "is an array that is being traced: it has no values yet. Save outside of jit, grad, vmap"
        )
    if isinstance(array, jax.Array):
        _check_jax(array)
    else:
        _check_numpy(array)


def _check_jax(array: jax.Array) -> None:
    if array.is_deleted():
        raise Unstorable(
            "is an array that was deleted, or donated to a jitted function. Save the model that the "
            "function returned"
        )
    if not array.is_fully_addressable:
        raise Unstorable(
            "is an array of which a part is on another host. Gather it first, for instance with "
            "jax.experimental.multihost_utils.process_allgather"
        )
    if is_key(array):
        if not isinstance(jax.random.key_impl(array), str):
            raise Unstorable("is a random key of an implementation that has no name")
    elif array.weak_type and array.dtype.name not in _WEAK:
        raise Unstorable(f"is a weakly typed array of {array.dtype}. Give it its dtype by astype")


def _check_numpy(array: Any) -> None:
    if isinstance(array, np.ndarray) and type(array) is not np.ndarray:
        raise Unstorable(
            f"is a {type(array).__name__}, of which a file would hold only the values. Save "
            "numpy.asarray(it), and what makes it special beside it"
        )
    dtype = dtype_of_name(array.dtype.name)
    # Of dates, text and structures the name says too little.
    if dtype is None or dtype != array.dtype.newbyteorder("="):
        raise Unstorable(
            f"is a NumPy array of {array.dtype}. A file holds numbers and booleans, in plain arrays"
        )


def dtype_of_name(name: Any) -> np.dtype | None:
    """The dtype of a name, if it is one of numbers or booleans."""
    # Of other texts, NumPy would make dtypes of several parts, and parse them as Python for it.
    if not isinstance(name, str) or not re.fullmatch(r"[<>|=]?[A-Za-z]\w*", name):
        return None
    try:
        dtype = jnp.dtype(name)
    except TypeError:
        return None
    # Of kind V are JAX's own small floats too.
    return dtype if dtype.kind in "biufcV" and not issubclass(dtype.type, np.void) else None


def dtype_name(dtype: np.dtype) -> str:
    """The text that `jnp.dtype` makes this dtype of. Raises `Unstorable` if there is none."""
    # The name says nothing of the order of bytes, and the other one nothing of JAX's own dtypes.
    for name in (dtype.name, dtype.str):
        if (found := dtype_of_name(name)) is not None and found == dtype:
            return name
    raise Unstorable(f"is the dtype {dtype}. A file holds those of numbers and booleans")


def is_key(array: Any) -> bool:
    """Whether it is an array of typed random keys."""
    return isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def described(array: Any) -> dict[str, Any]:
    """What an entry says of an array besides its name. `raw` is what then stands in the file."""
    if is_key(array):
        return {"random_key": str(jax.random.key_impl(array))}
    found: dict[str, Any] = {}
    if not isinstance(array, jax.Array):
        found["numpy"] = "array" if isinstance(array, np.ndarray) else "scalar"
        if not array.dtype.isnative:
            found["byteorder"] = array.dtype.byteorder
    elif array.weak_type:
        found["weak"] = True
    if array.dtype.name not in STORABLE:
        found |= {"dtype": array.dtype.name, "shape": list(array.shape)}
    return found


def raw(array: Any) -> np.ndarray:
    """The array as a tensor of a safetensors file: of a dtype that these have, else its bytes along a
    new last axis."""
    found = np.asarray(jax.random.key_data(array) if is_key(array) else array)
    found = found.astype(found.dtype.newbyteorder("="), copy=False)
    if found.dtype.name in STORABLE:
        return found
    flat = np.ascontiguousarray(found).reshape(-1)
    return flat.view(np.uint8).reshape(*found.shape, found.dtype.itemsize)


def materialised(entry: Entry, tensors: TensorFile) -> Any:
    """The array that an entry stands for: `described` and `raw` undone."""
    found = tensors[entry["array"]]
    if "shape" in entry:
        dtype = dtype_of_name(entry["dtype"])
        if dtype is None:
            raise FormatError(f"{entry['array']!r} is of no dtype of numbers: {entry['dtype']!r}")
        found = found.reshape(-1).view(dtype).reshape(entry["shape"])
    if "random_key" in entry:
        return jax.random.wrap_key_data(jnp.asarray(found), impl=entry["random_key"])
    if "numpy" in entry:
        order = entry.get("byteorder", "=")
        swapped = found.astype(found.dtype.newbyteorder(order), copy=False)
        return swapped if entry["numpy"] == "array" else swapped[()]
    # The memory is ours alone, so JAX may have it.
    array = jax.device_put(found)
    if array.dtype != found.dtype:
        raise FormatError(
            f"{entry['array']!r} is {found.dtype}, which JAX holds only with jax_enable_x64 set: "
            'jax.config.update("jax_enable_x64", True)'
        )
    return _weak(array) if entry.get("weak") else array


def _weak(array: jax.Array) -> jax.Array:
    # JAX says of no function that it makes an array weak; but a zero of Python's is, and stays so.
    zeros = jnp.broadcast_to(jnp.asarray(array.dtype.type(0).item()), array.shape)
    found = zeros.at[...].set(array)
    if found.dtype != array.dtype:
        raise FormatError(
            f"an array of it is weakly typed and {array.dtype}, which JAX makes only with "
            "jax_enable_x64 set as it was when the model was saved"
        )
    return found
