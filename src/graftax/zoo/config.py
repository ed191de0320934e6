"""Reading `config.json`: every value is used, known to be harmless, or refused by name."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..files import Layout
from ..paths.errors import did_you_mean, listed


class ConfigError(ValueError):
    """A configuration that cannot be followed exactly."""


# What says nothing about the function that a model computes: names, training, generation, caches.
_HARMLESS = frozenset(
    """
    _attn_implementation_autoset _name_or_path architectures attn_implementation auto_map bos_token_id
    chunk_size_feed_forward classifier_dropout decoder_start_token_id dtype eos_token_id finetuning_task
    gradient_checkpointing id2label initializer_factor initializer_range is_encoder_decoder
    keys_to_ignore_at_inference label2id max_length model_type n_ctx num_labels output_attentions
    output_hidden_states pad_token_id pretraining_tp problem_type pruned_heads return_dict
    return_dict_in_generate sep_token_id summary_activation summary_first_dropout
    summary_proj_to_labels summary_type summary_use_proj task_specific_params tie_encoder_decoder
    tie_word_embeddings tokenizer_class torch_dtype torchscript transformers.js_config
    transformers_version unk_token_id use_bfloat16 use_cache use_return_dict
    """.split()
)


class Config:
    """A configuration that knows which of its values were read."""

    def __init__(self, values: Mapping[str, Any], name: str):
        self._values = dict(values)
        self._used: set[str] = set()
        self._parts: list[Config] = []
        self.name = name

    @classmethod
    def read(cls, file: Path) -> "Config":
        """The configuration in a file. Raises `FileNotFoundError` or `ConfigError`."""
        if not file.is_file():
            raise FileNotFoundError(
                f"There is no {file.name} in {str(file.parent)!r}: it says what the model looks like."
            )
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{str(file)!r} is no JSON: {error}.") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{str(file)!r} holds a {type(values).__name__}, not named values.")
        return cls(values, str(file))

    def get(self, key: str, default: Any) -> Any:
        """The value of a key; `default` if it is missing or null."""
        self._used.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def need(self, key: str) -> Any:
        """The value of a key. Raises `ConfigError` if it is missing."""
        self._used.add(key)
        if self._values.get(key) is None:
            raise ConfigError(f"{self.name!r} lacks {key!r}.{did_you_mean(key, self._values)}")
        return self._values[key]

    def part(self, key: str) -> "Config | None":
        """The configuration inside this one, read by the same rules; None if it is missing or empty."""
        values = self.get(key, None)
        if not values:
            return None
        if not isinstance(values, dict):
            raise ConfigError(f"{self.name!r} has {key}={values!r}, where named values should be.")
        self._parts.append(Config(values, f"{self.name}: {key}"))
        return self._parts[-1]

    def only(self, key: str, allowed: Iterable[Any]) -> None:
        """Refuse a value that would change the result in a way that is not supported.

        The first of `allowed` is the default that Hugging Face has.
        """
        allowed = list(allowed)
        value = self.get(key, allowed[0])
        if value not in allowed:
            raise ConfigError(
                f"{self.name!r} has {key}={value!r}; supported: {listed(map(repr, allowed))}."
            )

    def architecture(self, allowed: Iterable[str]) -> str:
        """The class that the weights belong to; the first of `allowed` if none is named."""
        allowed = list(allowed)
        found = (self.get("architectures", None) or allowed)[0]
        if found not in allowed:
            raise ConfigError(
                f"{self.name!r} is for {found!r}; supported: {listed(allowed)}."
                + did_you_mean(found, allowed)
            )
        return found

    def labels(self) -> int:
        """The number of classes of a classifier."""
        named = self.get("id2label", None)
        return len(named) if named else self.get("num_labels", 2)

    def check_all_used(self, ignored: Iterable[str] = ()) -> None:
        """Raise `ConfigError` for values that nobody read and that are not known to be harmless."""
        known = self._used | _HARMLESS | set(ignored)
        unknown = [k for k, v in self._values.items() if k not in known and v not in (None, False)]
        if unknown:
            raise ConfigError(
                f"{self.name!r} has values that graftax does not know and that may change the result: "
                f"{listed(f'{k}={self._values[k]!r}' for k in unknown)}. If they do not, name them in "
                "ignore_config=(...)."
            )
        for part in self._parts:
            part.check_all_used(ignored)


class Recipe(NamedTuple):
    """How to make a model from a configuration, and where its weights lie in a checkpoint."""

    build: Callable[[Any], Any]
    """From a random key to the model."""
    rename: Mapping[str, str | Layout]
    """As `graftax.load_weights` takes it."""
    ignore: tuple[str, ...] = ()
    """Names in checkpoints that hold no weights of the model."""
