"""What the fixtures made of plain `torch` modules have in common."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch as st
import torch
from fixtures_common import Fixture, Tensors, image
from torch import nn


def state_dict_fixture(
    family: str,
    name: str,
    build: Callable[[], nn.Module],
    config: Callable[[nn.Module], dict[str, Any]],
    shape: tuple[int, ...],
    *,
    stages: tuple[str, ...],
    to_file: Callable[[str], str] = lambda name: name,
    from_file: Callable[[str], str] = lambda name: name,
    tracked: bool = True,
    **rest: Any,
) -> Fixture:
    """`stages` are the submodules whose outputs are stored too, as `hidden.NAME`."""

    def save(model: nn.Module, directory: Path) -> None:
        tensors = {
            to_file(key): value.contiguous()
            for key, value in model.state_dict().items()
            if tracked or not key.endswith("num_batches_tracked")
        }
        st.save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config(model), indent=2) + "\n"
        (directory / "config.json").write_text(text)

    def load(directory: Path) -> nn.Module:
        model = build()
        tensors = st.load_file(directory / "model.safetensors")
        model.load_state_dict({from_file(key): value for key, value in tensors.items()})
        return model

    def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"pixel_values": image(rng, *shape)}

    def call(model: nn.Module, given: Tensors) -> Tensors:
        found: Tensors = {}

        def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor, *, stage: str) -> None:
            # A copy, because the ReLU that follows may write into its input.
            found[f"hidden.{stage}"] = output.clone()

        hooks = [
            model.get_submodule(stage).register_forward_hook(functools.partial(keep, stage=stage))
            for stage in stages
        ]
        logits = model(given["pixel_values"])
        for hook in hooks:
            hook.remove()
        # In training mode some give their auxiliary logits as well.
        return {"logits": logits if isinstance(logits, torch.Tensor) else logits[0]} | found

    return Fixture(
        family, name, build=build, save=save, load=load, inputs=inputs, call=call, **rest
    )
