"""One file for a model: its arrays by path, its structure in the header."""

import json
import os
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import equinox as eqx

from ..paths.path import join
from ..surgery.selecting import select
from ..surgery.state import indices, marker_of, new_state
from .bounded import parse_json
from .decode import Decoder
from .encode import Encoder
from .errors import FormatError
from .names import Names
from .tensors import TensorFile
from .writing import write_tensors

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

    - `UnsavableError`: what could not be loaded as it was: a lambda, a wrapped function, a local class, an
        array that is deleted or traced, an object that is no part of a model; names its path.
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
    encoder = Encoder()
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


def load(file: str | os.PathLike, types: Iterable[Any] = (), where: Any = None) -> Any:
    """Read a model that `save` wrote, architecture included: no pickle, no import, no code of the file's.

    Only what a name can safely mean is looked up: layers of Equinox and graftax, functions of `jax.nn`
    and `jax.numpy`, and the `types` handed over. An unknown subclass of a container comes back as its
    standard base, with a warning.

    **Arguments:**

    - `file`: what `save` wrote.
    - `types`: further classes and functions that the file may name, by their full names (`types_of(model)`
        lists them); or a mapping from the name in the file to what it is here.
    - `where`: a criterion, as in `graftax.select`, that picks one node: only that is read.

    **Returns:**

    The model; with a saved state, the pair `(model, state)`. With `where`, the one node.

    **Raises:**

    - `FileNotFoundError`: there is no such file.
    - `FormatError`: it is damaged, hostile, of a newer format, or names what is not known here.
    - `TypeError`, `ValueError`: something in `types` has no name, or goes by the name of something else.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax, tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> gx.save(file, gx.Chain(up=eqx.nn.Linear(2, 3, key=jax.random.key(0)), act=jax.nn.relu))
    >>> gx.load(file, where="up").weight.shape
    (3, 2)

    ```
    """
    with TensorFile(file) as tensors:
        header = _header(tensors)
        decoder = Decoder(Names(types), tensors, lazy=where is not None)
        skeleton = _guarded(file, lambda: decoder.decode(header["model"]))
        for warning in dict.fromkeys(decoder.warnings):
            warnings.warn(warning, stacklevel=2)
        if where is not None:
            node = select(skeleton, where).one()
            return _guarded(file, lambda: decoder.filled(node))
        if "state" not in header:
            return skeleton
        pairs = _guarded(file, lambda: [(text, decoder.decode(v)) for text, v in header["state"]])
        return skeleton, _guarded(file, lambda: new_state(pairs))


def _header(tensors: TensorFile) -> dict[str, Any]:
    name = str(tensors.path)
    if _HEADER not in tensors.metadata:
        raise FormatError(
            f"{name!r} holds tensors but no structure: it was not written by graftax.save. "
            "Build the model and give the file to graftax.load_weights."
        )
    header = _guarded(tensors.path, lambda: parse_json(tensors.metadata[_HEADER], tensors.size))
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
