"""Tensors are read one by one, through one handle, from files that hold what their headers say."""

import json
import os
import resource
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

import graftax as gx
from graftax.files.tensors import TensorFile


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


def write(file, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def tensor(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# --- One handle ---


def test_what_was_opened_is_read_to_its_end_whatever_stands_there_now(file):
    save_file({"a": np.zeros(3), "b": np.zeros(4)}, file)
    with TensorFile(file) as tensors:
        assert (tensors["a"] == 0).all()
        save_file({"b": np.ones(9)}, file.with_name("new"))
        os.replace(file.with_name("new"), file)
        assert tensors["b"].shape == (4,) and (tensors["b"] == 0).all()
        file.unlink()
        assert (tensors["b"] == 0).all()


def test_every_file_is_closed_whether_it_loads_or_not(tmp_path):
    good, bad, other = tmp_path / "good", tmp_path / "bad", tmp_path / "other"
    gx.save(good, {"a": np.ones(3)})
    bad.write_bytes(good.read_bytes()[:-1])
    save_file({"a": np.ones(3)}, other)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "other", "b": "bad"}}))
    before = os.listdir("/dev/fd")
    gx.load(good)
    gx.load(good, where="a")
    gx.load_weights({"a": np.zeros(3)}, good)
    for error, read in (
        (gx.NoMatchError, lambda: gx.load(good, where="nothing")),
        (gx.FormatError, lambda: gx.load(bad)),
        (gx.FormatError, lambda: gx.load(other)),
        (gx.WeightsError, lambda: gx.load_weights({"b": np.zeros(3)}, other)),
        (gx.FormatError, lambda: gx.load_weights({"a": np.zeros(3)}, bad)),
        (gx.FormatError, lambda: gx.load_weights({"a": np.zeros(3)}, tmp_path)),
    ):
        with pytest.raises(error):
            read()
        assert os.listdir("/dev/fd") == before


# --- Headers that lie ---

LIES = {
    "wrong shape": {"a": tensor([2, 2], 0, 8)},
    "huge": {"a": tensor([1 << 60], 0, 1 << 62)},
    "negative": {"a": tensor([-1], 0, 4)},
    "backwards": {"a": tensor([0], 4, 4), "b": tensor([1], 8, 4)},
    "overlapping": {"a": tensor([2], 0, 8), "b": tensor([2], 4, 12), "c": tensor([1], 12, 16)},
    "the same bytes twice": {"a": tensor([4], 0, 16), "b": tensor([4], 0, 16)},
    "a gap": {"a": tensor([1], 0, 4), "b": tensor([2], 8, 16)},
    "bytes of nobody": {"a": tensor([1], 0, 4)},
    "unknown dtype": {"a": tensor([1], 0, 4, "X99")},
    "a list for a dtype": {"a": tensor([1], 0, 4, [])},
    "floats": {"a": tensor([4.0], 0, 16)},
    "truths": {"a": tensor([True, True], False, True, "I8")},
    "text for a shape": {"a": tensor("4", 0, 16)},
    "too many axes": {"a": tensor([1] * 65, 0, 4)},
    "a million axes": {"a": tensor([1 << 62] * 100_000, 0, 4)},
    "no bytes of more than there are": {"a": tensor([1 << 62, 0, 1 << 62], 0, 0)},
    "three offsets": {"a": tensor([4], 0, 16) | {"data_offsets": [0, 16, 16]}},
    "no offsets": {"a": {"dtype": "F32", "shape": [4]}},
    "half a byte": {"a": tensor([31], 0, 16, "F4")},
    "a list": [1, 2],
    "a number": 12,
    "a tensor that is a list": {"a": []},
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": tensor([4], 0, 16)},
    "metadata that is a list": {"__metadata__": ["a"], "a": tensor([4], 0, 16)},
    "nesting": b"[" * 100_000 + b"]" * 100_000,
    "no utf-8": b'{"\xff": 1}',
    "long numbers": b'{"a": ' + b"9" * 6000 + b"}",
    "no json": b"{} {}",
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_with_the_name_of_the_file(file, lie):
    write(file, LIES[lie], bytes(16))
    began = time.perf_counter()
    with pytest.raises(gx.FormatError, match=r"model\.safetensors.*whole"):
        TensorFile(file)
    with pytest.raises(gx.FormatError, match=r"model\.safetensors.*whole"):
        gx.load_weights({"a": np.zeros(4, np.float32)}, file)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("content", [b"", b"\x02", (2).to_bytes(8, "little"), b"\xff" * 12])
def test_a_file_that_is_no_file_of_tensors_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(gx.FormatError, match="whole safetensors file"):
        TensorFile(file)


def test_a_tensor_without_bytes_may_be_of_any_shape_that_an_array_has(file):
    shapes = [(0,), (0, 1 << 40), (3, 0, 2), (1 << 59, 0)]
    write(file, {str(i): tensor(shape, 0, 0) for i, shape in enumerate(shapes)})
    with TensorFile(file) as tensors:
        assert [tensors[name].shape for name in tensors] == shapes


def test_a_packed_dtype_is_refused_only_if_it_is_asked_for(file):
    write(file, {"a": tensor([32], 0, 16, "F4"), "b": tensor([1], 16, 20)}, bytes(20))
    with TensorFile(file) as tensors:
        assert tensors["b"] == [0]
        with pytest.raises(gx.FormatError, match="dtype F4"):
            tensors["a"]


def test_a_file_that_is_changed_while_it_is_read_is_refused(file):
    save_file({"a": np.zeros(3), "b": np.zeros(3)}, file)
    with TensorFile(file) as tensors:
        assert (tensors["a"] == 0).all()
        content = file.read_bytes()
        file.write_bytes(content[:-24] + np.ones(3).tobytes())
        # As it would be if the clock of the file system were finer.
        os.utime(file, ns=(0, 1 + os.stat(file).st_mtime_ns))
        with pytest.raises(gx.FormatError, match="written to while it was read"):
            tensors["b"]
    with TensorFile(file) as tensors:
        os.chmod(file, 0o600)
        assert (tensors["b"] == 1).all()


def test_a_file_that_is_cut_while_it_is_read_is_refused(file):
    save_file({"a": np.ones(100)}, file)
    with TensorFile(file) as tensors:
        os.truncate(file, file.stat().st_size - 8)
        with pytest.raises(gx.FormatError, match="ends inside 'a'"):
            tensors["a"]


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


HEAVY = {
    "empty lists": lambda n: b"[" + b",".join([b"[]"] * n) + b"]",
    "tensors": lambda n: json.dumps(
        {str(i): tensor([], i, i + 1, "I8") for i in range(n)}
    ).encode(),
    "metadata": lambda n: json.dumps({"__metadata__": {str(i): "" for i in range(n)}}).encode(),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEAVY)
@pytest.mark.parametrize("count", [320_000, 1_200_000])
def test_a_header_of_any_number_of_entries_takes_time_and_memory_as_the_file_is_large(
    file, kind, count
):
    content = HEAVY[kind](count if kind != "tensors" else count // 4)
    write(file, content, bytes(count // 4 if kind == "tensors" else 0))
    del content
    size = file.stat().st_size
    # The most that was ever used: what other tests took can only hide, never add.
    before, began = peak(), time.process_time()
    try:
        TensorFile(file).close()
    except gx.FormatError as error:
        assert kind == "empty lists" or "more values" in str(error)
    assert time.process_time() - began < 1 + size / 10_000_000
    assert peak() - before < 4 * size + 100_000_000


def test_an_oversized_header_takes_no_memory(file):
    before = peak()
    for claimed in (1 << 62, 1 << 40, 200 << 20):
        file.write_bytes(claimed.to_bytes(8, "little") + b"{}")
        with pytest.raises(gx.FormatError):
            TensorFile(file)
    assert peak() - before < 64 * 1024 * 1024
