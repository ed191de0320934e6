"""Weights of others by name, and back: what fits is loaded, what does not is reported at once."""

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import graftax as gx
from common_files import linear, same_bits


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


# --- What fits, and what does not ---


def test_one_report_lists_all_that_does_not_fit_with_the_nearest_name():
    names = dict(NAMES)
    names["net.fc1.wieght"] = names.pop("net.fc1.weight")
    names["net.fc2.weight"] = np.zeros((5, 3), np.float32)
    with pytest.raises(gx.WeightsError) as error:
        gx.load_weights(mlp(), names, RENAME)
    report = error.value.report
    assert report.missing == {"up.weight": "net.fc1.weight"}
    assert report.unexpected == ("net.fc1.wieght",)
    assert list(report.misfits) == ["down.weight"]
    text = str(error.value)
    assert "nearest: 'net.fc1.wieght'" in text and "(2, 3)" in text and "(5, 3)" in text


def test_what_fits_is_loaded_if_not_strict():
    names = {k: v for k, v in NAMES.items() if "fc2" not in k} | {"other": np.ones(1)}
    model, report = gx.load_weights(mlp(), names, RENAME, strict=False)
    assert (model.up.weight == NAMES["net.fc1.weight"]).all()
    assert model.down.weight is mlp().down.weight or (model.down.weight == mlp().down.weight).all()
    assert set(report.missing) == {"down.weight", "down.bias"}
    assert report.unexpected == ("other",) and report
    _, empty = gx.load_weights(mlp(), NAMES, RENAME, strict=False)
    assert not empty


def test_the_dtype_of_the_model_wins():
    half = {name: array.astype(np.float16) for name, array in NAMES.items()}
    model = gx.load_weights(mlp(), half, RENAME)
    assert model.up.weight.dtype == jnp.float32
    check(model)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_array(x) else x, mlp())
    assert gx.load_weights(low, NAMES, RENAME).up.weight.dtype == jnp.bfloat16
    with pytest.raises(gx.WeightsError, match=r"up\.bias: .*int32"):
        gx.load_weights(mlp(), NAMES | {"net.fc1.bias": np.ones(3, np.int32)}, RENAME)


def test_shapes_may_stand_for_arrays_and_numpy_stays_numpy():
    skeleton = eqx.filter_eval_shape(mlp)
    check(gx.load_weights(skeleton, NAMES, RENAME))
    as_numpy = jax.tree.map(lambda x: np.asarray(x) if eqx.is_array(x) else x, mlp())
    loaded = gx.load_weights(as_numpy, NAMES, RENAME)
    assert type(loaded.up.weight) is np.ndarray
    check(loaded)


def test_two_arrays_with_one_name_are_refused():
    with pytest.raises(ValueError, match=r"'up\.weight' and 'down\.weight' would both be"):
        gx.load_weights(mlp(), NAMES, {"{p}.weight": "weight"})


def test_a_tied_array_needs_one_name_and_both_must_agree():
    key = jax.random.key(0)
    tied = gx.tie(
        gx.Chain(embed=eqx.nn.Embedding(5, 3, key=key), head=linear(3, 5, use_bias=False)),
        "embed.weight",
        "head.weight",
    )
    weight = np.arange(15, dtype=np.float32).reshape(5, 3)
    for names in ({"embed.weight": weight}, {"head.weight": weight}):
        loaded = gx.load_weights(tied, names)
        assert (loaded.embed.weight == weight).all() and loaded.head.weight is loaded.embed.weight
    with pytest.raises(gx.WeightsError, match=r"is tied to 'embed\.weight'.*differ"):
        gx.load_weights(tied, {"embed.weight": weight, "head.weight": weight + 1})


def test_what_is_no_number_agrees_with_itself_in_tied_copies():
    tied = gx.tie({"a": jnp.zeros(3), "b": jnp.zeros(3)}, "a", "b")
    array = np.array([np.nan, 1.0, -0.0], np.float32)
    loaded = gx.load_weights(tied, {"a": array, "b": array.copy()})
    assert np.asarray(loaded["b"]).tobytes() == array.tobytes() and loaded["a"] is loaded["b"]
    for other in ([np.nan, 1.0, 0.0], [np.nan, np.nan, -0.0], [1.0, np.nan, -0.0]):
        with pytest.raises(gx.WeightsError, match=r"b: is tied to 'a'.*'b' and 'a' differ"):
            gx.load_weights(tied, {"a": array, "b": np.array(other, np.float32)})


def test_a_wrapped_or_adapted_layer_keeps_its_names():
    adapted = mlp().replace_where("up", lambda layer: gx.LoRA(layer, 1, key=jax.random.key(0)))
    model, report = gx.load_weights(gx.Remat(adapted), NAMES, RENAME, strict=False)
    check(model)
    assert set(report.missing) == {"up.lora_a", "up.lora_b"}


# --- Statistics, and back ---


def test_statistics_go_into_the_state_or_the_model():
    names = {
        "norm.weight": np.ones(2, np.float32),
        "norm.bias": np.zeros(2, np.float32),
        "norm.running_mean": np.array([1, 2], np.float32),
        "norm.running_var": np.array([4, 9], np.float32),
        "norm.num_batches_tracked": np.array(7),
    }
    x = jnp.array([3.0, 8.0])
    expected = np.array([1.0, 2.0])
    for mode in ("batch", "ema"):
        norm = eqx.nn.BatchNorm(2, axis_name="batch", mode=mode, eps=0.0)
        whole = gx.load_weights(gx.Chain(norm=norm), names)
        model, state = eqx.nn.make_with_state(lambda m=whole: eqx.nn.inference_mode(m))()
        np.testing.assert_allclose(model(x, state)[0], expected, rtol=1e-6)
        model, state = eqx.nn.make_with_state(gx.Chain)(norm=norm)
        with pytest.raises(ValueError, match="give state="):
            gx.load_weights(model, names)
        model, state = gx.load_weights(model, names, state=state)
        model = eqx.nn.inference_mode(model)
        np.testing.assert_allclose(model(x, state)[0], expected, rtol=1e-6)


def published_norm(count, dtype=np.int64):
    return {
        "norm.weight": np.array([1.5, 2], np.float32),
        "norm.bias": np.array([0.1, 0.2], np.float32),
        "norm.running_mean": np.array([0.1, -2.7], np.float32),
        "norm.running_var": np.array([4, 1e-7], np.float32),
        "norm.num_batches_tracked": np.array(count, dtype),
    }


def norm_of(kind, **options):
    return gx.Chain(norm=kind(2, axis_name="batch", momentum=0.9, **options))


NORMS = {
    "equinox": lambda: norm_of(eqx.nn.BatchNorm, mode="batch"),
    "zoo": lambda: norm_of(gx.zoo.BatchNorm),
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("count", [0, 1, 7, 999_999, 1_000_000, 1_000_001, 2**30 - 1])
@pytest.mark.parametrize("separated", [False, True])
def test_statistics_of_pytorch_go_round_bit_for_bit(tmp_path, kind, count, separated):
    file, published = tmp_path / "model.safetensors", published_norm(count)
    model, state = NORMS[kind](), None
    if separated:
        model, state = eqx.nn.make_with_state(NORMS[kind])()
        model, state = gx.load_weights(model, published, state=state)
    else:
        model = gx.load_weights(model, published)
    # By way of a file of graftax's too.
    gx.save(tmp_path / "saved", model, state)
    for exported in ((model, state), (gx.load(tmp_path / "saved"), None)):
        gx.export_weights(file, exported[0], state=exported[1])
        stored = load_file(file)
        assert stored.keys() == published.keys()
        for name, array in published.items():
            assert stored[name].dtype == array.dtype and stored[name].shape == array.shape
            assert stored[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("kind", NORMS)
def test_batches_that_are_trained_on_are_counted_from_what_was_loaded(tmp_path, kind):
    file = tmp_path / "model.safetensors"
    run = jax.vmap(
        lambda m, x, s: m(x, s), axis_name="batch", in_axes=(None, 0, None), out_axes=(0, None)
    )
    x = jax.random.normal(jax.random.key(0), (8, 2))
    model, state = eqx.nn.make_with_state(NORMS[kind])()
    gx.export_weights(file, model, state=state)
    assert load_file(file)["norm.num_batches_tracked"] == 0
    for _ in range(2):
        _, state = run(model, x, state)
    gx.export_weights(file, model, state=state)
    assert load_file(file)["norm.num_batches_tracked"] == 2
    model, state = gx.load_weights(model, published_norm(7), state=state)
    expected = published_norm(7)["norm.running_mean"]
    for _ in range(3):
        _, state = run(model, x, state)
        expected = 0.9 * expected + 0.1 * np.asarray(x).mean(0)
    gx.export_weights(file, model, state=state)
    stored = load_file(file)
    assert stored["norm.num_batches_tracked"] == 10
    np.testing.assert_allclose(stored["norm.running_mean"], expected, rtol=1e-5)


def test_a_checkpoint_older_than_the_count_loads_without_it(tmp_path):
    published = published_norm(0)
    del published["norm.num_batches_tracked"]
    model = gx.load_weights(NORMS["equinox"](), published)
    gx.export_weights(tmp_path / "model", model)
    assert load_file(tmp_path / "model")["norm.num_batches_tracked"] == 0


def test_in_mode_ema_nothing_counts(tmp_path):
    model = gx.load_weights(norm_of(eqx.nn.BatchNorm, mode="ema"), published_norm(7))
    gx.export_weights(tmp_path / "model", model)
    stored, expected = load_file(tmp_path / "model"), published_norm(0)
    assert all(stored[name].tobytes() == array.tobytes() for name, array in expected.items())


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (np.array(-1), r"num_batches_tracked: counts -1 batches"),
        (np.array(2**30), r"counts 1073741824 batches, where 0 to"),
        (np.array([1, 2]), r"has shape \(\), the checkpoint \(2,\)"),
        (np.array(7.0), r"has dtype int64, the checkpoint float64"),
    ],
)
def test_a_count_that_cannot_be_kept_is_refused(count, message):
    with pytest.raises(gx.WeightsError, match=message):
        gx.load_weights(NORMS["equinox"](), published_norm(0) | {"norm.num_batches_tracked": count})


LABELS = st.lists(
    st.sampled_from(["stem", "up", "down", "query", "norm1", "head", "conv2"]),
    min_size=1,
    max_size=4,
    unique=True,
)


@hypothesis.settings(max_examples=25)
@hypothesis.given(outer=LABELS, inner=LABELS, prefix=st.sampled_from(["", "module", "a.b"]))
def test_what_was_exported_loads_with_the_same_rules(tmp_path_factory, outer, inner, prefix):
    file = tmp_path_factory.mktemp("export") / "model.safetensors"
    model = gx.Chain(
        {a: gx.Chain({b: linear(2, 2, 7 * i + j) for j, b in enumerate(inner)})
         for i, a in enumerate(outer)}
    )  # fmt: skip
    rename = {f".{label}.{{p}}": f"layer.{i}.{{p}}" for i, label in enumerate(outer)}
    rename |= {"query": "self.q", "": prefix}
    gx.export_weights(file, model, rename)
    assert all(name.startswith(prefix) for name in load_file(file))
    blank = jax.tree.map(lambda x: 0 * x if eqx.is_array(x) else x, model)
    assert same_bits(gx.load_weights(blank, file, rename), model)
