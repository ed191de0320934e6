"""The pieces of the examples on digits. The examples themselves run in `make demo`."""

import importlib
import inspect
import io
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import graftax as gx

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = jax.random.key(0)
OPERATIONS = ["tanh_in_bottlenecks", "add_lora", "odd_even_head", "cut_after_stage1"]


def imported(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def digits():
    with pytest.MonkeyPatch.context() as patch:
        module = imported("digits")
        patch.setattr(module, "WIDTH", 8)
        yield module


@pytest.fixture(scope="module")
def batchnorm(digits):
    with pytest.MonkeyPatch.context() as patch:
        module = imported("digits_batchnorm")
        patch.setattr(module, "WIDTH", 8)
        yield module


@pytest.fixture(scope="module")
def data(digits):
    return digits.load()


@pytest.fixture(scope="module")
def model(digits):
    return digits.build(KEY)


@eqx.filter_jit
def run(model, images):
    return jax.vmap(model)(images)


def arrays(model):
    return jax.tree.leaves(eqx.filter(model, eqx.is_array))


def test_the_data_are_all_the_digits_split_by_class(data):
    train, test = data
    assert train.images.shape == (1347, 1, 8, 8) and test.images.shape == (450, 1, 8, 8)
    assert 0 == train.images.min() < train.images.max() == 1
    shares = [np.bincount(part.labels) / len(part.labels) for part in data]
    np.testing.assert_allclose(*shares, atol=0.003)


def test_odd_even_labels_are_the_last_bit(data):
    _, test = data
    assert test.odd_even().images is test.images
    np.testing.assert_array_equal(test.odd_even().labels, np.asarray(test.labels) & 1)


def test_building_twice_gives_the_same_model(digits, model):
    assert eqx.tree_equal(digits.build(KEY), model)


def test_the_questions_find_what_the_demo_lists(digits, model):
    found = [gx.select(model, *criteria).paths for criteria in digits.QUESTIONS]
    assert found[0] == ("stage1.0", "stage1.1", "stage2.block")
    assert found[1] == ("stage2.bottleneck",)
    assert all(found)


def test_each_operation_is_at_most_three_lines(digits):
    for name in OPERATIONS:
        lines = inspect.getsource(getattr(digits, name)).splitlines()
        assert lines[1].strip().startswith('"""') and lines[1].strip().endswith('"""')
        assert len(lines) <= 2 + 3, name
        assert max(map(len, lines)) <= 60, name


def test_tanh_stands_in_every_bottleneck_and_nowhere_else(digits, model):
    edited = digits.tanh_in_bottlenecks(model)
    acts = dict(gx.select(edited, "act").items())
    inside = {path for path in acts if "stage1" in path or "block" in path or "bottleneck" in path}
    assert len(inside) == 8 and len(acts) == 10
    assert all((act is jnp.tanh) == (path in inside) for path, act in acts.items())
    assert all(a is b for a, b in zip(arrays(model), arrays(edited), strict=True))


def test_lora_adds_its_two_matrices_and_changes_nothing_at_once(digits, model, data):
    edited = digits.add_lora(model, KEY)
    convs = [conv for path, conv in gx.select(model, eqx.nn.Conv2d).items() if path[:5] == "stage"]
    added = sum(4 * (conv.weight.shape[0] + conv.weight[0].size) for conv in convs)
    assert len(convs) == 13
    assert gx.select(edited, "{lora_a,lora_b}").size == added
    assert gx.select(edited, "").size == gx.select(model, "").size + added
    images = data[1].images[:8]
    np.testing.assert_allclose(run(edited, images), run(model, images), atol=1e-6)


def test_the_new_head_has_two_classes(digits, model):
    edited = digits.odd_even_head(model, KEY)
    assert edited[:"head"] == model[:"head"] and edited.labels == model.labels
    assert (edited.head.in_features, edited.head.out_features) == (16, 2)


def test_the_cut_model_is_a_head_on_the_pooled_features_of_stage1(digits, model, data):
    cut = digits.cut_after_stage1(model, KEY)
    assert cut.features.labels == ("stem", "stage1")
    image = data[1].images[0]
    features = jnp.mean(model.stage1(model.stem(image)), axis=(1, 2))
    np.testing.assert_allclose(cut(image), cut.head(features), atol=1e-6)


def test_training_the_head_lowers_the_loss_and_leaves_the_rest_alone(digits, model, data):
    train, test = data
    trained = digits.fit(gx.select(model, "head"), train, steps=20, rate=2e-2)
    before, after = (digits.loss(*eqx.partition(m, eqx.is_array), test) for m in (model, trained))
    assert after < before - 0.05
    assert all(a is b for a, b in zip(arrays(model[:-1]), arrays(trained[:-1]), strict=True))


def test_training_is_repeatable(digits, model, data):
    selection = gx.select(model, "head")
    once, again = (digits.fit(selection, data[0], steps=2) for _ in range(2))
    assert eqx.tree_equal(once, again)
    assert not eqx.tree_equal(once.head, model.head)


@pytest.mark.parametrize("width", [60, 120])
def test_the_report_has_one_line_a_row(digits, width):
    rows = [
        digits.Row("cut after stage1", 0.125, 0.984, 123_456, 98_765),
        digits.Row("relu to tanh", 0.5, None, 123_456, 123_456),
    ]
    file = io.StringIO()
    Console(file=file, width=width).print(digits.table(rows))
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert "cut after stage1 12.5 % 98.4 % 123,456 98,765".split() in lines
    assert "relu to tanh 50.0 % 123,456 123,456".split() in lines


def test_the_demo_fits_sixty_columns_when_piped(digits, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(digits, "accuracy", lambda model, data: 0.5)

    def untrained(selection, data, steps, rate, track):
        assert list(track(steps)) == list(range(steps))
        return selection.model

    monkeypatch.setattr(digits, "fit", untrained)
    digits.main(seed=0)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 60
    assert "\x1b" not in printed
    for name in OPERATIONS:
        assert inspect.getsource(getattr(digits, name)) in printed
    for criteria in digits.QUESTIONS:
        assert digits.spelled(criteria) in printed


# --- Saved, and opened again ---


def test_a_model_of_the_demo_and_its_reworkings_save_and_load_bit_for_bit(
    digits, batchnorm, model, stateful, tmp_path
):
    known = [digits.Bottleneck, digits.pool]
    lora = gx.select(model, eqx.nn.Linear).apply(lambda x, key: gx.LoRA(x, 2, key=key), key=KEY)
    for saved in (model, digits.tanh_in_bottlenecks(model), lora, model[:"stage2"]):
        gx.save(tmp_path / "model.safetensors", saved)
        loaded = gx.load(tmp_path / "model.safetensors", types=known)
        assert jax.tree.structure(loaded) == jax.tree.structure(saved)
        assert eqx.tree_equal(loaded, saved)
    gx.save(tmp_path / "stateful.safetensors", *stateful)
    loaded = eqx.nn.make_with_state(gx.load)(tmp_path / "stateful.safetensors", types=known)
    assert eqx.tree_equal(loaded, stateful)


# --- The example with BatchNorm ---


@pytest.fixture(scope="module")
def stateful(digits, batchnorm):
    return eqx.nn.make_with_state(lambda: batchnorm.with_batchnorm(digits.build(KEY)))()


@eqx.filter_jit
def run_stateful(model, state, images):
    return gx.Vmap(model, axis_name="batch")(images, state)


def test_every_norm_becomes_a_batch_norm_of_its_width(model, stateful):
    old, new = gx.select(model, eqx.nn.GroupNorm), gx.select(stateful[0], eqx.nn.BatchNorm)
    assert new.paths == old.paths
    assert [norm.input_size for norm in new] == [norm.channels for norm in old]


def test_a_grafted_block_is_the_identity_at_once(batchnorm, stateful, data):
    images = data[0].images[:16]
    model, state = eqx.nn.inference_mode(stateful[0]), run_stateful(*stateful, images)[1]
    grafted, state_after = batchnorm.graft(model, state, KEY)
    assert grafted.labels == ("stem", "stage1", "stage2", "stage3", "pool", "head")
    expected, _ = run_stateful(model, state, images)
    np.testing.assert_allclose(run_stateful(grafted, state_after, images)[0], expected, atol=1e-6)


def test_training_the_grafted_block_leaves_weights_and_statistics_of_the_rest(
    batchnorm, stateful, data
):
    model, state = batchnorm.graft(*stateful, KEY)
    model = batchnorm.train_only(model, "stage3")
    selection = gx.select(model, "stage3.**", eqx.is_inexact_array)
    assert selection.size == gx.select(model, "stage3").size
    trained, after = batchnorm.fit(selection, state, data[0], steps=2)
    for path, norm in gx.select(trained, eqx.nn.BatchNorm).items():
        index = norm.batch_state_index
        kept = eqx.tree_equal(state.get(index), after.get(index))
        assert kept == (not path.startswith("stage3")), path
    assert eqx.tree_equal(trained[:"stage3"], model[:"stage3"])
    assert not eqx.tree_equal(trained.stage3, model.stage3)
