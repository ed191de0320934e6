"""`load(save(model)) == model`, bit for bit; and one file that any reader reads."""

import functools
import json
import os
import subprocess
import sys
import textwrap

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

import graftax as gx
from common_files import Bottleneck, Gate, enable_x64, linear, models, same_bits, swish
from graftax.files.tensors import TensorFile

MODELS = models()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_the_saved_one(file, name):
    gx.save(file, MODELS[name])
    loaded = gx.load(file)
    if name in ("batch norm", "spectral"):
        # Equinox marks a state by an object that no file can hold: its path stands for it.
        loaded, saved = (eqx.nn.make_with_state(lambda m=m: m)() for m in (loaded, MODELS[name]))
        assert same_bits(loaded, saved)
    else:
        assert same_bits(loaded, MODELS[name])


STATEFUL = ["batch norm", "spectral"]


@pytest.mark.parametrize("name", STATEFUL)
def test_load_gives_the_model_alone_and_make_with_state_separates_it(file, name):
    model, state = eqx.nn.make_with_state(lambda: MODELS[name])()
    state = jax.tree.map(lambda x: x + 1 if eqx.is_inexact_array(x) else x, state)
    gx.save(file, model, state)
    assert same_bits(gx.load(file), gx.with_state(model, state))
    loaded, loaded_state = eqx.nn.make_with_state(gx.load)(file)
    assert same_bits(loaded, model) and same_bits(loaded_state, state)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_model_is_saved_the_same_with_its_state_beside_it_or_inside(file, name):
    model, state = eqx.nn.make_with_state(lambda: MODELS[name])()
    gx.save(file, model, state)
    beside = file.read_bytes()
    gx.save(file, gx.with_state(model, state))
    assert file.read_bytes() == beside
    # Saving is not using: the state is as good as before.
    gx.save(file, model, state)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_model_without_its_state_comes_back_without(file, name):
    model, state = eqx.nn.make_with_state(lambda: MODELS[name])()
    gx.save(file, model)
    loaded = gx.load(file)
    assert same_bits(loaded, model) and same_bits(
        gx.with_state(loaded, state), gx.with_state(model, state)
    )


def test_the_state_of_another_model_is_refused(file):
    norm = functools.partial(eqx.nn.BatchNorm, axis_name="batch", mode="batch")
    model, state = eqx.nn.make_with_state(gx.Chain)(norm=norm(2))
    other, other_state = eqx.nn.make_with_state(gx.Chain)(other=norm(2))
    for wrong in ((model, other_state), (other, state)):
        with pytest.raises(ValueError, match="state given"):
            gx.save(file, *wrong)
    assert not file.exists()


def test_a_model_that_was_grafted_is_saved_with_its_extended_state(file):
    norm = functools.partial(eqx.nn.BatchNorm, axis_name="batch", mode="batch")
    model, state = eqx.nn.make_with_state(gx.Chain)(norm=norm(2))
    grafted = gx.select(model, "norm").insert_after(again=norm(2))
    with pytest.raises(ValueError, match="extend_state"):
        gx.save(file, grafted, state)
    gx.save(file, grafted, gx.extend_state(state, grafted))
    loaded, loaded_state = eqx.nn.make_with_state(gx.load)(file)
    assert loaded.labels == ("norm", "again")
    assert len(loaded_state.get(loaded.again.batch_state_index)) == 2


def test_running_statistics_go_on_where_they_stood(file):
    norm = eqx.nn.BatchNorm(2, axis_name="batch", mode="batch")
    model, state = eqx.nn.make_with_state(gx.Chain)(norm=norm)
    run = jax.vmap(
        lambda m, x, s: m(x, s), axis_name="batch", in_axes=(None, 0, None), out_axes=(0, None)
    )
    x = jax.random.normal(jax.random.key(0), (8, 2))
    _, state = run(model, x, state)
    gx.save(file, model, state)
    loaded, loaded_state = eqx.nn.make_with_state(gx.load)(file)
    expected = run(eqx.nn.inference_mode(model), x, state)[0]
    assert (run(eqx.nn.inference_mode(loaded), x, loaded_state)[0] == expected).all()
    # With its statistics inside, a model needs no state in inference mode.
    alone = eqx.nn.inference_mode(gx.load(file))
    np.testing.assert_allclose(jax.vmap(alone)(x), expected, rtol=1e-6)
    # Training goes on as well, step for step.
    for _ in range(2):
        (y, state), (z, loaded_state) = run(model, x, state), run(loaded, x, loaded_state)
        assert (y == z).all() and same_bits(state, loaded_state)


# --- What is no tree ---


def test_a_dict_that_jax_cannot_sort_is_refused_by_its_path_and_in_a_file(file):
    with pytest.raises(gx.UnsavableError, match=r"one kind: see 'a\.1'"):
        gx.save(file, {"a": [0, {1: jnp.ones(1), "b": 2}]})
    assert not file.exists()
    gx.save(file, {"a": [0, {"c": jnp.ones(1), "b": 2}]})
    header = _header(file)
    text = json.dumps(header).replace('["c"', "[1")
    assert text != json.dumps(header)
    save_file(load_file(file), file, {"graftax": text})
    for where in (None, "a", lambda node: isinstance(node, list)):
        with pytest.raises(gx.FormatError, match=r"model\.safetensors' cannot be loaded"):
            gx.load(file, where=where)


# --- Leaves ---

DTYPES = (
    "bool int8 int16 int32 uint8 uint16 uint32 float16 bfloat16 float32 complex64 int4 uint4 "
    "float8_e4m3fn float8_e5m2 float8_e4m3b11fnuz float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu "
    "float8_e3m4 float4_e2m1fn"
).split()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (5,), (2, 3)])
def test_every_dtype_and_shape(file, dtype, shape):
    array = jnp.ones(shape, dtype)
    gx.save(file, {"a": array})
    assert same_bits(gx.load(file), {"a": array})


def test_64_bits(file):
    with enable_x64():
        arrays = [jnp.ones(3, d) for d in ("float64", "int64", "uint64", "complex128")]
        gx.save(file, arrays)
        assert same_bits(gx.load(file), arrays)
    with pytest.raises(gx.FormatError, match="jax_enable_x64"):
        gx.load(file)


@pytest.mark.parametrize("value", [np.arange(3.0), np.float64(2.5), np.ones(2, ml_dtypes.bfloat16)])
def test_numpy_stays_numpy(file, value):
    gx.save(file, [value])
    (loaded,) = gx.load(file)
    assert type(loaded) is type(value) and same_bits([loaded], [value])


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_keys(file, impl):
    key = jax.random.split(jax.random.key(3, impl=impl), 2)
    gx.save(file, [key])
    assert same_bits(gx.load(file), [key])


def test_arrays_inside_a_partial_are_saved_with_it(file):
    bound = jnp.arange(3.0)
    gx.save(file, gx.Chain(clip=functools.partial(jnp.clip, min=bound)))
    loaded = gx.load(file).clip
    assert loaded.func is jnp.clip and (loaded.keywords["min"] == bound).all()
    assert (loaded(jnp.zeros(3)) == bound).all()


def test_types_handed_over_come_back(file):
    model = gx.Chain(block=Bottleneck(linear(2, 2)), gate=Gate(jnp.ones(2)), act=swish)
    gx.save(file, model)
    assert same_bits(gx.load(file, types=[Bottleneck, Gate, swish]), model)


def test_an_unknown_block_comes_back_as_its_standard_base(file):
    model = gx.Chain(block=Bottleneck(linear(2, 2)))
    gx.save(file, model)
    with pytest.warns(UserWarning, match=r"Bottleneck.*loaded as graftax\.SkipConnection.*types="):
        loaded = gx.load(file)
    assert same_bits(loaded, gx.desugar(model))


@pytest.mark.parametrize(
    "node, message", [(Gate(jnp.ones(1)), r"Gate.*types="), (swish, r"swish.*types=")]
)
def test_what_is_unknown_is_named(file, node, message):
    gx.save(file, [node])
    with pytest.raises(gx.FormatError, match=message):
        gx.load(file)


def test_a_lambda_is_refused_with_its_path(file):
    with pytest.raises(gx.UnsavableError, match=r"'a\.b' is <lambda>.*jax\.nn"):
        gx.save(file, gx.Chain(a=gx.Chain(b=lambda x: x)))
    assert not file.exists()


def test_a_local_class_and_an_odd_object_are_refused_with_their_path(file):
    class Local(eqx.Module):
        x: int = 1

    with pytest.raises(gx.UnsavableError, match=r"'a'.*inside a function"):
        gx.save(file, {"a": Local()})
    with pytest.raises(gx.UnsavableError, match=r"'b' is a object"):
        gx.save(file, {"b": object()})


def test_any_reader_reads_the_arrays_by_path(file):
    model = gx.Chain(encoder=gx.Chain([gx.Chain(query=gx.Vmap(linear(2, 3)))]))
    gx.save(file, model)
    arrays = load_file(file)
    assert sorted(arrays) == ["encoder.0.query.bias", "encoder.0.query.weight"]
    assert (arrays["encoder.0.query.weight"] == model.encoder[0].query.weight).all()


def test_the_versions_are_recorded(file):
    gx.save(file, gx.Chain())
    with safetensors.safe_open(file, framework="np") as opened:
        header = json.loads(opened.metadata()["graftax"])
    assert header["format"] == 1
    assert header["equinox"] == eqx.__version__ and header["graftax"]


def test_an_array_in_several_places_is_stored_once(file):
    shared = jnp.ones((16, 16))
    gx.save(file, {"a": shared, "b": [shared]})
    assert len(load_file(file)) == 1
    loaded = gx.load(file)
    assert loaded["a"] is loaded["b"][0]
    gx.save(file, MODELS["tied"])
    assert sorted(load_file(file)) == ["embed.weight", "head.bias"]


def test_one_layer_reads_the_bytes_of_that_layer(file, monkeypatch):
    model = gx.Chain([linear(64, 64, i) for i in range(8)])
    gx.save(file, model)
    opened = []

    class Counted(TensorFile):
        def __init__(self, path):
            super().__init__(path)
            opened.append(self)

    monkeypatch.setattr("graftax.files.saving.TensorFile", Counted)
    layer = gx.load(file, where=".3")
    assert same_bits(layer, model[3])
    assert [each.bytes_read for each in opened] == [layer.weight.nbytes + layer.bias.nbytes]


def test_a_fresh_process_needs_none_of_the_authors_code(file):
    model = gx.Chain(stem=linear(2, 3), block=Bottleneck(linear(3, 3), jax.nn.relu))
    gx.save(file, model)
    script = f"""
        import warnings, graftax as gx, jax.numpy as jnp
        warnings.simplefilter("ignore")
        model = gx.load({str(file)!r})
        print(type(model.block).__name__, model(jnp.ones(2)).tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    kind, _, values = done.stdout.strip().partition(" ")
    assert kind == "SkipConnection"
    assert np.allclose(json.loads(values), model(jnp.ones(2)), atol=1e-6)


def test_a_crash_while_writing_leaves_the_old_file_whole(file, monkeypatch):
    gx.save(file, {"a": jnp.ones(3)})
    before = file.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for broken in ("graftax.files.writing._bytes_of", "os.replace", "os.fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(broken, full_disk)
            with pytest.raises(OSError, match="No space left"):
                gx.save(file, {"a": jnp.zeros(3)})
        assert file.read_bytes() == before
        assert os.listdir(file.parent) == [file.name]


def test_a_field_that_a_class_gained_gets_its_default_and_one_it_lost_is_reported(file):
    gx.save(file, [eqx.nn.Dropout(0.25), eqx.nn.LayerNorm(3)])
    arrays, header = load_file(file), _header(file)
    dropout, norm = header["model"]["list"]
    del dropout["fields"]["inference"]
    del norm["fields"]["eps"]
    dropout["fields"]["removed"] = 3
    save_file(arrays, file, {"graftax": json.dumps(header)})
    with pytest.warns(UserWarning, match="Dropout has no field 'removed' here"):
        loaded = gx.load(file)
    assert same_bits(loaded, [eqx.nn.Dropout(0.25), eqx.nn.LayerNorm(3)])


def test_a_missing_field_without_default_is_named(file):
    gx.save(file, linear(2, 2))
    arrays, header = load_file(file), _header(file)
    del header["model"]["fields"]["in_features"]
    save_file(arrays, file, {"graftax": json.dumps(header)})
    with pytest.raises(gx.FormatError, match="'in_features' of Linear"):
        gx.load(file)


def test_a_newer_format_is_refused(file):
    gx.save(file, gx.Chain())
    header = _header(file) | {"format": 2}
    save_file({}, file, {"graftax": json.dumps(header)})
    with pytest.raises(gx.FormatError, match=r"format 2.*newer graftax"):
        gx.load(file)


def test_a_missing_file_and_one_of_others_say_so(file):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        gx.load(file)
    save_file({"a": np.ones(1)}, file)
    with pytest.raises(gx.FormatError, match="load_weights"):
        gx.load(file)


def _header(file):
    with safetensors.safe_open(file, framework="np") as opened:
        return json.loads(opened.metadata()["graftax"])
