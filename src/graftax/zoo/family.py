"""What a family of published models is: one constructor, and a table of what configures it."""

import functools
import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxtyping import PRNGKeyArray

from ..files import Layout
from ..paths.errors import listed
from .config import Config, Recipe
from .keys import Key
from .measures import Measures

Settings = dict[str, Any]
"""The arguments of a constructor, without its random key."""


class Checkpoint(NamedTuple):
    """How the weights of a model are called: in one that is there, or in one that is to be written."""

    names: Collection[str]
    """Of its weights; of those that are to be written, the names in what they take after."""
    prefix: str
    """What stands before the names of the body."""
    is_new: bool = False
    """Whether it is to be written."""


class Names(NamedTuple):
    """Where the weights of a model lie in a checkpoint, as `graftax.load_weights` takes it."""

    rename: Mapping[str, str | Layout]
    ignore: tuple[str, ...] = ()


class Family(NamedTuple):
    """A family of models that differ in what their configurations say."""

    build: Callable[..., Any]
    """The constructor."""
    keys: Mapping[str, Key]
    """From each argument of the constructor to what stands for it in a configuration."""
    heads: Mapping[str, str | None]
    """From the classes that a configuration names to the argument `head`, the usual class first."""
    names: Callable[[Settings, Checkpoint], Names]
    """From the arguments and how weights are called to where they lie."""
    body: str
    """A regular expression for the first component of names that are no head's."""
    measures: Measures = MappingProxyType({})
    """What is written in a configuration for the arguments of a model that was edited."""
    prefixes: Mapping[str | None, str] = MappingProxyType({})
    """What a head puts before the names of the body: by the head, and under None for all others."""
    incomplete: tuple[str, ...] = ()
    """The classes that have weights which the model lacks."""
    fixed: tuple[Key, ...] = ()
    """What can only be as it is."""
    unused: tuple[str, ...] = ()
    """Keys that have no effect on what this family computes."""
    settle: Callable[[Config, Settings], Settings] = lambda config, settings: settings
    """What one key alone does not say: from the arguments read to those meant. Raises `ConfigError`."""


PUBLISHED = "published"
"""The head that a configuration names."""


def family_recipe(
    family: Family, config: Config, names: Collection[str], head: str | None = PUBLISHED
) -> Recipe:
    """The model that a configuration describes, with weights of these names.

    Raises `ConfigError`, `ValueError` for a head that the family does not have.
    """
    found = (prefix for prefix in family.prefixes.values() if _any_starts(names, prefix))
    checkpoint = Checkpoint(names, next(found, ""))
    chosen = published_head(family, config, names) if head == PUBLISHED else head
    settings = settings_of(family, config, chosen)
    config.check_blocks(family.keys, settings, names)
    recipe = recipe_of(family, settings, checkpoint)
    if head is not None:
        return recipe
    is_body = re.compile(re.escape(checkpoint.prefix) + rf"(?:{family.body})(?:\.|$)")
    return recipe._replace(wants=lambda name: is_body.match(name) is not None)


def recipe_of(family: Family, settings: Settings, checkpoint: Checkpoint) -> Recipe:
    """The model of these arguments, with weights that are called so."""
    rename, ignore = family.names(settings, checkpoint)
    return Recipe(functools.partial(_build, family.build, settings), rename, ignore, family.keys)


def _build(build: Callable[..., Any], settings: Settings, key: PRNGKeyArray) -> Any:
    return build(**settings, key=key)


def settings_of(family: Family, config: Config, head: str | None) -> Settings:
    """The arguments of the constructor, for a model with this head. Raises as `family_recipe` does."""
    known = [known for known in dict.fromkeys(family.heads.values()) if known is not None]
    if head is not None and head not in known:
        raise ValueError(
            f"{config.name!r} describes a model that has no head={head!r}. There are: None, "
            f"{listed(map(repr, [PUBLISHED, *known]))}."
        )
    settings = config.settings(family.keys) | {"head": head}
    for key in family.fixed:
        config.value(key)
    config.skip(family.unused)
    return family.settle(config, settings)


def published_head(family: Family, config: Config, names: Collection[str]) -> str | None:
    """The head that a configuration names, if the weights have it. Raises `ConfigError`."""
    head = family.heads[config.architecture(family.heads)]
    # Many a body is published without the pooler that its class has.
    is_there = head != "pooler" or any("pooler" in name for name in names)
    return head if is_there else None


def _any_starts(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def with_prefix(prefix: str, *parts: str) -> dict[str, str]:
    """The rename rules that put a prefix before the parts of a body."""
    return {f".{part}": f"{prefix}{part}" for part in parts} if prefix else {}


def without_classes(config: Config, settings: Settings) -> Settings:
    """Settings for a constructor that takes no `head`, but None for the number of classes."""
    head = settings.pop("head")
    return settings if head is not None else settings | {"classes": None}
