"""Weights come from a file, shards, a directory or a mapping, and are read only when asked for."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import graftax as gx
from common_files import linear
from common_zoo import ZOO
from graftax.files.source import open_source
from graftax.files.tensors import TensorFile


def mlp(seed=0):
    return gx.Chain(up=linear(2, 3, seed), act=jax.nn.relu, down=linear(3, 2, seed + 1))


NAMES = {
    "net.fc1.weight": np.arange(6, dtype=np.float32).reshape(3, 2),
    "net.fc1.bias": np.ones(3, np.float32),
    "net.fc2.weight": -np.arange(6, dtype=np.float32).reshape(2, 3),
    "net.fc2.bias": np.zeros(2, np.float32),
}
RENAME = {"up": "fc1", "down": "fc2", "": "net"}


def check(model):
    for path, name in [("up.weight", "fc1.weight"), ("down.bias", "fc2.bias")]:
        assert (gx.select(model, path).one() == NAMES[f"net.{name}"]).all()


def test_a_mapping_a_file_a_directory_and_shards_hold_the_same(tmp_path):
    check(gx.load_weights(mlp(), NAMES, RENAME))
    save_file(NAMES, tmp_path / "model.safetensors")
    check(gx.load_weights(mlp(), tmp_path / "model.safetensors", RENAME))
    check(gx.load_weights(mlp(), str(tmp_path), RENAME))
    shards = tmp_path / "shards"
    shards.mkdir()
    names = sorted(NAMES)
    parts = {"a.safetensors": names[:1], "b.safetensors": names[1:]}
    for file, held in parts.items():
        save_file({name: NAMES[name] for name in held}, shards / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    check(gx.load_weights(mlp(), shards, RENAME))
    check(gx.load_weights(mlp(), shards / "model.safetensors.index.json", RENAME))


def test_jax_arrays_are_a_mapping_too():
    check(gx.load_weights(mlp(), {k: jnp.asarray(v) for k, v in NAMES.items()}, RENAME))


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    save_file({**NAMES, "big": np.zeros((512, 512), np.float32)}, tmp_path / "model.safetensors")
    opened = []

    class Counted(TensorFile):
        def __init__(self, path):
            super().__init__(path)
            opened.append(self)

    monkeypatch.setattr("graftax.files.source.TensorFile", Counted)
    gx.load_weights(mlp(), tmp_path, RENAME, ignore=["big"])
    assert [each.bytes_read for each in opened] == [sum(a.nbytes for a in NAMES.values())]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda d: d / "none.safetensors", FileNotFoundError, "none.safetensors"),
        (lambda d: d, FileNotFoundError, r"holds no weights.*model\.safetensors"),
        (lambda d: {"a": 3}, TypeError, "'a' maps to int"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        gx.load_weights(mlp(), make(tmp_path))


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ('{"weight_map": {"a": "gone.safetensors"}}', FileNotFoundError, "gone.*missing.*again"),
        ('{"weight_map": {"a": "../up.safetensors"}}', gx.FormatError, "no file beside it"),
        ('{"weight_map": [1]}', gx.FormatError, "no index of shards"),
        ("{", gx.FormatError, "no index of shards"),
        ('{"weight_map": {"b": "here.safetensors"}}', gx.FormatError, "holds 'b'; it does not"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, index, error, message):
    save_file({"a": np.ones(1)}, tmp_path / "here.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(error, match=message):
        gx.load_weights(mlp(), tmp_path)


def test_a_truncated_shard_is_named(tmp_path):
    for path in (ZOO / "bert" / "sharded").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(gx.FormatError, match=r"model-00002-of-00002\.safetensors"):
        gx.zoo.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "shard",
    [
        "..",
        "../here.safetensors",
        "/etc/passwd",
        "sub/here.safetensors",
        "sub\\here",
        "a" * 300,
        "a\0b",
        "\ud800",
        "",
        ".",
        3,
        None,
        ["here.safetensors"],
        {},
    ],
)
def test_an_index_leads_to_no_file_but_those_beside_it(tmp_path, shard):
    directory = tmp_path / "model"
    directory.mkdir()
    save_file({"a": np.ones(1)}, tmp_path / "here.safetensors")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises((gx.FormatError, FileNotFoundError), match="index"):
        gx.load_weights({"a": jnp.zeros(1)}, directory)


def test_an_index_of_itself_is_no_shard(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    with pytest.raises(gx.FormatError, match="whole safetensors file"):
        gx.load_weights({"a": jnp.zeros(1)}, tmp_path)


def test_an_index_of_more_values_than_its_size_allows_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": [' + "[]," * 2_000_000 + "0]}")
    with pytest.raises(gx.FormatError, match="more values"):
        gx.load_weights({"a": jnp.zeros(1)}, tmp_path)


def test_every_shard_is_open_before_the_first_tensor_is_read(tmp_path):
    shards = {"a": "one.safetensors", "b": "two.safetensors"}
    for name, shard in shards.items():
        save_file({name: np.zeros(3)}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with open_source(tmp_path) as source:
        assert (source["a"] == 0).all()
        save_file({"b": np.ones(3)}, tmp_path / "new")
        os.replace(tmp_path / "new", tmp_path / "two.safetensors")
        assert (source["b"] == 0).all()


def test_an_open_source_stays_open_for_who_opened_it(tmp_path):
    save_file(NAMES, tmp_path / "model.safetensors")
    with open_source(tmp_path) as source:
        for _ in range(2):
            check(gx.load_weights(mlp(), source, RENAME))
