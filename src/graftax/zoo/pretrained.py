"""Published models by the directory, or the name, that they are published under."""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..files import load_weights
from ..files.source import open_source
from .config import Config, Recipe
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
from .hub import model_directory
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


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    head: str | None = PUBLISHED,
    dtype: DTypeLike | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    ignore_config: Iterable[str] = (),
) -> Any:
    """A published model of standard parts, with its weights, in inference mode.

    The model alone, always: running statistics of BatchNorm are in it. `model(x)` is the whole call. For
    training, `eqx.nn.inference_mode(model, value=False)` turns dropout on, and
    `eqx.nn.make_with_state(from_pretrained)(source)` separates the statistics as a state.

    **Arguments:**

    - `source`: a directory with `config.json` and weights, in Hugging Face's layout; or, if there is no
        such directory, the name of a repository on the Hugging Face Hub (`"gpt2"`,
        `"sentence-transformers/all-MiniLM-L6-v2"`), which is downloaded with `huggingface_hub`.
    - `head`: what the model gives. `"published"` is what the configuration names; None is the body
        alone, of any model of the family, whatever head was saved with it; else a head by the name that
        the constructor of the family has for it (`"tokens"`), whose weights have to be there.
    - `dtype`: of all parameters and statistics, a floating-point one; float32 if None.
    - `revision`: a branch, tag or commit of the repository; its main branch if None.
    - `token`: for a private repository; what `huggingface_hub` has stored, if None.
    - `ignore_config`: values of the configuration that may be ignored although graftax does not know
        them.

    **Returns:**

    The model: a `Chain`, in a transparent wrapper where it has tied weights.

    **Raises:**

    - `FileNotFoundError`: no such directory or repository, or a file is missing in it.
    - `ConfigError`: an unknown `model_type`, or a value that is not supported.
    - `WeightsError`: the weights do not fit the configuration.
    - `FormatError`: a damaged file.
    - `PermissionError`, `ConnectionError`: the repository is for those who were granted access, or
        cannot be reached and is not in the cache.
    - `ValueError`: an unknown head, a dtype that is no floating-point one, or a revision of a directory.

    **Example:**

    ```python
    >>> import graftax as gx, jax, json, pathlib, tempfile
    >>> source = pathlib.Path(tempfile.mkdtemp())
    >>> config = {"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 2}
    >>> written = (source / "config.json").write_text(json.dumps(config))
    >>> model = gx.zoo.gpt2(vocabulary=11, width=8, depth=2, heads=2, key=jax.random.key(0))
    >>> gx.zoo.save_pretrained(source, model, like=source)
    >>> gx.zoo.from_pretrained(source, head=None).labels
    ('embeddings', 'encoder', 'norm')

    ```
    """
    directory = model_directory(source, revision=revision, token=token)
    config = Config.read(directory / "config.json")
    with open_source(directory) as weights:
        recipe = recipe_for(config, weights, head)
        config.check_all_used(ignore_config)
        skeleton = _with_dtype(skeleton_of(recipe, config), dtype)
        model = load_weights(
            skeleton, weights.only(recipe.wants), recipe.rename, ignore=recipe.ignore
        )
    return eqx.nn.inference_mode(model)


def recipe_for(config: Config, names: Collection[str], head: str | None = PUBLISHED) -> Recipe:
    """The model that a configuration describes, for weights of these names.

    Raises `ConfigError`, or `WeightsError` for weights of another model.
    """
    return family_recipe(family_of(config), config, names, head)


def family_of(config: Config) -> Family:
    """The family that a configuration names. Raises `ConfigError`."""
    return FAMILIES[config.value(Key("model_type", one_of(*FAMILIES)))]


def skeleton_of(recipe: Recipe, config: Config) -> Any:
    """The model with shapes alone for arrays: random ones would be thrown away. Raises `ConfigError`."""
    try:
        return eqx.filter_eval_shape(recipe.build, jax.random.key(0))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise config.no_model(recipe.keys, error) from error


def _with_dtype(skeleton: Any, dtype: DTypeLike | None) -> Any:
    if dtype is None:
        return skeleton
    try:
        is_floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        is_floating = False
    if not is_floating:
        raise ValueError(f"dtype={dtype!r} is no floating-point dtype, which parameters have.")

    def cast(leaf: Any) -> Any:
        is_float = isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(
            leaf.dtype, jnp.floating
        )
        return jax.ShapeDtypeStruct(leaf.shape, dtype) if is_float else leaf

    return jax.tree.map(cast, skeleton)
