"""With PyTorch there: what graftax computes and writes is what `transformers` computes and reads.

The committed fixtures say the same without PyTorch; here the inputs are new, and `transformers` itself
loads what graftax exported.
"""

import json
import shutil

import equinox as eqx
import jax
import numpy as np
import pytest
import torch
import transformers

import graftax as gx
from common_zoo import ZOO, close, fixture, separated

TEXT = [
    "bert/base",
    "bert/masked_lm",
    "bert/classification",
    "gpt2/base",
    "gpt2/untied",
    "llama/gqa",
    "llama/tied",
    "llama/llama3_rope",
]
IMAGES = ["vit/base", "vit/oblong", "resnet/bottleneck", "resnet/basic_deep", "convnext/base"]


def reference(directory, config):
    """The model as `transformers` loads it, for inference."""
    (architecture,) = config["architectures"]
    return getattr(transformers, architecture).from_pretrained(directory).eval()


def answer(outputs):
    """What the last layer gives."""
    for name in ("logits", "pooler_output"):
        if name in outputs:
            return outputs[name].detach().numpy()
    return outputs["last_hidden_state"].detach().numpy()


def split(name):
    """(the model, its state or None, the rest of the fixture)."""
    return *separated(name), fixture(name)


def call(model, state):
    """The model as a function of one example."""
    return model if state is None else lambda x: model(x, state)[0]


def new_input(name, config):
    """Inputs that no fixture has, from another generator."""
    generator = np.random.default_rng(7)
    if name in TEXT:
        return generator.integers(1, config["vocab_size"], (3, 8))
    shape = fixture(name).io["input.pixel_values"].shape[1:]
    return generator.normal(size=(3, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", [*TEXT, *IMAGES])
def test_new_inputs_give_the_same_outputs(name):
    model, state, found = split(name)
    config = json.loads((found.directory / "config.json").read_text())
    x = new_input(name, config)
    with torch.no_grad():
        expected = answer(reference(found.directory, config)(torch.tensor(x)))
    close(jax.jit(jax.vmap(call(model, state)))(x), expected.reshape(len(x), *expected.shape[1:]))


@pytest.mark.parametrize("name", [*TEXT, *IMAGES])
def test_transformers_loads_what_graftax_exports(name, tmp_path):
    model, state, found = split(name)
    config = json.loads((found.directory / "config.json").read_text())
    # Another model than the published one, so that what is loaded must come from the export.
    edited = jax.tree.map(lambda leaf: 0.9 * leaf if eqx.is_inexact_array(leaf) else leaf, model)
    shutil.copy(found.directory / "config.json", tmp_path)
    gx.export_weights(tmp_path / "model.safetensors", edited, found.recipe.rename, state=state)
    x = new_input(name, config)
    with torch.no_grad():
        expected = answer(reference(tmp_path, config)(torch.tensor(x)))
    found_output = jax.jit(jax.vmap(call(edited, state)))(x)
    close(found_output, expected.reshape(found_output.shape))


def test_a_torch_file_is_loaded_as_plain_tensors():
    directory = ZOO / "bert" / "torch_bin"
    model = gx.zoo.from_pretrained(directory)
    theirs = transformers.BertModel.from_pretrained(directory).eval()
    ids = np.arange(1, 9)
    with torch.no_grad():
        close(model(ids), answer(theirs(torch.tensor(ids[None])))[0])
