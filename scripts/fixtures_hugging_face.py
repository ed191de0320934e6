"""What the fixtures made with `transformers` have in common."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch as st
import torch
from fixtures_common import Fixture, Tensors, ids, right_padding

NEW_TOKENS = 16


def hugging_face(
    name: str,
    cls: type,
    config: Any,
    inputs: Callable[[np.random.Generator], dict[str, np.ndarray]],
    call: Callable[[torch.nn.Module, Tensors], Tensors],
    *,
    note: str,
    publish: Callable[[Path], None] | None = None,
    save: Callable[[torch.nn.Module, Path], None] | None = None,
    arguments: dict[str, Any] | None = None,
    **rest: Any,
) -> Fixture:
    """`publish` rewrites the saved files the way the published ones are written."""
    arguments = arguments or {}

    def write(model: torch.nn.Module, directory: Path) -> None:
        (save or type(model).save_pretrained)(model, directory)
        if publish is not None:
            publish(directory)

    def load(directory: Path) -> torch.nn.Module:
        return cls.from_pretrained(directory, attn_implementation="eager", **arguments)

    def build() -> torch.nn.Module:
        config._attn_implementation = "eager"
        return cls(config, **arguments)

    given = "".join(f", {key}={value}" for key, value in arguments.items())
    return Fixture(
        config.model_type,
        name,
        note=note,
        made_by=f"transformers.{cls.__name__}(config{given})",
        build=build,
        save=write,
        load=load,
        inputs=inputs,
        call=call,
        **rest,
    )


def rewrite(
    names: Callable[[str], str] = lambda name: name,
    extra: Callable[[], Tensors] = dict,
    config: dict[str, Any] | None = None,
) -> Callable[[Path], None]:
    """Renames tensors, adds some that are not parameters, and replaces `config.json`."""

    def publish(directory: Path) -> None:
        file = directory / "model.safetensors"
        tensors = {names(name): value for name, value in st.load_file(file).items()} | extra()
        st.save_file(tensors, file, metadata={"format": "pt"})
        if config is not None:
            (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    return publish


def call_with(*outputs: str) -> Callable[[torch.nn.Module, Tensors], Tensors]:
    """Calls a model with the inputs it has by name; `hidden.0` is what enters its first block."""

    def call(model: torch.nn.Module, inputs: Tensors) -> Tensors:
        given = {name: inputs[name] for name in ARGUMENTS if name in inputs}
        result = model(**given, output_hidden_states=True)
        found = {name: result[name] for name in outputs}
        hidden = {f"hidden.{i}": value for i, value in enumerate(result.hidden_states)}
        return found | hidden | _generated(model, inputs)

    return call


ARGUMENTS = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")


def _generated(model: torch.nn.Module, inputs: Tensors) -> Tensors:
    """Greedy continuations; each step's choice must be clear, so that no rounding changes it."""
    found: Tensors = {}
    for name in ("prompt", "padded_prompt"):
        # In float64 the mask's lowest number overflows where transformers rounds to float32.
        if f"{name}.input_ids" not in inputs or model.dtype == torch.float64:
            continue
        prompt = inputs[f"{name}.input_ids"]
        mask = inputs.get(f"{name}.attention_mask", torch.ones_like(prompt))
        model.generation_config.eos_token_id = None
        result = model.generate(
            prompt,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        best = torch.stack(result.logits).topk(2).values
        margin = (best[..., 0] - best[..., 1]).min().item()
        tokens = result.sequences[:, prompt.shape[1] :]
        variety = min(len(set(row.tolist())) for row in tokens)
        if margin < 0.01 or variety < 6:
            raise ValueError(f"choose another seed: margin {margin}, {variety} kinds of token")
        found[f"{name}.new_tokens"] = tokens
    return found


def decoder_inputs(
    vocabulary: int, mask: bool, prompts: bool
) -> Callable[[np.random.Generator], dict]:
    def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
        given = {"input_ids": ids(rng, vocabulary, 2, 9)}
        if mask:
            given["attention_mask"] = right_padding(2, 9, 9, 6)
            given["input_ids"] *= given["attention_mask"]
        if prompts:
            given["prompt.input_ids"] = ids(rng, vocabulary, 2, 5)
            padding = right_padding(2, 6, 6, 4)[:, ::-1].copy()
            given["padded_prompt.attention_mask"] = padding
            given["padded_prompt.input_ids"] = ids(rng, vocabulary, 2, 6) * padding
        return given

    return inputs
