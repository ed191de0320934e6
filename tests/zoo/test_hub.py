"""Where a published model is: a directory here, or a repository on the Hub, asked for as the user said."""

import sys

import huggingface_hub
import pytest
from huggingface_hub import errors

from common_zoo import ZOO, arrays, published, same_bits
from graftax.zoo import from_pretrained


@pytest.fixture
def hub(monkeypatch):
    """A Hub of one repository; what was asked of it is in the list."""
    asked = []
    answers = [ZOO / "bert" / "base"]

    def snapshot_download(name, **options):
        asked.append((name, options))
        return str(answers[min(len(asked), len(answers)) - 1])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked, answers


def failing(monkeypatch, error):
    def snapshot_download(name, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def refused(kind):
    # Its constructor takes the response of one or the other HTTP library.
    return kind.__new__(kind, "404")


@pytest.mark.parametrize("name", ["somebody/some-model", "gpt2", "bert-base-uncased", "t5-v1.1_x"])
def test_names_with_and_without_an_owner_reach_the_hub(hub, name):
    asked, _ = hub
    model = from_pretrained(name)
    assert asked == [(name, {"allow_patterns": ["*.json", "*.safetensors"]})]
    same_bits(arrays(model), arrays(from_pretrained(ZOO / "bert" / "base")))


def test_revision_and_token_are_handed_on(hub):
    asked, _ = hub
    from_pretrained("somebody/some-model", revision="v1", token="secret")
    assert asked[0][1]["revision"] == "v1"
    assert asked[0][1]["token"] == "secret"


def test_a_pickle_is_fetched_where_there_is_nothing_else(hub, tmp_path):
    asked, answers = hub
    without = published(tmp_path, "bert/base")
    (without / "model.safetensors").unlink()
    answers[:] = [without, ZOO / "bert" / "sharded"]
    from_pretrained("somebody/some-model", revision="v1")
    assert [options["allow_patterns"][1] for _, options in asked] == [
        "*.safetensors",
        "pytorch_model*.bin",
    ]
    assert {options["revision"] for _, options in asked} == {"v1"}


def test_a_repository_without_weights_is_said_to_hold_none(hub, tmp_path):
    asked, answers = hub
    without = published(tmp_path, "bert/base")
    (without / "model.safetensors").unlink()
    answers[:] = [without]
    with pytest.raises(FileNotFoundError, match=r"holds no weights.*It holds: config\.json"):
        from_pretrained("somebody/some-model")
    assert len(asked) == 2


def test_a_directory_of_that_name_comes_before_the_hub(hub, tmp_path, monkeypatch):
    asked, _ = hub
    published(tmp_path, "gpt2/base").rename(tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    assert from_pretrained("gpt2").labels[-1] == "head"
    assert not asked


def test_a_directory_has_no_revision():
    with pytest.raises(ValueError, match=r"revision='v1' is of a repository.*is a directory here"):
        from_pretrained(ZOO / "bert" / "base", revision="v1")


@pytest.mark.parametrize(
    "name",
    [
        "./nowhere/at/all",
        "/nowhere",
        "a/b/c",
        "../gpt2",
        "~/gpt2",
        "gpt2/",
        ".gpt2",
        "a b",
        "gpt/-2",
    ],
)
def test_a_directory_that_is_not_there_is_named_and_not_looked_for_elsewhere(hub, name):
    with pytest.raises(FileNotFoundError, match="There is no directory"):
        from_pretrained(name)
    assert not hub[0]


def test_the_nearest_directory_is_named(hub, tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no directory .*modles'. Did you mean 'models'"):
        from_pretrained(tmp_path / "modles")


def test_a_file_in_place_of_a_directory_is_named(hub):
    with pytest.raises(FileNotFoundError, match=r"config.json' is a file. Give the directory"):
        from_pretrained(str(ZOO / "bert" / "base" / "config.json"))


def test_a_typo_that_no_repository_is_called_is_said_to_be_neither(monkeypatch):
    failing(monkeypatch, refused(errors.RepositoryNotFoundError))
    with pytest.raises(
        FileNotFoundError, match=r"There is no directory 'nowhere'.*no 'nowhere' either"
    ):
        from_pretrained("nowhere")


def test_a_repository_for_some_alone_asks_for_a_token(monkeypatch):
    failing(monkeypatch, refused(errors.GatedRepoError))
    with pytest.raises(PermissionError, match=r"somebody/some-model.*granted access.*token="):
        from_pretrained("somebody/some-model")


def test_a_revision_that_is_not_there_is_named(monkeypatch):
    failing(monkeypatch, refused(errors.RevisionNotFoundError))
    with pytest.raises(FileNotFoundError, match="'some/model' has no revision='v7'"):
        from_pretrained("some/model", revision="v7")


def test_no_network_is_said_with_the_remedy(monkeypatch):
    failing(monkeypatch, OSError("no route to host"))
    with pytest.raises(ConnectionError, match=r"somebody/some-model.*no route.*give a directory"):
        from_pretrained("somebody/some-model")


def test_a_missing_hub_library_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match="pip install huggingface_hub"):
        from_pretrained("somebody/some-model")
