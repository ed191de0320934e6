"""Reading `config.json`: every value is used, known to be harmless, or refused by name."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..files import Layout
from ..files.bounded import parse_json
from ..paths.errors import did_you_mean, listed
from .blocks import check_blocks
from .keys import Key, Required, shown


class ConfigError(ValueError):
    """A configuration that cannot be followed exactly."""


# What says nothing about the function that a model computes: names, training, generation, caches.
_HARMLESS = frozenset(
    """
    _attn_implementation_autoset _name_or_path _num_labels architectures attn_implementation auto_map
    bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward classifier_dropout
    decoder_start_token_id diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size
    eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing id2label initializer_factor initializer_range is_encoder_decoder
    keys_to_ignore_at_inference label2id language length_penalty max_length min_length model_type n_ctx
    no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences output_attentions
    output_hidden_states output_past output_scores pad_token_id prefix pretraining_tp problem_type
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder
    tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config
    transformers_version typical_p unk_token_id use_bfloat16 use_cache use_return_dict
    """.split()
)


class Config:
    """A configuration that knows which of its values were read."""

    def __init__(self, values: Mapping[str, Any], name: str):
        self.values: dict[str, Any] = dict(values)
        self._used: set[str] = set()
        self._parts: list[Config] = []
        self.name: str = name

    @classmethod
    def read(cls, file: Path) -> "Config":
        """The configuration in a file. Raises `FileNotFoundError` or `ConfigError`."""
        if not file.is_file():
            raise FileNotFoundError(
                f"There is no {file.name} in {str(file.parent)!r}: it says what the model looks like."
            )
        try:
            text = file.read_text(encoding="utf-8")
            values = parse_json(text, len(text))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{str(file)!r} is no JSON: {error}.") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{str(file)!r} holds a {type(values).__name__}, not named values.")
        return cls(values, str(file))

    def error(self, key: str, why: str) -> ConfigError:
        """The error that says what a key has, and why that does not do."""
        return ConfigError(f"{self.name!r} has {key}={shown(self.values.get(key))}{why}")

    def value(self, key: Key) -> Any:
        """The value of a key, as a constructor takes it. Raises `ConfigError`."""
        self._used.add(key.name)
        value = self.values.get(key.name)
        if value is None or value == {}:
            return self._default(key)
        try:
            return key.kind.read(value)
        except ValueError as error:
            raise self.error(key.name, f"; {error}") from None

    def _default(self, key: Key) -> Any:
        if isinstance(key.default, Required):
            raise ConfigError(
                f"{self.name!r} lacks {key.name!r}.{did_you_mean(key.name, self.values)}"
            )
        if isinstance(key.default, Key):
            return self.value(key.default)
        return None if key.default is None else key.kind.read(key.default)

    def settings(self, keys: Mapping[str, Key]) -> dict[str, Any]:
        """The arguments of a constructor, by the table of their keys. Raises `ConfigError`."""
        return {argument: self.value(key) for argument, key in keys.items()}

    def check_blocks(
        self, keys: Mapping[str, Key], settings: Mapping[str, Any], names: Collection[str]
    ) -> None:
        """Compare each number of blocks with the names of the weights, before any block is built.

        Raises `ConfigError`, or `WeightsError` for weights without blocks of such names.
        """
        for argument, key in keys.items():
            if key.blocks and (
                why := check_blocks(key.depth(settings[argument]), key.blocks, names)
            ):
                raise self.error(key.name, why)

    def no_model(self, keys: Mapping[str, Key], why: Exception) -> ConfigError:
        """The error for what a constructor refuses: in its words, and the keys that they stand for."""
        words = re.findall(r"\w+", str(why))
        meant = [key.name for argument, key in keys.items() if argument in words]
        said = ", ".join(f"{name}={shown(self.values.get(name))}" for name in meant or self.values)
        return ConfigError(f"{self.name!r} describes no model: {why} It has {said}.")

    def skip(self, keys: Iterable[str]) -> None:
        """Take values as read that have no effect on what the model computes."""
        self._used.update(keys)

    def part(self, key: str) -> "Config | None":
        """The configuration inside this one, read by the same rules; None if it is missing or empty."""
        self._used.add(key)
        values = self.values.get(key)
        if values is None or values == {}:
            return None
        if not isinstance(values, dict):
            raise self.error(key, ", where named values should be.")
        self._parts.append(Config(values, f"{self.name}: {key}"))
        return self._parts[-1]

    def architecture(self, allowed: Collection[str]) -> str:
        """The class that the weights belong to; the first of `allowed` if none is named."""
        found = self.values.get("architectures")
        if not found:
            return next(iter(allowed))
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise self.error("architectures", "; it should be a list with the name of one class.")
        if found[0] not in allowed:
            near = did_you_mean(found[0][:99], allowed)
            raise self.error(
                "architectures",
                f": it is for {shown(found[0])}; supported: {listed(allowed)}.{near} Without its head, "
                "any is: give head=None.",
            )
        return found[0]

    def check_all_used(self, ignored: Iterable[str] = ()) -> None:
        """Raise `ConfigError` for values that nobody read and that are not known to be harmless."""
        known = self._used | _HARMLESS | set(ignored)
        unknown = [k for k, v in self.values.items() if k not in known and not _is_left_out(v)]
        if unknown:
            raise ConfigError(
                f"{self.name!r} has values that graftax does not know and that may change the result: "
                f"{listed(f'{key}={shown(self.values[key])}' for key in unknown)}. If they do not, "
                "name them in ignore_config=(...)."
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
    keys: Mapping[str, Key] = {}
    """Where a configuration says the arguments that the model is made from."""
    wants: Callable[[str], bool] = lambda name: True
    """Whether a tensor of this name is looked at."""


def _is_left_out(value: Any) -> bool:
    # Unlike them, 0 is a value.
    return value is None or value is False or value == {} or value == []
