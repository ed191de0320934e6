"""Where weights come from: a file, shards, a directory in Hugging Face's layout, a mapping."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FormatError
from .tensors import TensorFile

_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Source(Mapping):
    """Named tensors that are read only when asked for. `shape` and `dtype` read nothing."""

    def __init__(self, parts: list[tuple[str, Mapping[str, Any]]], own_layout: bool = False):
        self.where = {name: (origin, tensors) for origin, tensors in parts for name in tensors}
        self.own_layout = own_layout
        """Whether graftax wrote it, so that every tensor lies as in the model."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        tensors = self.where[name][1]
        return (
            tensors.shape(name) if isinstance(tensors, TensorFile) else tuple(tensors[name].shape)
        )

    def __getitem__(self, name: str) -> np.ndarray:
        value = self.where[name][1][name]
        return _from_torch(value) if hasattr(value, "detach") else np.asarray(value)

    # What `Mapping` would do is read the tensor.
    def __contains__(self, name: object) -> bool:
        return name in self.where

    def __iter__(self) -> Iterator[str]:
        return iter(self.where)

    def __len__(self) -> int:
        return len(self.where)


def open_source(source: str | os.PathLike | Mapping[str, Any]) -> Source:
    """A source by its mapping or its place. Raises `FileNotFoundError` or `FormatError`."""
    if isinstance(source, Source):
        return source
    if isinstance(source, Mapping):
        for name, value in source.items():
            if not isinstance(name, str) or not hasattr(value, "shape"):
                raise TypeError(
                    f"Weights map names to arrays; {name!r} maps to {type(value).__name__}."
                )
        return Source([("the mapping", source)])
    path = Path(source)
    if path.is_dir():
        path = _weights_in(path)
    if path.name.endswith(".index.json"):
        return _shards(path)
    return Source([_file(path)], own_layout=_is_own(path))


def _weights_in(directory: Path) -> Path:
    for name in _NAMES:
        if (directory / name).is_file():
            return directory / name
    there = ", ".join(sorted(p.name for p in directory.iterdir())[:10]) or "nothing"
    raise FileNotFoundError(
        f"The directory {str(directory)!r} holds no weights: none of {', '.join(_NAMES)}. "
        f"It holds: {there}."
    )


def _shards(index: Path) -> Source:
    if not index.is_file():
        raise FileNotFoundError(f"There is no file {str(index)!r}.")
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{str(index)!r} is no index of shards: {error!r}.") from error
    for shard in shards:
        # A name from a file is not allowed to lead out of its directory.
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise FormatError(f"{str(index)!r} names {shard!r}, which is no file beside it.")
        if not (index.parent / shard).is_file():
            raise FileNotFoundError(
                f"{str(index)!r} names the shard {shard!r}, which is missing in "
                f"{str(index.parent)!r}. Fetch it again, or check the download."
            )
    parts = [_file(index.parent / shard) for shard in shards]
    for name, shard in weight_map.items():
        if not any(name in tensors for origin, tensors in parts if Path(origin).name == shard):
            raise FormatError(f"{str(index)!r} says that {shard!r} holds {name!r}; it does not.")
    return Source(parts)


def _file(path: Path) -> tuple[str, Mapping[str, Any]]:
    if path.suffix in (".bin", ".pt", ".pth"):
        return str(path), _torch_file(path)
    return str(path), TensorFile(path)


def _is_own(path: Path) -> bool:
    return path.suffix == ".safetensors" and "graftax" in TensorFile(path).metadata


def _torch_file(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
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
        raise FormatError(f"{str(path)!r} holds no plain tensors: {error}") from error
    if not isinstance(loaded, Mapping):
        raise FormatError(f"{str(path)!r} holds a {type(loaded).__name__}, not named tensors.")
    return {str(name): value for name, value in loaded.items() if hasattr(value, "shape")}


def _from_torch(tensor: Any) -> np.ndarray:
    import ml_dtypes

    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        return tensor.view(dtype=_torch_int16()).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _torch_int16() -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    return torch.int16
