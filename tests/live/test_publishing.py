"""With PyTorch there: `transformers` opens what `save_pretrained` writes, and computes the same."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

import graftax as gx
from common_publishing import EDITS, edited, inputs
from common_zoo import ZOO, close, fixture, separated
from graftax.zoo import from_pretrained, save_pretrained

HEADS = ["bert/tokens", "bert/questions", "gpt2/tokens", "gpt2/questions"]
HEADS += ["llama/tokens", "llama/questions"]
ROPE = ["llama/dynamic_rope", "llama/yarn_rope", "llama/longrope", "llama/published_3"]
REST = ["bert/published", "bert/masked_lm_untied", "vit/oblong", "convnext/model", "resnet/basic"]


def opened(directory):
    """The model as `transformers` opens it, with not a weight made anew but those left out."""
    weights = load_file(directory / "model.safetensors")
    config = transformers.AutoConfig.from_pretrained(directory)
    (architecture,) = config.architectures
    model, info = getattr(transformers, architecture).from_pretrained(
        directory, output_loading_info=True
    )
    # A body that was published without its pooler has none here either. The second bias of an untied
    # decoder is added to nothing.
    missing = {key for key in info["missing_keys"] if "pooler" not in key}
    assert missing <= (
        {"cls.predictions.bias"} if "cls.predictions.decoder.bias" in weights else set()
    )
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


def theirs(model, x, pooled):
    """What `transformers` gives, under the shape that graftax gives it."""
    with torch.no_grad():
        found = model(torch.tensor(x))
    if "start_logits" in found:
        return torch.stack([found["start_logits"], found["end_logits"]], -1).numpy()
    if "logits" in found:
        return found["logits"].float().numpy()
    name = "pooler_output" if pooled else "last_hidden_state"
    return found[name].float().numpy()


def ours(model, x):
    """What graftax gives for a batch, statistics inside or none."""
    model, state = eqx.nn.make_with_state(lambda: model)()
    return jax.jit(jax.vmap(lambda x: model(x, state)[0]))(x)


def check(directory, model, x, error=1e-5):
    expected = theirs(
        opened(directory), x, pooled="pooler" in model.labels or "pool" in model.labels
    )
    found = ours(model, x)
    close(np.asarray(found, np.float32), expected.reshape(found.shape), error)


@pytest.mark.parametrize("edit", EDITS)
def test_transformers_opens_what_was_edited(edit, tmp_path):
    name, model, _ = edited(edit)
    save_pretrained(tmp_path, model, like=ZOO / name)
    x = inputs(name)
    if edit == "larger images":
        x = np.random.default_rng(3).normal(size=(2, 3, 24, 24)).astype(np.float32)
    check(tmp_path, model, x)


@pytest.mark.parametrize("name", [*HEADS, *ROPE, *REST])
def test_transformers_opens_every_head_and_kind_of_positions(name, tmp_path):
    model = jax.tree.map(
        lambda leaf: 0.9 * leaf if eqx.is_inexact_array(leaf) else leaf, fixture(name).model
    )
    save_pretrained(tmp_path, model, like=ZOO / name)
    check(tmp_path, model, inputs(name))


@pytest.mark.parametrize("length", [5, 8, 9, 20])
@pytest.mark.parametrize("name", ROPE)
def test_positions_turn_as_in_transformers_at_every_length(name, length):
    # A new one each time: `transformers` remembers the longest input.
    x = np.random.default_rng(length).integers(1, 60, (2, length))
    check(ZOO / name, fixture(name).model, x)


def test_the_dtype_that_is_written_is_the_one_they_open_it_in(tmp_path):
    model = from_pretrained(ZOO / "gpt2" / "base", dtype=jnp.bfloat16)
    save_pretrained(tmp_path, model, like=ZOO / "gpt2" / "base")
    assert opened(tmp_path).dtype == torch.bfloat16
    weight = opened(tmp_path).transformer.wte.weight.float().detach().numpy()
    assert (weight == np.asarray(model.embeddings.word.weight, np.float32)).all()


def test_statistics_are_written_too(tmp_path):
    model, state = separated("resnet/basic")
    norm = model.stem.norm
    moved = state.set(
        norm.batch_state_index, tuple(2 * x for x in state.get(norm.batch_state_index))
    )
    whole = gx.with_state(model, moved)
    save_pretrained(tmp_path, whole, like=ZOO / "resnet" / "basic")
    check(tmp_path, whole, inputs("resnet/basic"))
