"""`load(file, where=p)` is `select(load(file), p).one()`, and reads no more than it must."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import graftax as gx
from common_files import linear, same_bits
from graftax.files.tensors import TensorFile


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


NET = gx.Chain(
    stem=gx.Remat(linear(2, 3)),
    encoder=gx.Chain([gx.Chain(query=gx.Vmap(linear(3, 3, i)), act=jnp.tanh) for i in range(3)]),
    norm=eqx.nn.BatchNorm(3, axis_name="batch", mode="batch"),
    lora=gx.LoRA(linear(3, 3, 7), rank=1, key=jax.random.key(0)),
    # Words that the structure in the file has too.
    entry=gx.Chain(array=linear(1, 1), fields=abs),
    head=linear(2, 3, 9),
)
LARGE = gx.tie(
    {
        "net": NET,
        "odd key, .": [np.arange(3), np.float32(2), 5, None, 2j],
        "random": jax.random.key(1),
    },
    "net.stem.weight",
    "net.head.weight",
)
CRITERIA = {
    "label": "stem",
    "path": "net.encoder.1.query",
    "wrapped": "net.encoder[2].query.weight",
    "tied source": "net.stem.weight",
    "tied target": "net.head.weight",
    "layer with a tied array": ".net.head",
    "two places of a tie": ".net",
    "root": "",
    "key": "['odd key, .']",
    "number in a list": "['odd key, .'][2]",
    "regex": re.compile(r"net\.lora"),
    "list of patterns": ["net.entry.array", "net.entry.array"],
    "word of the format": ".net.entry.array.weight",
    "in a state": "net.norm.batch_state_index.init[0]",
    "type": eqx.nn.BatchNorm,
    "wrapper type": gx.LoRA,
    "types": (eqx.nn.BatchNorm, eqx.nn.RMSNorm),
    "union": eqx.nn.BatchNorm | eqx.nn.RMSNorm,
    "type of arrays": np.ndarray,
    "type of scalars": np.generic,
    "type of annotated arrays": Float[Array, "1 3"],
    "type of numbers": complex,
    "container": list,
    "predicate on a layer": lambda node: getattr(node, "in_features", 0) == 1,
    "predicate on arrays": lambda node: eqx.is_array(node) and node.shape == (1, 1),
    "predicate on numbers": lambda node: isinstance(node, np.ndarray) and node.sum() == 3,
    "predicate on what a layer holds": lambda node: (
        type(node) is eqx.nn.Linear and eqx.is_array(node.weight) and node.weight.shape == (1, 1)
    ),
}
NONE = {
    "field of the format": "**.entry.array.entry",
    "stored": "entry.dtype",
    "array": "**.array.array",
    "several": "weight",
    "several types": eqx.nn.Linear,
    "all arrays": jax.Array,
    "nothing": lambda node: False,
    "typo": "stemm",
    "one of a list": ["stem", "stemm"],
    "malformed": "net[",
    "no criterion": 5,
}


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_finds_in_the_file_what_it_finds_in_the_model(file, name):
    gx.save(file, LARGE)
    expected = gx.select(gx.load(file), CRITERIA[name]).one()
    found = gx.load(file, where=CRITERIA[name])
    assert type(found) is type(expected)
    # A state that was never separated has a marker like no other.
    found, expected = (eqx.nn.make_with_state(lambda n=n: n)() for n in (found, expected))
    assert same_bits(found, expected)


@pytest.mark.parametrize("name", NONE)
def test_what_finds_no_single_node_in_the_model_finds_none_in_the_file(file, name):
    gx.save(file, LARGE)
    with pytest.raises((LookupError, TypeError, ValueError)) as expected:
        gx.select(gx.load(file), NONE[name]).one()
    with pytest.raises(type(expected.value)) as found:
        gx.load(file, where=NONE[name])
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("label", ["net.stem.weight", "net.stem.bias"]),
        ("tied target", ["net.stem.weight"]),
        ("layer with a tied array", ["net.stem.weight", "net.head.bias"]),
        ("regex", [f"net.lora.{n}" for n in ("weight", "bias", "lora_a", "lora_b")]),
        ("wrapper type", [f"net.lora.{n}" for n in ("weight", "bias", "lora_a", "lora_b")]),
        ("number in a list", []),
    ],
)
def test_only_the_arrays_of_the_node_are_read(file, monkeypatch, name, names):
    gx.save(file, LARGE)
    read = []

    class Watched(TensorFile):
        def __getitem__(self, name):
            read.append(name)
            return super().__getitem__(name)

    monkeypatch.setattr("graftax.files.saving.TensorFile", Watched)
    gx.load(file, where=CRITERIA[name])
    assert sorted(read) == sorted(names)
