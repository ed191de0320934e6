"""An array is described so that it comes back with its bits, dtype, order of bytes and weak type."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import graftax as gx
from common_files import enable_x64
from graftax.files.arrays import check_storable, described, dtype_name, raw
from graftax.files.errors import Unstorable

ROWS = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
ODD = {
    "big-endian": np.arange(3, dtype=">f4"),
    "big-endian integers": np.arange(6, dtype=">i8").reshape(2, 3),
    "big-endian complex": np.arange(3).astype(">c16"),
    "big-endian scalar": np.array(3, dtype=">i2")[()],
    "big-endian, empty": np.zeros((0, 2), ">u4"),
    "strided": ROWS[:, ::2, ::-1],
    "transposed": ROWS.T,
    "in columns": np.asfortranarray(ROWS),
    "broadcast": np.broadcast_to(np.float32(2), (3, 4)),
    "no axes": np.array(3.5),
    "scalar": np.float16(3.5),
    "boolean": np.bool_(True),
    "long": np.ones(2, np.longdouble),
    "bfloat16": np.ones((2, 2), ml_dtypes.bfloat16).T,
    "four bits": np.arange(3).astype(ml_dtypes.int4),
    "read-only": np.frombuffer(b"12345678", np.int32),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_arrays_of_numpy_come_back(tmp_path, name):
    array = ODD[name]
    gx.save(tmp_path / "f", {"a": array})
    loaded = gx.load(tmp_path / "f")["a"]
    assert type(loaded) is type(array) and loaded.dtype == array.dtype
    assert loaded.dtype.byteorder == array.dtype.byteorder
    assert loaded.shape == array.shape and loaded.tobytes() == array.tobytes()


def test_any_reader_reads_a_big_endian_array(tmp_path):
    gx.save(tmp_path / "f", {"a": np.arange(3, dtype=">f4")})
    assert load_file(tmp_path / "f")["a"].tolist() == [0.0, 1.0, 2.0]


REFUSED = {
    "objects": np.array([1, "a"], object),
    "text": np.array(["ab"]),
    "bytes": np.bytes_(b"x"),
    "structured": np.zeros(2, [("a", "i4"), ("b", "f4")]),
    "void": np.void(b"abc"),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "durations": np.timedelta64(3, "s"),
    "masked": np.ma.masked_array([1.0, 2.0], [False, True]),
    "matrix": np.ones((2, 2)).view(np.matrix),
    "records": np.zeros(2, [("a", "i4")]).view(np.recarray),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_array_of_numbers_is_refused_with_its_path(tmp_path, name):
    with pytest.raises(gx.UnsavableError, match=r"^'a\.0' is a "):
        gx.save(tmp_path / "f", {"a": [REFUSED[name]]})


def test_a_deleted_and_a_donated_array_are_refused_with_their_path(tmp_path):
    deleted, donated = jnp.ones(3), jnp.ones(3)
    deleted.delete()
    jax.jit(lambda x: x + 1, donate_argnums=0)(donated)
    key = jax.random.key(0)
    jax.random.key_data(key).delete()
    for array in (deleted, donated):
        with pytest.raises(gx.UnsavableError, match=r"'a\.0' is an array that was deleted"):
            gx.save(tmp_path / "f", {"a": [array]})


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad, jax.checkpoint, jax.make_jaxpr])
def test_a_traced_array_is_refused_with_its_path(tmp_path, transform):
    def fn(x):
        gx.save(tmp_path / "f", {"a": [x]})
        return x

    with pytest.raises(gx.UnsavableError, match=r"'a\.0' is an array that is being traced"):
        transform(fn)(jnp.ones(2) if transform is jax.vmap else jnp.ones(()))


def test_a_weak_array_of_another_dtype_than_pythons_is_refused():
    odd = jax.lax.full_like(jnp.asarray(1.0), 1)
    assert described(odd) == {"weak": True}
    with enable_x64():
        assert described(jnp.asarray(1.0)) == {"weak": True}


def test_weak_types_under_64_bits(tmp_path):
    with enable_x64():
        gx.save(tmp_path / "f", [jnp.asarray(1.0), jnp.asarray(2)])
        assert [(x.weak_type, x.dtype.itemsize) for x in gx.load(tmp_path / "f")] == [(True, 8)] * 2


def test_a_dtype_has_the_name_that_makes_it():
    for dtype in map(np.dtype, ("f4", ">f4", "bfloat16", "?", "c16", "int4")):
        assert jnp.dtype(dtype_name(dtype)) == dtype
    for dtype in ("O", "U3", "M8[s]", "V3", "i4,f4"):
        with pytest.raises(Unstorable, match="is the dtype"):
            dtype_name(np.dtype(dtype))


def test_what_is_described_need_not_be_read():
    spec = described(jnp.ones((2, 3), jnp.int4))
    assert spec == {"dtype": "int4", "shape": [2, 3]}
    assert raw(jnp.ones((2, 3), jnp.int4)).shape == (2, 3, 1)
    check_storable(jnp.ones(1))
