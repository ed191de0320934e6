"""One file for a model: its arrays by path, its structure in the header."""

import json
import os
import stat
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ..paths.path import join
from ..surgery.selecting import select
from ..surgery.state import indices, marker_of, new_state
from .decode import Decoder, filled
from .encode import STORABLE, Encoder
from .errors import FormatError, UnsavableError
from .names import Names
from .tensors import METADATA, TensorFile

FORMAT = 1
_HEADER = "graftax"


def save(file: str | os.PathLike, model: Any, state: eqx.nn.State | None = None) -> None:
    """Write a model to one `.safetensors` file: `load(file)` is the model, bit for bit.

    The arrays are keyed by their path; any safetensors reader can read them. Arrays that stand in
    several places are stored once. The file is written beside its place and then moved there, so that
    a crash leaves the old file whole.

    **Arguments:**

    - `file`: where to write.
    - `model`: any pytree of Equinox's and graftax's layers, plain containers, arrays and public
        functions.
    - `state`: its `eqx.nn.State`, if it has one.

    **Raises:**

    - `UnsavableError`: a lambda, a local function or class, or an object that is no part of a model;
        names its path.
    - `OSError`: the file cannot be written.

    **Example:**

    ```python
    >>> import graftax as gx, jax, tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> gx.save(file, gx.Chain(act=jax.nn.relu))
    >>> gx.load(file)
    Chain(act=relu)

    ```
    """
    encoder = Encoder(model)
    header: dict[str, Any] = {
        "format": FORMAT,
        "graftax": version("graftax"),
        "equinox": version("equinox"),
        "model": encoder.encode(model, ""),
    }
    if state is not None:
        header["state"] = _encoded_state(encoder, model, state)
    write_tensors(file, encoder.arrays, {_HEADER: json.dumps(header)})


def _encoded_state(encoder: Encoder, model: Any, state: eqx.nn.State) -> list[list[Any]]:
    encoded = {}
    for match in indices(model):
        marker = encoder.markers[marker_of(match.node)]
        # Called as in a model that still holds its state: `load_weights` then knows it by name.
        place = join(encoder.places[marker], "init")
        encoded.setdefault(marker, encoder.encode(state.get(match.node), place))
    return [[marker, value] for marker, value in encoded.items()]


def write_tensors(
    file: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write a safetensors file, whole or not at all, as readable as any other file.

    Raises `UnsavableError` for a name or dtype that the format lacks.
    """
    if METADATA in arrays:
        raise UnsavableError(f"No tensor of a safetensors file can be called {METADATA!r}.")
    for name, array in arrays.items():
        if array.dtype.name not in STORABLE:
            raise UnsavableError(f"{name!r} is {array.dtype}, which safetensors files do not hold.")
    # Through a link to what it points at, as `open` does.
    path = Path(file).resolve()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no directory {str(path.parent)!r} to write to.")
    whole = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        permissions = _permissions(path, temporary)
        save_file(whole, temporary, metadata)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, permissions)
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(f"{str(path)!r} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _permissions(path: Path, temporary: Path) -> int:
    """Those of the file that is replaced, else those that `open` gives to a new one."""
    # safetensors gives its files to their owner alone.
    with open(temporary, "xb") as new:
        found = os.fstat(new.fileno())
    return stat.S_IMODE((path.stat() if path.is_file() else found).st_mode)


def load(file: str | os.PathLike, types: Iterable[Any] = (), where: Any = None) -> Any:
    """Read a model that `save` wrote, architecture included: no pickle, no import, no code of the file's.

    Only what a name can safely mean is looked up: layers of Equinox and graftax, functions of `jax.nn`
    and `jax.numpy`, and the `types` handed over. An unknown subclass of a container comes back as its
    standard base, with a warning.

    **Arguments:**

    - `file`: what `save` wrote.
    - `types`: further classes and functions that the file may name.
    - `where`: a criterion, as in `graftax.select`, that picks one node: only that is read.

    **Returns:**

    The model; with a saved state, the pair `(model, state)`. With `where`, the one node.

    **Raises:**

    - `FileNotFoundError`: there is no such file.
    - `FormatError`: it is damaged, hostile, of a newer format, or names what is not known here.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax, tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> gx.save(file, gx.Chain(up=eqx.nn.Linear(2, 3, key=jax.random.key(0)), act=jax.nn.relu))
    >>> gx.load(file, where="up").weight.shape
    (3, 2)

    ```
    """
    tensors = TensorFile(file)
    header = _header(tensors)
    decoder = Decoder(Names(types), tensors)
    skeleton = _guarded(file, lambda: decoder.decode(header["model"]))
    for warning in dict.fromkeys(decoder.warnings):
        warnings.warn(warning, stacklevel=2)
    if where is not None:
        node = select(skeleton, where).one()
        return _guarded(file, lambda: filled(node, tensors))
    if "state" not in header:
        return _guarded(file, lambda: filled(skeleton, tensors))
    pairs = _guarded(file, lambda: [(text, decoder.decode(v)) for text, v in header["state"]])
    model, values = _guarded(file, lambda: filled((skeleton, pairs), tensors))
    return model, _guarded(file, lambda: new_state(values))


def _header(tensors: TensorFile) -> dict[str, Any]:
    name = str(tensors.path)
    if _HEADER not in tensors.metadata:
        raise FormatError(
            f"{name!r} holds tensors but no structure: it was not written by graftax.save. "
            "Build the model and give the file to graftax.load_weights."
        )
    header = _guarded(tensors.path, lambda: json.loads(tensors.metadata[_HEADER]))
    found = header.get("format") if isinstance(header, dict) else None
    if type(found) is not int or found < 1 or "model" not in header:
        raise FormatError(f"{name!r} has a header that cannot be read.")
    if found > FORMAT:
        raise FormatError(
            f"{name!r} is of format {found}; this version of graftax reads up to format {FORMAT}. "
            "Install a newer graftax."
        )
    return header


def _guarded(file: Any, read: Callable[[], Any]) -> Any:
    # The header is anybody's text. Whatever it makes the decoder stumble over, it is the file's fault.
    try:
        return read()
    except FormatError as error:
        raise FormatError(f"{str(file)!r} cannot be loaded: {error}.") from None
    except (Exception, RecursionError) as error:
        raise FormatError(
            f"{str(file)!r} cannot be loaded: its structure is damaged ({type(error).__name__}: {error})."
        ) from error
