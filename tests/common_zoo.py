"""What tests of the zoo share: the fixtures, and the comparisons that each family is put to."""

import functools
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from safetensors.numpy import load_file

import graftax as gx
from graftax.files.source import open_source
from graftax.surgery.state import has_state
from graftax.zoo.config import Config, Recipe
from graftax.zoo.pretrained import recipe_for

ZOO = Path(__file__).parent / "data" / "zoo"
LABELS = Path(__file__).parent.parent / "docs" / "labels.md"


class Fixture(NamedTuple):
    """A model as published, and what PyTorch makes of it."""

    directory: Path
    model: Any
    recipe: Recipe
    io: Mapping[str, np.ndarray]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays whose names start so, by the rest of their names."""
        return {n.removeprefix(prefix): a for n, a in self.io.items() if n.startswith(prefix)}

    @property
    def stored(self) -> dict[str, np.ndarray]:
        """The tensors as they lie in the checkpoint."""
        with open_source(self.directory) as source:
            return {name: source[name] for name in source}


@functools.cache
def fixture(name: str) -> Fixture:
    """The fixture `family/configuration`."""
    directory = ZOO / name
    with open_source(directory) as source:
        recipe = recipe_for(Config.read(directory / "config.json"), source)
    io = load_file(directory / "io.safetensors")
    return Fixture(directory, gx.zoo.from_pretrained(directory), recipe, io)


@functools.cache
def separated(name: str) -> tuple[Any, eqx.nn.State | None]:
    """The model of a fixture and its running statistics, None if it keeps none."""
    model = fixture(name).model
    return eqx.nn.make_with_state(lambda: model)() if has_state(model) else (model, None)


def configurations(family: str) -> list[str]:
    """The names of all fixtures of a family."""
    return sorted(f"{family}/{path.name}" for path in (ZOO / family).iterdir() if path.is_dir())


def published(tmp_path: Path, name: str, remove: Collection[str] = (), **changes: Any) -> Path:
    """The directory of a fixture, its configuration changed."""
    directory = tmp_path / "changed"
    shutil.copytree(ZOO / name, directory)
    config = json.loads((directory / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if key not in remove}
    (directory / "config.json").write_text(json.dumps(kept))
    return directory


def close(found: Any, expected: Any, error: float = 1e-5) -> None:
    """Every entry agrees, relative to the largest one where that is above 1."""
    assert np.shape(found) == np.shape(expected)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=error * scale)


def exported(tmp_path: Path, model: Any, recipe: Recipe, **state: Any) -> dict[str, np.ndarray]:
    """The tensors that `export_weights` writes."""
    file = tmp_path / "exported.safetensors"
    gx.export_weights(file, model, recipe.rename, **state)
    return load_file(file)


def same_bits(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """The same names, dtypes, shapes and bytes."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


def arrays(model: Any) -> dict[str, np.ndarray]:
    """The arrays of a model by path."""
    return {path: np.asarray(a) for path, a in gx.walk(model) if isinstance(a, jax.Array)}


def check_round_trip(tmp_path: Path, model: Any) -> None:
    """What was saved loads as the same model: every bit, every setting, every function."""
    gx.save(tmp_path / "model.safetensors", model)
    loaded = gx.load(tmp_path / "model.safetensors")
    same_bits(arrays(loaded), arrays(model))
    assert repr(loaded) == repr(model)


def labels(model: Any) -> set[str]:
    """The labels of all containers at any depth."""
    found: set[str] = set()
    for _, node in gx.walk(model):
        # A wrapper shows what it holds, which may be a layer of Equinox's with fields of its own.
        holders = [node, *_held(node)]
        for holder in holders:
            if isinstance(holder, gx.StructuralLayer | gx.zoo.Residual):
                children = gx.children(holder)
                found |= {
                    k for k, child in children.items() if isinstance(k, str) and callable(child)
                }
    return found


def _held(node: Any) -> list[Any]:
    held = []
    while isinstance(node, gx.Wrapper):
        node = node.layer
        held.append(node)
    return held


def documented_labels() -> set[str]:
    """The labels in the first column of `docs/labels.md`."""
    rows = [line for line in LABELS.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    cells = [row.split("|")[1] for row in rows]
    return {word for cell in cells for word in cell.split("`")[1::2]}
