"""Published models by the directory, or the name, that they are published under."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from ..files import load_weights
from ..files.source import open_source
from ..paths.errors import did_you_mean, listed
from ..surgery.state import has_state
from .config import Config, ConfigError, Recipe
from .families.bert import recipe as bert
from .families.convnext import recipe as convnext
from .families.densenet import recipe as densenet
from .families.googlenet import recipe as googlenet
from .families.gpt2 import recipe as gpt2
from .families.inception import recipe as inception
from .families.llama import recipe as llama
from .families.resnet import recipe as resnet
from .families.unet import recipe as unet
from .families.vit import recipe as vit

FAMILIES: Mapping[str, Callable[[Config, Collection[str]], Recipe]] = {
    "bert": bert,
    "convnext": convnext,
    "densenet": densenet,
    "googlenet": googlenet,
    "gpt2": gpt2,
    "inception_v3": inception,
    "llama": llama,
    "resnet": resnet,
    "unet": unet,
    "vit": vit,
}
"""From `model_type` in `config.json` to the recipe of the family."""


def from_pretrained(source: str | os.PathLike, *, ignore_config: Iterable[str] = ()) -> Any:
    """A published model of standard parts, with its weights, in inference mode.

    **Arguments:**

    - `source`: a directory with `config.json` and weights, in Hugging Face's layout; or the name of a
        repository on the Hugging Face Hub (`"sentence-transformers/all-MiniLM-L6-v2"`), which is
        downloaded with `huggingface_hub`.
    - `ignore_config`: values of the configuration that may be ignored although graftax does not know
        them.

    **Returns:**

    The model; for one with BatchNorm, the pair `(model, state)`.

    **Raises:**

    - `FileNotFoundError`: no such directory, or a file is missing in it.
    - `ConfigError`: an unknown `model_type`, or a value that is not supported.
    - `WeightsError`: the weights do not fit the configuration.
    - `FormatError`: a damaged file.
    - `ConnectionError`: the repository cannot be reached, and is not in the cache.
    """
    directory = _directory(source)
    config = Config.read(directory / "config.json")
    with open_source(directory) as weights:
        recipe = recipe_for(config, weights)
        config.check_all_used(ignore_config)
        try:
            # Shapes alone: the random parameters would be thrown away.
            skeleton = eqx.filter_eval_shape(recipe.build, jax.random.key(0))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{config.name!r} describes no model: {error}") from error
        model = load_weights(skeleton, weights, recipe.rename, ignore=recipe.ignore)
    model = eqx.nn.inference_mode(model)
    return eqx.nn.make_with_state(lambda: model)() if has_state(model) else model


def recipe_for(config: Config, names: Collection[str]) -> Recipe:
    """The recipe of the family that a configuration names, for weights of these names.

    Raises `ConfigError`.
    """
    family = config.need("model_type")
    if family not in FAMILIES:
        raise ConfigError(
            f"{config.name!r} has model_type={family!r}; the zoo has {listed(sorted(FAMILIES))}."
            + did_you_mean(str(family), FAMILIES)
        )
    return FAMILIES[family](config, names)


def _directory(source: str | os.PathLike) -> Path:
    path = Path(source)
    if path.is_dir():
        return path
    text = str(source)
    is_repository = isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", text)
    if not is_repository or text.startswith("."):
        raise FileNotFoundError(f"There is no directory {text!r}.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"There is no directory {text!r}. If it names a repository on the Hugging Face Hub, install "
            'what downloads it: pip install "graftax[hub]".'
        ) from None
    try:
        return Path(snapshot_download(text, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:
        raise ConnectionError(
            f"{text!r} is no directory here, and could not be fetched from the Hugging Face Hub: {error} "
            "Check the name and the network, or give a directory that holds config.json and weights."
        ) from error
