"""Fuzzing files: each case is a kind and a number, and is the same whenever it is run again.

A case takes something honest, mutates it, has graftax read it under `common_guard`, and checks what comes
of it: one of the documented errors, or a model whose arrays are those of the file.
"""

import contextlib
import io
import json
import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

import graftax as gx
from common_files import linear, models
from common_guard import guarded
from common_mutations import as_text, mutated_bytes, mutated_json
from common_zoo import ZOO
from graftax.cli import main
from graftax.zoo.config import ConfigError

SAVED = """
    chain nested skip tied lora partial convolutions wrappers quantized tree fusion mlp spectral
""".split()
CONFIGS = ("bert/base", "gpt2/model", "llama/gqa", "vit/base", "resnet/model", "convnext/base")


# --- What is mutated ---


class Honest(NamedTuple):
    """A saved model, taken apart."""

    content: bytes
    header: dict[str, Any]
    tensors: bytes

    @classmethod
    def read(cls, file: Path) -> "Honest":
        content = file.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        return cls(content, json.loads(content[8:end]), content[end:])

    def with_header(self, header: Any) -> bytes:
        """The file with another header."""
        text = as_text(header).encode()
        return len(text).to_bytes(8, "little") + text + self.tensors

    def with_structure(self, mutate: Callable[[Any], Any]) -> bytes:
        """The file with another structure in its header."""
        text = self.header["__metadata__"]["graftax"]
        metadata = {"graftax": as_text(mutate(json.loads(text)))}
        return self.with_header(self.header | {"__metadata__": metadata})


class Fuzz:
    """All that the cases share: honest files, and a folder of their own to read from."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.saved: list[Honest] = []
        self.model = gx.Chain(up=linear(2, 3), norm=eqx.nn.LayerNorm(3), down=linear(3, 2, 1))
        for name in SAVED:
            gx.save(folder / "model", models()[name])
            self.saved.append(Honest.read(folder / "model"))
            # What is imported or compiled for the first time is not the file's doing.
            gx.load(folder / "model")
            assert self._load(folder / "model"), name
        gx.export_weights(folder / "model", self.model)
        self.weights = Honest.read(folder / "model")
        self.cases: Mapping[str, Callable[[random.Random], bool]] = {
            "bytes": self.bytes,
            "header": self.header,
            "structure": self.structure,
            "weights": self.weights_case,
            "index": self.index,
            "config": self.config,
            "command": self.command,
        }

    def run(self, kind: str, number: int) -> bool:
        """One case. Whether what was mutated still loads; raises `AssertionError` for a fault."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.cases[kind](random.Random(f"{kind} {number}"))
        except BaseException as error:
            error.add_note(f"in case {number} of {kind!r}")
            raise

    def _case(self, content: bytes | str, name: str = "model") -> Path:
        file = self.folder / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    # --- Kinds of cases ---

    def bytes(self, rng: random.Random) -> bool:
        return self._load(self._case(mutated_bytes(rng, rng.choice(self.saved).content)))

    def header(self, rng: random.Random) -> bool:
        honest = rng.choice(self.saved)
        return self._load(self._case(honest.with_header(mutated_json(rng, honest.header))))

    def structure(self, rng: random.Random) -> bool:
        honest = rng.choice(self.saved)
        return self._load(self._case(honest.with_structure(lambda tree: mutated_json(rng, tree))))

    def weights_case(self, rng: random.Random) -> bool:
        content = (
            mutated_bytes(rng, self.weights.content)
            if rng.random() < 0.5
            else self.weights.with_header(mutated_json(rng, self.weights.header))
        )
        file = self._case(content)
        return self._weights(file, file, (gx.FormatError, gx.WeightsError))

    def index(self, rng: random.Random) -> bool:
        names = [name for name in self.weights.header if name != "__metadata__"]
        tree = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "shard.bin")}
        tree["weight_map"] = dict.fromkeys(names, "shard")
        text = as_text(mutated_json(rng, tree))
        file = self._case(
            mutated_bytes(rng, text.encode()) if rng.random() < 0.3 else text,
            "model.safetensors.index.json",
        )
        shard = self._case(self.weights.content, "shard")
        return self._weights(file, shard, (gx.FormatError, gx.WeightsError, FileNotFoundError))

    def config(self, rng: random.Random) -> bool:
        source = ZOO / rng.choice(CONFIGS)
        self._case((source / "model.safetensors").read_bytes(), "model.safetensors")
        tree = mutated_json(rng, json.loads((source / "config.json").read_text()))
        text = as_text(tree)
        self._case(mutated_bytes(rng, text.encode()) if rng.random() < 0.1 else text, "config.json")
        errors = (ConfigError, gx.FormatError, gx.WeightsError, FileNotFoundError)
        size = len(text) + (self.folder / "model.safetensors").stat().st_size
        with guarded(self.folder, size):
            try:
                model = gx.zoo.from_pretrained(self.folder)
            except errors:
                return False
        assert list(gx.walk(model))
        check_parts(model, self.folder / "model.safetensors")
        return True

    def command(self, rng: random.Random) -> bool:
        honest = rng.choice(self.saved)
        content = (
            honest.content
            if rng.random() < 0.5
            else honest.with_structure(lambda tree: mutated_json(rng, tree))
        )
        file = self._case(content)
        alphabet = "abcdefu*?{},[]()!.:-0123 \"'\\\n\0ü𝔘"
        patterns = [
            "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 12)))
            for _ in range(rng.randint(0, 2))
        ]
        # As in a terminal that knows little more than English.
        out, err = (io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2))
        with (
            guarded(self.folder, len(content), literals=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = main(["paths", "--", str(file), *patterns])
        err.seek(0)
        said = err.read()
        assert status in (0, 2) and (status == 0 or said.startswith("graftax: ")), said
        assert "Traceback" not in said
        return status == 0

    # --- Checks ---

    def _load(self, file: Path) -> bool:
        with guarded(self.folder, file.stat().st_size):
            try:
                model = gx.load(file)
            except gx.FormatError as error:
                assert str(file) in str(error), error
                return False
        stored = set(_tensors(file).values())
        for path, node in gx.walk(model):
            assert not _is_array(node) or _raw(node) in stored, f"{path!r} is not in the file"
        self._check_one_node(file, model)
        self._check_saved_again(model)
        return True

    def _check_one_node(self, file: Path, model: Any) -> None:
        *_, (path, last) = gx.walk(model)
        if path and not _is_array(last):
            found = gx.load(file, where=gx.select(model, path).paths[0])
            assert type(found) is type(last)

    def _check_saved_again(self, model: Any) -> None:
        again = self.folder / "again"
        gx.save(again, model)
        content = again.read_bytes()
        gx.save(again, gx.load(again))
        assert again.read_bytes() == content, "saved, loaded and saved it is another file"

    def _weights(self, source: Path, tensors: Path, errors: tuple) -> bool:
        with guarded(self.folder, source.stat().st_size + tensors.stat().st_size):
            try:
                model = gx.load_weights(self.model, source)
            except errors as error:
                named = (source.name, tensors.name)
                assert isinstance(error, gx.WeightsError) or any(n in str(error) for n in named)
                return False
        stored = _tensors(tensors)
        for path, node in gx.walk(model):
            if eqx.is_array(node):
                assert _raw(node) == stored[path]
        return True


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _raw(array: Any) -> bytes:
    if isinstance(array, jax.Array) and jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()


def _tensors(file: Path) -> dict[str, bytes]:
    """The bytes of each tensor, read as simply as can be."""
    honest = Honest.read(file)
    spans = {n: e["data_offsets"] for n, e in honest.header.items() if n != "__metadata__"}
    return {name: honest.tensors[begin:end] for name, (begin, end) in spans.items()}


def check_parts(model: Any, file: Path) -> None:
    """Every array of numbers of a model is one that the file holds, or a third of one."""
    honest = Honest.read(file)
    stored = {b""}
    for name, data in _tensors(file).items():
        if honest.header[name]["dtype"] == "F32":
            array = np.frombuffer(data, np.float32).reshape(honest.header[name]["shape"])
            parts = [array]
            for axis in range(array.ndim):
                if array.shape[axis] % 3 == 0:
                    parts += np.split(array, 3, axis)
            stored |= {np.sort(part, None).tobytes() for part in parts}
    for array in filter(eqx.is_inexact_array, jax.tree.leaves(model)):
        assert np.sort(np.asarray(array), None).tobytes() in stored, "an array that no file holds"
