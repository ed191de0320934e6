"""A model written as its configuration and weights, for `transformers` and for `from_pretrained`."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..files import UnsavableError, export_weights
from ..files.exportable import check_exportable
from ..files.source import has_weights, open_source
from ..files.writing import replacement
from ..paths.errors import listed
from .config import Config, ConfigError, Recipe
from .family import Checkpoint, Family, Settings, published_head, recipe_of, settings_of
from .hub import model_directory
from .keys import CLASSES, Key
from .likeness import Difference, difference
from .pretrained import family_of, skeleton_of

# What names the stages of a backbone by their number.
_STAGES = ("out_features", "out_indices", "stage_names")
_DTYPES = ("float16", "bfloat16", "float32", "float64")


def save_pretrained(
    directory: str | os.PathLike[str],
    model: Any,
    *,
    like: str | os.PathLike[str],
    ignore_config: Iterable[str] = (),
) -> None:
    """Write a model as `config.json` and `model.safetensors`, which `transformers` opens.

    The configuration is that of `like`, with what was edited: the number of blocks, of classes, of
    tokens, of heads, other sizes, activations, rates of dropout, another head or none. A model made of
    it is compared with the one that is given: what a configuration cannot express is refused, and
    nothing is written. `from_pretrained(directory)` is the model again.

    **Arguments:**

    - `directory`: where to write; made if it is not there. Tokenizers are not written.
    - `model`: the model, running statistics inside (`graftax.with_state` puts them there).
    - `like`: where its configuration came from: a directory or repository as for `from_pretrained`. A
        `config.json` without weights will do.
    - `ignore_config`: as for `from_pretrained`.

    **Raises:**

    - `UnsavableError`: the model is none that a configuration of this family describes, or not one of
        weights alone (`LoRA`, unless merged). The message says where, by its path.
    - `ConfigError`, `FileNotFoundError`, `ConnectionError`, `PermissionError`, `FormatError`: of `like`,
        as for `from_pretrained`.
    - `OSError`: the files cannot be written.

    **Example:**

    ```python
    >>> import graftax as gx, jax, json, pathlib, tempfile
    >>> like = pathlib.Path(tempfile.mkdtemp())
    >>> config = {"model_type": "gpt2", "vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 2}
    >>> written = (like / "config.json").write_text(json.dumps(config))
    >>> model = gx.zoo.gpt2(vocabulary=11, width=8, depth=2, heads=2, key=jax.random.key(0))
    >>> small = gx.select(model, "encoder[1:]").remove()
    >>> gx.zoo.save_pretrained(like / "small", small, like=like)
    >>> len(gx.zoo.from_pretrained(like / "small").encoder)
    1

    ```
    """
    source = model_directory(like)
    config = Config.read(source / "config.json")
    family = family_of(config)
    check_exportable(model)
    written = _written(family, config, _names_in(source), model, tuple(ignore_config))
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    export_weights(target / "model.safetensors", model, written.recipe.rename)
    text = json.dumps(written.values, indent=2, ensure_ascii=False, sort_keys=True)
    with replacement(target / "config.json") as out:
        out.write(f"{text}\n".encode())


def _names_in(directory: Path) -> tuple[str, ...]:
    """The names of the weights beside a configuration, which may stand alone."""
    if not has_weights(directory):
        return ()
    with open_source(directory) as weights:
        return tuple(weights)


class _Written(NamedTuple):
    values: dict[str, Any]
    recipe: Recipe


def _written(
    family: Family, config: Config, names: Collection[str], model: Any, ignored: tuple[str, ...]
) -> _Written:
    """The configuration of a model, with the head that the model has. Raises `UnsavableError`."""
    published = published_head(family, config, names)
    faults: list[Difference] = []
    for head in dict.fromkeys([published, *family.heads.values(), None]):
        try:
            values = _values(family, config, model, head)
            recipe, skeleton = _described(family, Config(values, config.name), names, head, ignored)
        except _Fault as fault:
            faults.append(fault.difference)
            continue
        found = difference(*(eqx.nn.inference_mode(each) for each in (model, skeleton)))
        if found is None:
            return _Written(values, recipe)
        faults.append(found)
    # What differs inside says more than that another head would have other parts.
    has_head = not {"head", "pooler"}.isdisjoint(getattr(model, "labels", ()))
    fault = next((fault for fault in faults if fault.path), faults[0 if has_head else -1])
    raise UnsavableError(
        f"This model is none that a configuration like {config.name!r} describes: {fault}. What a "
        "configuration cannot say, gx.save keeps."
    )


class _Fault(Exception):
    """Why no configuration with some head is that of the model."""

    def __init__(self, path: str, why: str):
        self.difference = Difference(path, why)


def _described(
    family: Family,
    config: Config,
    names: Collection[str],
    head: str | None,
    ignored: tuple[str, ...],
) -> tuple[Recipe, Any]:
    """What a new configuration describes: how its weights are called, and its shapes."""
    is_body = head in (None, "pooler")
    prefix = "" if is_body else family.prefixes.get(head, family.prefixes.get(None, ""))
    try:
        settings = settings_of(family, config, head)
        config.check_all_used(ignored)
        recipe = recipe_of(family, settings, Checkpoint(names, prefix, is_new=True))
        return recipe, skeleton_of(recipe, config)
    except ConfigError as error:
        raise _Fault("", f"would need a configuration that is none: {error}") from error


def _values(family: Family, config: Config, model: Any, head: str | None) -> dict[str, Any]:
    """The values of a configuration, with those that a model has in their place."""
    values = config.values | {"architectures": [_architecture(family, config, head)]}
    settings = settings_of(family, config, head)
    for argument, value in _measured(family, model, head).items():
        if value != settings[argument]:
            values |= _entries(family.keys[argument], value, values)
        if isinstance(value, tuple) and len(value) != len(settings[argument]):
            values = _with_stages(values, len(value))
    return values | _dtype(model, values)


def _measured(family: Family, model: Any, head: str | None) -> Settings:
    """What a model has in place of the arguments that its configuration gave. Raises `_Fault`."""
    keys = family.keys.items()
    has = [argument for argument, key in keys if not key.heads or head in key.heads]
    try:
        return {
            argument: family.measures[argument](model)
            for argument in has
            if argument in family.measures
        }
    except (AttributeError, LookupError, TypeError) as error:
        raise _Fault("", f"lacks a part: {str(error).rstrip('.')}") from error


def _architecture(family: Family, config: Config, head: str | None) -> str:
    """The class of a model with this head: the one it was read from, if that has nothing besides."""
    named = [name for name, own in family.heads.items() if own == head]
    if head is None and not named:
        # Of such a class, the pooler is left out: it is made anew by who opens the file.
        named = [name for name, own in family.heads.items() if own == "pooler"]
    named = [name for name in named if name not in family.incomplete]
    if not named:
        raise _Fault("", "has no head, and there is no class for that")
    own = config.architecture(family.heads)
    return own if own in named else named[0]


def _entries(key: Key, value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """What is written for another value of a key."""
    if key is CLASSES and "num_labels" not in values:
        names = [f"LABEL_{i}" for i in range(value)]
        return {
            "id2label": {str(i): name for i, name in enumerate(names)},
            "label2id": {name: i for i, name in enumerate(names)},
        }
    try:
        return {"num_labels" if key is CLASSES else key.name: key.kind.write(value)}
    except (ValueError, LookupError):
        # It has no name. Comparing the model with the old value says where it stands.
        return {}


def _with_stages(values: Mapping[str, Any], count: int) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if name not in _STAGES}
    return kept | ({"num_stages": count} if "num_stages" in kept else {})


def _dtype(model: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """What says in which dtype the weights are to be opened, so that none of them is rounded."""
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    dtype = jnp.result_type(*{leaf.dtype for leaf in leaves}).name
    if dtype not in _DTYPES:
        raise UnsavableError(
            f"The weights are {dtype}; transformers opens {listed(_DTYPES)}. Cast them first."
        )
    name = "torch_dtype" if "torch_dtype" in values else "dtype"
    return {name: dtype} if name in values or dtype != "float32" else {}
