"""What a family of published models is: one constructor, and a table of what configures it."""

import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from ..files import Layout
from ..paths.errors import listed
from .config import Config, Recipe
from .keys import Key

Settings = dict[str, Any]
"""The arguments of a constructor, without its random key."""


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
    names: Callable[[Settings, Collection[str], str], Names]
    """From the arguments, the names in a checkpoint and their prefix to where the weights lie."""
    body: str
    """A regular expression for the first component of names that are no head's."""
    prefixes: tuple[str, ...] = ()
    """What a head puts before the names of the body."""
    fixed: tuple[Key, ...] = ()
    """What can only be as it is."""
    unused: tuple[str, ...] = ()
    """Keys that have no effect on what this family computes."""
    settle: Callable[[Config, Settings, Collection[str]], Settings] = (
        lambda config, settings, names: settings
    )
    """What one key alone does not say: from the arguments read to those meant. Raises `ConfigError`."""


PUBLISHED = "published"
"""The head that a configuration names."""


def family_recipe(
    family: Family, config: Config, names: Collection[str], head: str | None = PUBLISHED
) -> Recipe:
    """The model that a configuration describes, with weights of these names.

    Raises `ConfigError`, `ValueError` for a head that the family does not have.
    """
    settings = family_settings(family, config, names, head)
    prefix = prefix_of(names, family.prefixes)
    rename, ignore = family.names(settings, names, prefix)
    build = functools.partial(_build, family.build, settings)
    if head is not None:
        return Recipe(build, rename, ignore, family.keys)
    is_body = re.compile(re.escape(prefix) + rf"(?:{family.body})(?:\.|$)")
    return Recipe(build, rename, ignore, family.keys, lambda name: is_body.match(name) is not None)


def _build(build: Callable[..., Any], settings: Settings, key: Any) -> Any:
    return build(**settings, key=key)


def family_settings(
    family: Family, config: Config, names: Collection[str], head: str | None = PUBLISHED
) -> Settings:
    """The arguments of the constructor. Raises as `family_recipe` does."""
    settings = config.settings(family.keys)
    settings["head"] = _head(family, config, head)
    for key in family.fixed:
        config.value(key)
    config.skip(family.unused)
    settled = family.settle(config, settings, names)
    config.check_blocks(family.keys, settled, names)
    return settled


def _head(family: Family, config: Config, head: str | None) -> str | None:
    if head is None:
        # The body of a class of which nothing else is known.
        return None
    if head == PUBLISHED:
        return family.heads[config.architecture(family.heads)]
    known = [known for known in dict.fromkeys(family.heads.values()) if known is not None]
    if head not in known:
        raise ValueError(
            f"{config.name!r} describes a model that has no head={head!r}. There are: None, "
            f"{listed(map(repr, [PUBLISHED, *known]))}."
        )
    return head


def prefix_of(names: Collection[str], prefixes: tuple[str, ...]) -> str:
    """The prefix that names have; the empty one if they have none."""
    found = (prefix for prefix in prefixes if any(name.startswith(prefix) for name in names))
    return next(found, "")


def with_prefix(prefix: str, *parts: str) -> dict[str, str]:
    """The rename rules that put a prefix before the parts of a body."""
    return {f".{part}": f"{prefix}{part}" for part in parts} if prefix else {}


def without_classes(config: Config, settings: Settings, names: Collection[str]) -> Settings:
    """Settings for a constructor that takes no `head`, but None for the number of classes."""
    head = settings.pop("head")
    return settings if head is not None else settings | {"classes": None}
