"""An array takes the place of another only as the same numbers, in memory of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import graftax as gx


def loaded(dtype, array, kind=jnp.zeros):
    return gx.load_weights({"a": kind(np.shape(array), dtype)}, {"a": array})["a"]


# --- Numbers ---

TOO_SMALL = [
    ("int8", np.array([1, 200], np.int32)),
    ("int8", np.array([-129], np.int16)),
    ("uint8", np.array([-1], np.int8)),
    ("uint8", np.array([256], np.uint16)),
    ("int32", np.array([2**31], np.int64)),
    ("int32", np.array([2**32 - 1], np.uint32)),
    ("uint32", np.array([-1], np.int64)),
    ("int16", np.array(40_000, np.int64)),
    ("int4", np.array([8], np.int32)),
    ("float16", np.array([1.0, 70_000.0], np.float32)),
    ("bfloat16", np.array([1e39], np.float64)),
    ("float8_e4m3fn", np.array([500.0], np.float32)),
    ("float32", np.array([-1e300], np.float64)),
]


@pytest.mark.parametrize(("dtype", "array"), TOO_SMALL)
@pytest.mark.parametrize("kind", [jnp.zeros, np.zeros])
def test_numbers_that_the_models_dtype_cannot_hold_are_refused(dtype, array, kind):
    with pytest.raises(gx.WeightsError, match=rf"a: has dtype {dtype}, too small for the numbers"):
        loaded(dtype, array, kind)


FITTING = [
    ("int8", np.array([-128, 127], np.int64)),
    ("uint8", np.array([0, 255], np.int16)),
    ("int4", np.array([-8, 7], np.int32)),
    ("int32", np.array([], np.int64)),
    ("uint32", np.array([2**32 - 1], np.uint64)),
    ("float16", np.array([65_504.0, np.inf, -np.inf, np.nan], np.float32)),
    ("float32", np.array([1e-300, 0.1], np.float64)),
    ("bfloat16", np.array([1.001], np.float32)),
    ("float32", np.array([1.5], np.float16)),
    ("complex64", np.array([1 + 2j])),
    ("bool", np.array([True, False])),
]


@pytest.mark.parametrize(("dtype", "array"), FITTING)
@pytest.mark.parametrize("kind", [jnp.zeros, np.zeros])
def test_numbers_that_fit_are_cast_as_numpy_casts_them(dtype, array, kind):
    found = loaded(dtype, array, kind)
    assert found.dtype == dtype and isinstance(found, np.ndarray) == (kind is np.zeros)
    expected = array.astype(dtype)
    assert np.asarray(found).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("dtype", "array"),
    [
        ("float32", np.array([1])),
        ("int32", np.array([1.0])),
        ("float32", np.array([1j])),
        ("bool", np.array([1])),
        ("int32", np.array([True])),
        ("float32", np.array([True])),
    ],
)
def test_one_kind_of_number_never_becomes_another(dtype, array):
    with pytest.raises(
        gx.WeightsError, match=rf"a: has dtype {dtype}, the checkpoint {array.dtype}"
    ):
        loaded(dtype, array)


# --- Memory ---


@pytest.mark.parametrize("kind", [jnp.zeros, np.zeros])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(64, 64), (3,), ()])
def test_the_callers_memory_is_never_shared(kind, dtype, shape):
    array = np.ones(shape, np.float32)
    found = loaded(dtype, array, kind)
    array[...] = 7
    assert (np.asarray(found) == 1).all()
    if kind is np.zeros:
        found[...] = 3
        assert (array == 7).all()


def test_nor_is_it_where_a_layout_takes_a_part_or_turns_it_round():
    fused = np.ones((128, 64), np.float32)
    model = {"q": np.zeros((64, 64), np.float32), "k": jnp.zeros((64, 64))}
    rename = {name: gx.Layout("qk", True, i, 2) for i, name in enumerate("qk")}
    found = gx.load_weights(model, {"qk": fused.T}, rename)
    fused[...] = 7
    assert (found["q"] == 1).all() and (found["k"] == 1).all()


def test_what_is_read_twice_from_a_file_is_two_arrays(tmp_path):
    save_file({"a": np.ones(3)}, tmp_path / "model.safetensors")
    one, two = (gx.load_weights({"a": np.zeros(3)}, tmp_path)["a"] for _ in range(2))
    one[...] = 5
    assert (two == 1).all()


# --- Kinds of leaves ---


def test_numpy_stays_numpy_and_a_scalar_a_scalar():
    found = gx.load_weights(
        {"a": np.float32(0), "b": np.zeros((), np.float32), "c": jnp.float32(0)},
        {name: np.float32(2.5) for name in "abc"},
    )
    assert [type(found[name]) for name in "ab"] == [np.float32, np.ndarray]
    assert isinstance(found["c"], jax.Array) and all(found[name] == 2.5 for name in "abc")


def test_random_keys_and_what_is_no_array_are_left_alone():
    model = {"key": jax.random.key(0), "n": 3, "f": jax.nn.relu, "a": jnp.zeros(1)}
    found = gx.load_weights(model, {"a": np.ones(1, np.float32)})
    assert found["key"] is model["key"] and found["n"] == 3 and found["a"] == 1


def test_the_dtypes_of_ml_dtypes_go_both_ways():
    array = np.array([0.5, -2.0], ml_dtypes.bfloat16)
    assert loaded("float32", array).tolist() == [0.5, -2.0]
    assert loaded("float8_e5m2", array).astype("float32").tolist() == [0.5, -2.0]


# --- Statistics of tied layers: one value, under the name of either place ---


def tied_norms():
    def norm(shift):
        layer = eqx.nn.BatchNorm(2, axis_name="batch", mode="ema")
        return gx.update(
            layer, ema_state_index=eqx.nn.StateIndex((jnp.full(2, shift), jnp.ones(2)))
        )

    return gx.tie(gx.Chain(a=norm(3.0), b=norm(4.0)), "a", "b")


def untied(mean_a, mean_b):
    ones = np.ones(2, np.float32)
    return {
        f"{place}.{name}": value
        for place, mean in (("a", mean_a), ("b", mean_b))
        for name, value in {
            "weight": ones,
            "bias": ones,
            "running_mean": np.full(2, mean, np.float32),
            "running_var": ones,
        }.items()
    }


@pytest.mark.parametrize("separated", [False, True])
def test_tied_statistics_are_written_once_and_read_from_a_file_of_ones_own(tmp_path, separated):
    model, state = tied_norms(), None
    if separated:
        model, state = eqx.nn.make_with_state(lambda: model)()
    gx.export_weights(tmp_path / "a", model, state=state)
    assert sorted(load_file(tmp_path / "a")) == [
        "a.bias",
        "a.num_batches_tracked",
        "a.running_mean",
        "a.running_var",
        "a.weight",
    ]
    gx.save(tmp_path / "b", model, state)
    for file in (tmp_path / "a", tmp_path / "b"):
        norm = eqx.nn.BatchNorm(2, "batch", mode="ema")
        fresh = gx.Chain(a=norm, b=norm)
        again = gx.load_weights(gx.tie(fresh, "a", "b"), file)
        assert again.b.ema_state_index is again.a.ema_state_index
        assert again.b.ema_state_index.init[0].tolist() == [3.0, 3.0]


def test_tied_statistics_are_read_from_a_checkpoint_that_has_them_twice_if_they_are_equal():
    loaded = gx.load_weights(tied_norms(), untied(5.0, 5.0))
    assert loaded.b.ema_state_index.init[0].tolist() == [5.0, 5.0]
    with pytest.raises(
        gx.WeightsError, match=r"is tied to 'a\.running_mean' in the model; .* differ"
    ):
        gx.load_weights(tied_norms(), untied(5.0, 6.0))
