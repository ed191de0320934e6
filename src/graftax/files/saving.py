"""One file for a model: its arrays by path, its structure in the header."""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax

from ..paths.errors import listed
from ..paths.path import walk
from ..paths.types import PyTree
from ..surgery.selecting import select
from ..surgery.state import indices, marker_of, with_state, with_state_values
from .bounded import parse_json
from .decode import Decoder
from .encode import Encoder
from .errors import FormatError, UnsavableError
from .names import Names
from .tensors import TensorFile
from .writing import write_tensors

FORMAT = 1
_HEADER = "graftax"


def save(file: str | os.PathLike[str], model: PyTree, state: eqx.nn.State | None = None) -> None:
    """Write a model to one `.safetensors` file: `load(file)` is the model, bit for bit.

    The arrays are keyed by their path; any safetensors reader can read them. Arrays that stand in
    several places are stored once. The file is written beside its place and then moved there, so that
    a crash leaves the old file whole, and who reads it meanwhile sees one of the two.

    **Arguments:**

    - `file`: where to write. What a link points at is replaced, and keeps its permissions; a directory,
        a device or a pipe is not replaced.
    - `model`: any pytree of Equinox's and graftax's layers, plain containers, arrays and public
        functions.
    - `state`: its `eqx.nn.State`, if it was separated from one. Its values are saved in the model, as by
        `graftax.with_state`.

    **Raises:**

    - `UnsavableError`: what could not be loaded as it was: a lambda, a wrapped function, a local class, an
        array that is deleted or traced, an object that is no part of a model; names its path.
    - `ValueError`: the state is not that of this model.
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
    header = {
        "format": FORMAT,
        "graftax": version("graftax"),
        "equinox": version("equinox"),
        "model": encoder.encode(model if state is None else with_state(model, state), ""),
    }
    _check_tree(model)
    write_tensors(file, encoder.arrays, {_HEADER: json.dumps(header)})


def _check_tree(model: PyTree) -> None:
    """Raise `UnsavableError` for what JAX cannot take apart, and so no function of JAX's could use."""
    try:
        jax.tree.structure(model)
    except (ValueError, TypeError) as error:
        unsorted = [repr(path) for path, node in walk(model) if _cannot_be_sorted(node)]
        raise UnsavableError(
            f"The model is no tree to JAX: {error} The keys of a dict must be of one kind: see "
            f"{listed(unsorted)}."
        ) from error


def _cannot_be_sorted(node: Any) -> bool:
    if type(node) is dict:
        try:
            sorted(node)
        except TypeError:
            return True
    return False


def load(file: str | os.PathLike[str], types: Iterable[Any] = (), where: Any = None) -> Any:
    """Read a model that `save` wrote, architecture included: no pickle, no import, no code of the file's.

    Only what a name can safely mean is looked up: layers of Equinox and graftax, functions of `jax.nn`
    and `jax.numpy`, and the `types` handed over. An unknown subclass of a container comes back as its
    standard base, with a warning. The file is opened once: what is saved there meanwhile is not seen.

    **Arguments:**

    - `file`: what `save` wrote.
    - `types`: further classes and functions that the file may name, by their full names (`types_of(model)`
        lists them); or a mapping from the name in the file to what it is here.
    - `where`: a criterion, as in `graftax.select`, that picks one node of the model: `load(file,
        where=p)` is `select(load(file), p).one()`. By a pattern or the type of a layer, that node alone
        is read; a predicate, or a type of arrays, is asked about arrays, so all are read.

    **Returns:**

    The model alone, with running statistics inside; `eqx.nn.make_with_state(graftax.load)(file)` is
    `(model, state)`. With `where`, the one node.

    **Raises:**

    - `FileNotFoundError`: there is no such file; `OSError`: it cannot be read.
    - `FormatError`: it is damaged, hostile, of a newer format, or names what is not known here.
    - `TypeError`, `ValueError`: something in `types` has no name, or goes by the name of something else.
    - With `where`, what `graftax.select(model, where).one()` raises.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax, tempfile, os
    >>> file = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> gx.save(file, gx.Chain(up=eqx.nn.Linear(2, 3, key=jax.random.key(0)), act=jax.nn.relu))
    >>> gx.load(file, where="up").weight.shape
    (3, 2)

    ```
    """
    lazy = where is not None and _asks_for_paths(where)
    with TensorFile(file) as tensors:
        header = _header(tensors)
        decoder = Decoder(Names(types), tensors, lazy)
        model = _guarded(file, lambda: _decoded(decoder, header))
        for warning in dict.fromkeys(decoder.warnings):
            warnings.warn(warning, stacklevel=2)
        if lazy:
            assert where is not None
            node = select(model, where).one()
            return _guarded(file, lambda: decoder.filled(node))
    return model if where is None else select(model, where).one()


def _asks_for_paths(where: Any) -> bool:
    """Whether a criterion can be answered before the arrays are read."""
    each = where if isinstance(where, list | tuple) else [where]
    return all(
        isinstance(one, str | re.Pattern) or (isinstance(one, type) and issubclass(one, eqx.Module))
        for one in each
    )


def _decoded(decoder: Decoder, header: dict[str, Any]) -> Any:
    """The model that the header describes."""
    model = decoder.decode(header["model"])
    # Until values of a state were saved in the model, they stood beside it.
    beside = {marker: decoder.decode(value) for marker, value in header.get("state", ())}
    found = [match.node for match in indices(model)] if beside else []
    values = [(index, beside[marker_of(index)]) for index in found if marker_of(index) in beside]
    if len({marker_of(index) for index, _ in values}) != len(beside):
        raise FormatError("its state holds values that no layer of the model takes")
    model, _ = with_state_values(model, values, None)
    jax.tree.structure(model)  # which raises an error for what is no tree
    return model


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
