"""What is known while a file is read: a part is read once, a tensor in one way, and when it is due."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import graftax as gx
from graftax.files.arrays import Stored
from graftax.files.checks import MOST_LABELS
from graftax.files.decode import Decoder
from graftax.files.names import Names
from graftax.files.reading import Reading
from graftax.files.tensors import TensorFile


@pytest.fixture
def tensors(tmp_path):
    save_file({"w": np.ones(3, np.float32), "v": np.zeros(2, np.float32)}, tmp_path / "f")
    with TensorFile(tmp_path / "f") as opened:
        yield opened


def test_arrays_are_read_at_once_or_when_they_are_filled_in(tensors):
    eager, lazy = Reading(Names(), tensors), Reading(Names(), tensors, lazy=True)
    assert eager.array({"array": "w"}).tolist() == [1.0, 1.0, 1.0]
    before = tensors.bytes_read
    stored = lazy.array({"array": "v"})
    assert isinstance(stored, Stored) and tensors.bytes_read == before
    filled = lazy.filled([stored, (stored, 3)])
    assert filled[0] is filled[1][0] and tensors.bytes_read == before + 8


def test_what_jax_does_not_look_into_is_read_at_once(tensors):
    partial = {"partial": {"function": "builtins.abs"}, "args": [{"array": "w"}], "keywords": {}}
    for pytree in (True, False):
        decoder = Decoder(Names(), tensors, lazy=True)
        (arg,) = decoder.decode(partial | {"pytree": pytree}).args
        assert isinstance(arg, Stored) is pytree
        assert isinstance(decoder.decode({"array": "v"}), Stored)


def test_a_tensor_is_read_in_one_way(tensors):
    reading = Reading(Names(), tensors)
    assert reading.array({"array": "w"}) is reading.array({"array": "w"})
    with pytest.raises(gx.FormatError, match="in two ways"):
        reading.array({"array": "w", "numpy": "array"})
    with pytest.raises(gx.FormatError, match="no tensor 'x'"):
        reading.array({"array": "x"})


def test_a_part_is_read_once(tensors):
    reading = Reading(Names(), tensors)
    reading.parts = [{"array": "w"}, {"array": "v"}]
    assert reading.part(1).tolist() == [0.0, 0.0]
    for i in (1, 2, -1, True, "0", None):
        with pytest.raises(gx.FormatError, match="no part"):
            reading.part(i)


def test_sets_of_labels_are_counted_once_each(tensors):
    reading = Reading(Names(), tensors)
    for i in range(MOST_LABELS):
        assert reading.known_labels([f"l{i}"]) == (f"l{i}",)
    reading.known_labels(["l0"])
    with pytest.raises(gx.FormatError, match="sets of labels"):
        reading.known_labels(["more"])


def test_a_list_is_no_node_and_a_function_no_module(tensors):
    reading = Reading(Names(), tensors)
    with pytest.raises(gx.FormatError, match="a list stands where a node should"):
        reading.child([1])
    with pytest.raises(gx.FormatError, match="no class of Equinox modules"):
        reading.module("jax.nn.relu")
