"""The directory of a published model: one that is here, or one from the Hugging Face Hub."""

import os
import re
from pathlib import Path

from ..files.source import has_weights
from ..paths.errors import did_you_mean

# With an owner or, as the first models on the Hub, without.
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SAFE = ["*.json", "*.safetensors"]
_PICKLED = ["*.json", "pytorch_model*.bin"]


def model_directory(
    source: str | os.PathLike[str], *, revision: str | None = None, token: str | bool | None = None
) -> Path:
    """The directory that is meant, downloaded if it is none here. Raises as `from_pretrained` does."""
    path = Path(source)
    if path.is_dir():
        if revision is not None:
            raise ValueError(
                f"revision={revision!r} is of a repository on the Hub; {str(path)!r} is a directory here."
            )
        return path
    if path.is_file():
        raise FileNotFoundError(
            f"{str(path)!r} is a file. Give the directory that holds config.json and the weights."
        )
    if not isinstance(source, str) or not _REPOSITORY.fullmatch(source):
        raise FileNotFoundError(f"There is no directory {str(source)!r}.{_near(path)}")
    return _download(source, revision, token)


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return did_you_mean(
        path.name, [other.name for other in path.parent.iterdir() if other.is_dir()]
    )


def _download(name: str, revision: str | None, token: str | bool | None) -> Path:
    missing = f"There is no directory {name!r} here.{_near(Path(name))}"
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"{missing} If it names a repository on the Hugging Face Hub, install what downloads it: pip "
            "install huggingface_hub"
        ) from None
    given = {"revision": revision, "token": token}
    options = {key: value for key, value in given.items() if value is not None}
    try:
        directory = Path(snapshot_download(name, allow_patterns=_SAFE, **options))
        if not has_weights(directory):
            # A pickle is read with care, but only where there is nothing better.
            directory = Path(snapshot_download(name, allow_patterns=_PICKLED, **options))
    except errors.GatedRepoError as error:
        raise PermissionError(
            f"{missing} On the Hugging Face Hub, {name!r} is for those who were granted access. Ask for it "
            "there, and give token=... or log in."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{missing} On the Hugging Face Hub there is no {name!r} either, or it is private: then give "
            "token=... or log in."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"On the Hugging Face Hub, {name!r} has no revision={revision!r}: no branch, tag or commit is "
            "called so."
        ) from error
    except Exception as error:
        raise ConnectionError(
            f"{missing} As {name!r} it could not be fetched from the Hugging Face Hub: {error} Check the "
            "name and the network, or give a directory that holds config.json and weights."
        ) from error
    return directory
