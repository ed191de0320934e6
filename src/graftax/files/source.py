"""Where weights come from: a file, shards, a directory in Hugging Face's layout, a mapping."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..paths.errors import listed
from .bounded import parse_json
from .errors import FormatError
from .tensors import TensorFile, need_file

_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Source(Mapping[str, Any]):
    """Named tensors that are read only when asked for."""

    def __init__(self, holders: Mapping[str, Mapping[str, Any]], own_layout: bool = False):
        self._holders = holders
        self.own_layout = own_layout
        """Whether graftax wrote it, so that every tensor lies as in the model."""

    def only(self, wanted: Callable[[str], bool]) -> "Source":
        """The tensors whose names are wanted."""
        return Source({n: h for n, h in self._holders.items() if wanted(n)}, self.own_layout)

    def is_fresh(self, name: str) -> bool:
        """Whether the array that is given for a name is nobody else's."""
        return isinstance(self._holders[name], TensorFile)

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._holders[name][name]
        return _from_torch(value) if hasattr(value, "detach") else np.asarray(value)

    # What `Mapping` would do is read the tensor.
    def __contains__(self, name: object) -> bool:
        return name in self._holders

    def __iter__(self) -> Iterator[str]:
        return iter(self._holders)

    def __len__(self) -> int:
        return len(self._holders)


@contextlib.contextmanager
def open_source(source: str | os.PathLike[str] | Mapping[str, Any]) -> Iterator[Source]:
    """A source by its mapping or its place, open inside `with`.

    All its files are opened at once, and none is opened a second time: what is saved meanwhile is not
    seen. A source that is open already stays so. Raises `FileNotFoundError`, `FormatError` or `OSError`.
    """
    if isinstance(source, Source):
        yield source
        return
    with contextlib.ExitStack() as files:
        yield _opened(source, files)


def _opened(
    source: str | os.PathLike[str] | Mapping[str, Any], files: contextlib.ExitStack
) -> Source:
    if isinstance(source, Mapping):
        for name, value in source.items():
            if not isinstance(name, str) or not hasattr(value, "shape"):
                raise TypeError(
                    f"Weights map names to arrays; {name!r} maps to {type(value).__name__}."
                )
        return Source(dict.fromkeys(source, source))
    path = Path(source)
    if path.is_dir():
        path = _weights_in(path)
    need_file(path)
    if path.name.endswith(".index.json"):
        return Source(_shards(path, files))
    tensors = _file(path, files)
    is_own = isinstance(tensors, TensorFile) and "graftax" in tensors.metadata
    return Source(dict.fromkeys(tensors, tensors), is_own)


def has_weights(directory: Path) -> bool:
    """Whether weights stand in a directory, in Hugging Face's layout."""
    return any((directory / name).is_file() for name in _NAMES)


def _weights_in(directory: Path) -> Path:
    for name in _NAMES:
        if (directory / name).is_file():
            return directory / name
    there = listed(sorted(p.name for p in directory.iterdir()))
    raise FileNotFoundError(
        f"The directory {str(directory)!r} holds no weights: none of {', '.join(_NAMES)}. "
        f"It holds: {there}. Weights under another name can be given by that name."
    )


def _shards(index: Path, files: contextlib.ExitStack) -> Mapping[str, Mapping[str, Any]]:
    """From the name of each tensor to the shard that holds it."""
    weight_map = _weight_map(index)
    shards = {
        shard: _file(_beside(index, shard), files) for shard in dict.fromkeys(weight_map.values())
    }
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise FormatError(
                f"{str(index)!r} says that {shard!r} holds {name!r}; it does not. They are of "
                "different versions: fetch both again."
            )
    unlisted = {name: tensors for tensors in shards.values() for name in tensors}
    return unlisted | {name: shards[shard] for name, shard in weight_map.items()}


def _weight_map(index: Path) -> Mapping[str, str]:
    """What an index says, with the names of shards that may be opened."""
    try:
        content = index.read_bytes()
        weight_map = parse_json(content.decode(), len(content))["weight_map"]
        shards = set(weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"{str(index)!r} is no index of shards: {error!r}. Fetch it again."
        ) from error
    for shard in shards:
        # A name from a file is not allowed to lead out of its directory.
        if not isinstance(shard, str) or not _is_name(shard):
            raise FormatError(
                f"{str(index)!r} names {shard!r}, which is no file beside it. Put the shards and "
                "their index into one directory, and only names into the index."
            )
    return weight_map


def _is_name(text: str) -> bool:
    """Whether a file in a directory can be called this."""
    fits = len(text.encode(errors="surrogatepass")) <= 255
    return fits and text == Path(text).name != ".." and not set(text) & {"\\", "\0"}


def _beside(index: Path, shard: str) -> Path:
    path = index.parent / shard
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(index)!r} names the shard {shard!r}, which is missing in {str(index.parent)!r}. Fetch "
            "it again, or check the download."
        )
    return path


def _file(path: Path, files: contextlib.ExitStack) -> Mapping[str, Any]:
    is_torch = path.suffix in (".bin", ".pt", ".pth")
    return _torch_file(path) if is_torch else files.enter_context(TensorFile(path))


def _torch_file(path: Path) -> Mapping[str, Any]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            f"{str(path)!r} is a PyTorch pickle, which only PyTorch can read safely: install torch, or "
            "get the checkpoint as .safetensors."
        ) from None
    try:
        # Without weights_only, a pickle runs whatever code it holds.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FormatError(
            f"{str(path)!r} is damaged, or holds more than tensors, code perhaps, none of which was "
            "run. Get the checkpoint as .safetensors."
        ) from error
    named = loaded if isinstance(loaded, Mapping) else {}
    tensors = {str(name): value for name, value in named.items() if hasattr(value, "shape")}
    if not tensors:
        holds = f"a {type(loaded).__name__} of {listed(named)}" if named else type(loaded).__name__
        raise FormatError(
            f"{str(path)!r} holds no named tensors, but {holds}. Load it with torch.load(..., "
            "weights_only=True) and hand over what maps names to tensors."
        )
    return tensors


def _from_torch(tensor: Any) -> np.ndarray:
    import torch  # pyright: ignore[reportMissingImports]

    # By its bytes, because PyTorch's own conversion lacks what NumPy has from ml_dtypes.
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    dtype = jnp.dtype(str(tensor.dtype).removeprefix("torch."))
    return flat.view(torch.uint8).numpy().view(dtype).reshape(tuple(tensor.shape))
