"""What `from_pretrained` says when it cannot do what is asked: the file, and the remedy."""

import sys

import huggingface_hub
import pytest
from safetensors.numpy import save_file

import graftax as gx
from common_zoo import ZOO, arrays, published, same_bits
from graftax.zoo import ConfigError, from_pretrained


def test_a_repository_is_downloaded_by_the_hub_library(monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, tuple(allow_patterns)))
        return str(ZOO / "bert" / "base")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model = from_pretrained("somebody/some-model")
    assert asked == [("somebody/some-model", ("*.json", "*.safetensors"))]
    same_bits(arrays(model), arrays(from_pretrained(ZOO / "bert" / "base")))


def test_no_network_is_said_with_the_remedy(monkeypatch):
    def snapshot_download(name, allow_patterns):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ConnectionError, match=r"somebody/some-model.*no route.*give a directory"):
        from_pretrained("somebody/some-model")


def test_a_missing_hub_library_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r"graftax\[hub\]"):
        from_pretrained("somebody/some-model")


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/at/all", "/nowhere", "a/b/c"])
def test_a_directory_that_is_not_there_is_named(name):
    with pytest.raises(FileNotFoundError, match="There is no directory"):
        from_pretrained(name)


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
