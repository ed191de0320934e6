"""With PyTorch there: a step of training, and which inputs are refused, are the same on both sides."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

import graftax as gx
from common_zoo import close, exported, fixture, separated

RATE = 0.1
NAMES = [
    "bert/classification",
    "bert/padding",
    "gpt2/base",
    "llama/gqa",
    "llama/padding",
    "vit/oblong",
    "resnet/bottleneck",
    "resnet/basic_deep",
    "convnext/base",
]


def config_of(found):
    return json.loads((found.directory / "config.json").read_text())


def reference(found):
    """The model as `transformers` has it, in training with nothing left to chance."""
    (architecture,) = config_of(found)["architectures"]
    model = getattr(transformers, architecture).from_pretrained(found.directory).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        # GPT-2 and Llama drop probabilities by a number, not a layer.
        for field in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, field, None), float):
                setattr(module, field, 0.0)
    return model


def inputs_of(found):
    """Inputs that no fixture has, padding tokens among them."""
    generator = np.random.default_rng(11)
    if "input.pixel_values" not in found.io:
        return generator.integers(0, config_of(found)["vocab_size"], (4, 8)) // 2
    shape = found.io["input.pixel_values"].shape[1:]
    return generator.normal(size=(4, *shape)).astype(np.float32)


def theirs(model, x, weight, directory):
    """One step of gradient descent in PyTorch: the loss, and the tensors afterwards."""
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    loss = (model(torch.from_numpy(x)).logits * torch.from_numpy(weight)).sum()
    loss.backward()
    optimizer.step()
    # Its names in a file are not always those in the program.
    model.save_pretrained(directory)
    return loss.item(), load_file(directory / "model.safetensors")


def ours(found, name, x, weight):
    """The same here: the loss, the model and the state afterwards."""
    model, state = separated(name)
    model = eqx.nn.inference_mode(model, value=False)
    if gx.select(model, eqx.nn.Dropout):
        model = gx.select(model, eqx.nn.Dropout).update(p=0.0)
    run = jax.vmap(
        lambda m, s, x: (m(x), s) if s is None else m(x, s),
        in_axes=(None, None, 0),
        out_axes=(0, None),
        axis_name="batch",
    )

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def loss(model):
        logits, after = run(model, state, x)
        return (logits * weight).sum(), after

    (value, after), gradient = loss(model)
    step = jax.tree.map(
        lambda p, g: p if g is None else p - RATE * g, model, gradient, is_leaf=eqx.is_array
    )
    return value, step, after


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_training_is_that_of_pytorch(name, tmp_path):
    found = fixture(name)
    x, model = inputs_of(found), reference(found)
    with torch.no_grad():
        shape = model.eval()(torch.from_numpy(x)).logits.shape
    weight = np.random.default_rng(5).normal(size=shape).astype(np.float32) / np.sqrt(
        np.prod(shape)
    )
    weight = weight.astype(np.float32)
    expected_loss, expected = theirs(model.train(), x, weight, tmp_path)
    value, step, after = ours(found, name, x, weight)
    close(value, expected_loss, 5e-5)
    tensors = exported(tmp_path, step, found.recipe, **({} if after is None else {"state": after}))
    before = found.stored
    for tensor, array in tensors.items():
        close(array, expected[tensor], 5e-5)
    # That they agree says something only where they moved.
    moved = [name for name in tensors if not np.array_equal(tensors[name], before[name])]
    assert len(moved) > 0.9 * len(tensors)


# --- What is refused ---


def refuses(call):
    """Whether a call fails, as it should for an input that cannot be."""
    try:
        call()
    except (ValueError, TypeError, RuntimeError, IndexError):
        return True
    return False


def check_refusals(name, images):
    """Ours refuses an image if, and only if, theirs does."""
    found = fixture(name)
    model, state = separated(name)
    call = model if state is None else lambda x: model(x, state)[0]
    original = reference(found).eval()
    taken = set()
    for shape in images:
        is_refused = refuses(lambda shape=shape: jax.eval_shape(call, jnp.ones(shape)))
        with torch.no_grad():
            expected = refuses(lambda shape=shape: original(torch.ones((1, *shape))))
        assert is_refused == expected, (name, shape)
        taken.add(is_refused)
    assert taken == {False, True}


@pytest.mark.parametrize("name", ["convnext/base", "convnext/no_scale", "resnet/basic_deep"])
def test_images_are_refused_where_transformers_refuses_them(name):
    channels = fixture(name).io["input.pixel_values"].shape[1]
    sides = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 33, 40]
    images = [(channels, a, b) for a in sides for b in (a, 40)]
    images += [(other, 40, 40) for other in (1, 2, 3, 4)] + [(40, 40, channels)]
    check_refusals(name, images)


@pytest.mark.parametrize("name", ["vit/oblong", "vit/base"])
def test_vit_refuses_images_of_another_size_as_transformers_does(name):
    channels, height, width = fixture(name).io["input.pixel_values"].shape[1:]
    sizes = [(height + i, width + j) for i in (-4, -1, 0, 1, 4, 16) for j in (-5, -1, 0, 1, 5)]
    # As many patches, in another arrangement.
    sizes += [(width, height), (height * 2, width // 2), (height // 2, width * 2)]
    images = [(channels, *size) for size in sizes] + [(channels + 1, height, width)]
    check_refusals(name, images)


@pytest.mark.parametrize("name", ["bert/base", "gpt2/base", "llama/gqa"])
@pytest.mark.parametrize("number", [-1, 60, 61, 66, 67, 1000])
def test_ids_that_transformers_refuses_give_nan(name, number):
    found = fixture(name)
    ids = np.array([1, 2, number])
    with torch.no_grad():
        expected = refuses(lambda: reference(found).eval()(torch.from_numpy(ids[None])))
    assert bool(np.isnan(np.asarray(found.model(ids))).any()) == expected
