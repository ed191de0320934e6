"""What `from_pretrained` says when it cannot do what is asked: the file, and the remedy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from safetensors.numpy import save_file

import graftax as gx
from common_zoo import ZOO, arrays, close, fixture, published
from graftax.zoo import ConfigError, from_pretrained


def test_the_model_comes_alone_with_its_statistics_inside():
    model = from_pretrained(ZOO / "resnet" / "basic")
    assert isinstance(model, gx.Chain)
    stored = fixture("resnet/basic").stored["resnet.embedder.embedder.normalization.running_mean"]
    mean, _ = model.stem.norm.batch_state_index.init
    close(mean, stored, 1e-7)
    separate, state = eqx.nn.make_with_state(from_pretrained)(ZOO / "resnet" / "basic")
    close(state.get(separate.stem.norm.batch_state_index)[0], stored, 1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, "float16"])
@pytest.mark.parametrize("name", ["bert/masked_lm", "resnet/basic"])
def test_all_numbers_are_of_the_dtype_asked_for(name, dtype):
    model = from_pretrained(ZOO / name, dtype=dtype)
    leaves = [leaf for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)]
    assert leaves
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}
    expected = arrays(fixture(name).model)
    for path, array in arrays(model).items():
        assert (array == expected[path].astype(array.dtype)).all(), path


@pytest.mark.parametrize("dtype", ["int8", "auto", "complex64", bool])
def test_a_dtype_that_is_no_floating_point_one_is_refused(dtype):
    with pytest.raises(ValueError, match="is no floating-point dtype"):
        from_pretrained(ZOO / "bert" / "base", dtype=dtype)


def test_a_directory_without_config_or_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FileNotFoundError, match=r"holds no weights.*It holds: config\.json"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no JSON"), ("[]", "holds a list"), ("{}", "lacks 'model_type'")],
)
def test_a_damaged_config_is_named(tmp_path, text, message):
    directory = published(tmp_path, "bert/base")
    (directory / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        from_pretrained(directory)


def test_an_unknown_value_may_be_ignored_by_name(tmp_path):
    directory = published(tmp_path, "bert/base", shiny=3)
    with pytest.raises(ConfigError, match=r"shiny=3.*ignore_config"):
        from_pretrained(directory)
    assert from_pretrained(directory, ignore_config=["shiny"]).labels[0] == "embeddings"


def test_weights_of_another_model_are_reported(tmp_path):
    directory = published(tmp_path, "bert/base")
    save_file({}, directory / "model.safetensors")
    with pytest.raises(gx.WeightsError, match="missing in the checkpoint"):
        from_pretrained(directory)
