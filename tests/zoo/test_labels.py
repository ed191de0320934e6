"""Every family uses the words of `docs/labels.md`, for layers of the shapes that it gives."""

import re

import equinox as eqx
import jax.numpy as jnp
import pytest

import graftax as gx
from common_zoo import LABELS, documented_labels, fixture, labels, separated

MODELS = [
    "bert/base",
    "bert/masked_lm",
    "gpt2/base",
    "llama/gqa",
    "vit/base",
    "vit/published",
    "resnet/bottleneck",
    "resnet/torchvision_basic",
    "convnext/base",
    "densenet/base",
    "googlenet/base",
    "inception/v3",
    "unet/transposed",
    "unet/bilinear",
]


class Recorder(gx.Wrapper):
    """Runs a layer and notes the shapes of what it is given and gives."""

    seen: list = eqx.field(static=True)
    label: str = eqx.field(static=True)

    def __init__(self, layer, seen, label):
        super().__init__(layer)
        self.seen, self.label = seen, label

    def forward(self, call, *inputs):
        y = super().forward(call, *inputs)
        self.seen.append((self.label, inputs[0] if len(inputs) == 1 else inputs, y))
        return y


def documented_shapes():
    """From a label to the numbers of axes that its input and its output may have; None for any."""
    found = {}
    for row in LABELS.read_text(encoding="utf-8").splitlines():
        cells = row.split("|")
        if len(cells) > 5:
            ranks = [_ranks(cell) for cell in cells[3:5]]
            found |= dict.fromkeys(cells[1].split("`")[1::2], ranks)
    return found


def _ranks(cell):
    shapes = re.findall(r"`\(([^()]*)\)`", cell)
    if "tuple" in cell or "any" in cell or not shapes:
        return None
    return {len([part for part in shape.split(",") if part.strip()]) for shape in shapes}


def recorded(model, x, state):
    """(label, input, output) of every labelled layer, in the order they run."""
    seen = []
    known = documented_labels() - {"op"}

    def record(layer, path):
        label = path.rpartition(".")[2]
        inside = any(part in path for part in ("attend.", "pool."))
        return layer if inside or label not in known else Recorder(layer, seen, label)

    layers = gx.select(model, lambda node: callable(node) and node is not model)
    watched = layers.apply(record)
    eqx.filter_eval_shape(lambda: watched(x) if state is None else watched(x, state))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_label_is_documented_and_its_layers_have_the_shapes_given(name):
    found = fixture(name)
    model, state = separated(name)
    assert labels(model) <= documented_labels()
    images = found.io.get("input.pixel_values")
    seen = recorded(model, jnp.arange(8) if images is None else jnp.asarray(images[0]), state)
    assert len({label for label, _, _ in seen}) >= 5
    shapes = documented_shapes()
    for label, x, y in seen:
        for value, ranks in zip((x, y), shapes[label], strict=True):
            if ranks is not None and hasattr(value, "shape"):
                assert len(value.shape) in ranks, (label, value.shape, ranks)


@pytest.mark.parametrize("label", ["query", "key", "value", "output"])
def test_one_pattern_means_one_thing_in_every_transformer(label):
    for name in ("bert/base", "gpt2/base", "llama/gqa", "vit/base"):
        model = fixture(name).model
        assert len(gx.select(model, label, eqx.nn.Linear)) == len(model.encoder)
        assert gx.select(model, "encoder[-1:].attention.{query,value}", eqx.nn.Linear)
