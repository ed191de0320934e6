"""Published models by the directory, or the name, that they are published under."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from ..files import load_weights
from ..files.source import open_source
from ..surgery.state import has_state
from .config import Config, ConfigError, Recipe
from .families.bert import FAMILY as BERT
from .families.convnext import FAMILY as CONVNEXT
from .families.densenet import FAMILY as DENSENET
from .families.googlenet import FAMILY as GOOGLENET
from .families.gpt2 import FAMILY as GPT2
from .families.inception import FAMILY as INCEPTION
from .families.llama import FAMILY as LLAMA
from .families.resnet import FAMILY as RESNET
from .families.unet import FAMILY as UNET
from .families.vit import FAMILY as VIT
from .family import PUBLISHED, Family, family_recipe
from .keys import Key, one_of

FAMILIES: Mapping[str, Family] = {
    "bert": BERT,
    "convnext": CONVNEXT,
    "densenet": DENSENET,
    "googlenet": GOOGLENET,
    "gpt2": GPT2,
    "inception_v3": INCEPTION,
    "llama": LLAMA,
    "resnet": RESNET,
    "unet": UNET,
    "vit": VIT,
}
"""From `model_type` in `config.json` to the family."""


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


def recipe_for(config: Config, names: Collection[str], head: str | None = PUBLISHED) -> Recipe:
    """The model that a configuration describes, for weights of these names.

    Raises `ConfigError`, or `WeightsError` for weights of another model.
    """
    return family_recipe(family_of(config), config, names, head)


def family_of(config: Config) -> Family:
    """The family that a configuration names. Raises `ConfigError`."""
    return FAMILIES[config.value(Key("model_type", one_of(*FAMILIES)))]


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
