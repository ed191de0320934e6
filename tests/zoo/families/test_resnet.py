"""ResNet: what it computes is what `transformers` and torchvision compute, statistics included."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_images import check_export
from common_zoo import (
    check_round_trip,
    close,
    configurations,
    documented_labels,
    exported,
    fixture,
    labels,
    published,
    separated,
)
from graftax.zoo import ConfigError, from_pretrained, resnet
from graftax.zoo.families.resnet import DEPTHS

FIXTURES = configurations("resnet")


def stages(model, state, x):
    """(what the stem and each stage give, what the model gives), in inference."""
    given, state = gx.activations(model, x, state=state)
    groups = [y for label, y in given.items() if label == "stem" or label.startswith("stage")]
    return groups, given[model.labels[-1]]


@pytest.mark.parametrize("name", FIXTURES)
def test_outputs_and_what_leaves_each_stage_are_those_of_pytorch(name):
    found = fixture(name)
    model, state = separated(name)
    run = jax.jit(jax.vmap(lambda x: stages(model, state, x)))
    hidden, last = run(found.io["input.pixel_values"])
    outputs = found.group("output.")
    expected = [outputs[n] for n in sorted(outputs) if n.startswith("hidden")]
    # torchvision calls the stem's output `maxpool`, which sorts last.
    if "hidden.maxpool" in outputs:
        expected = [expected[-1], *expected[:-1]]
    for ours, theirs in zip(hidden, expected, strict=True):
        close(ours, theirs)
    close(last, outputs.get("logits", outputs.get("pooler_output")).reshape(last.shape))


@pytest.mark.parametrize("name", ["resnet/basic", "resnet/bottleneck"])
def test_gradients_are_those_of_transformers(name, tmp_path):
    found = fixture(name)
    model, state = separated(name)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradients(model):
        logits = jax.vmap(lambda x: model(x, state)[0])(found.io["input.pixel_values"])
        return (logits * found.io["loss_weight.logits"]).sum()

    for tensor, gradient in exported(tmp_path, gradients(model), found.recipe, state=state).items():
        if f"grad.{tensor}" in found.io:
            close(gradient, found.io[f"grad.{tensor}"])


def test_a_training_step_moves_the_statistics_as_pytorch_does(tmp_path):
    found = fixture("resnet/basic")
    model, state = separated("resnet/basic")
    train = jax.vmap(
        eqx.nn.inference_mode(model, value=False),
        axis_name="batch",
        in_axes=(0, None),
        out_axes=(0, None),
    )
    logits, state = jax.jit(train)(found.io["input.pixel_values"], state)
    close(logits, found.io["train.output.logits"])
    tensors = exported(tmp_path, model, found.recipe, state=state)
    moved = {n: a for n, a in found.group("train.").items() if "running_" in n}
    assert {n.rpartition("_")[2] for n in moved} == {"mean", "var"}
    for name, expected in moved.items():
        close(tensors[name], expected)


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    found = fixture(name)
    model, state = separated(name)
    tensors = exported(tmp_path, model, found.recipe, state=state)
    check_export(tensors, found.stored)


def test_a_saved_model_loads_bit_for_bit_with_its_state(tmp_path):
    model, state = separated("resnet/basic")
    check_round_trip(tmp_path, model)
    gx.save(tmp_path / "with_state", model, state)
    _, loaded = eqx.nn.make_with_state(gx.load)(tmp_path / "with_state")
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(state), strict=True):
        assert ours.dtype == theirs.dtype and (ours == theirs).all()


@pytest.mark.slow
def test_folded_batch_norms_compute_the_same():
    model, state = separated("resnet/bottleneck")
    folded = gx.fold_batch_norm(model, state)
    assert not gx.select(folded, eqx.nn.BatchNorm)
    x = fixture("resnet/bottleneck").io["input.pixel_values"][0]
    close(folded(x), model(x, state)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_type": "wide"}, "layer_type='wide'"),
        ({"groups": 32}, "groups=32"),
        ({"architectures": ["ResNetBackbone"]}, "ResNetBackbone"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "resnet/basic", **changes))


def test_its_words_are_those_of_the_zoo():
    model, _ = separated("resnet/in_bottleneck")
    assert labels(model) <= documented_labels()
    assert gx.select(model, "stem").paths == ("stem",)
    assert gx.select(model, "stage2.0.shortcut.conv", eqx.nn.Conv2d).one().stride == (2, 2)


@pytest.mark.parametrize(
    ("layers", "parameters"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_the_published_sizes_have_the_published_number_of_parameters(layers, parameters):
    widths = (256, 512, 1024, 2048) if layers > 34 else (64, 128, 256, 512)
    model = eqx.filter_eval_shape(
        lambda key: resnet(widths=widths, depths=DEPTHS[layers], bottlenecks=layers > 34, key=key),
        jax.random.key(0),
    )
    is_state = lambda node: isinstance(node, eqx.nn.StateIndex)
    leaves = jax.tree.leaves(model, is_leaf=is_state)
    count = sum(leaf.size for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct))
    assert count == parameters


def test_a_truncated_backbone_gives_the_features_of_its_stage():
    model, state = separated("resnet/basic")
    backbone = model[:"stage3"]
    x = jnp.asarray(fixture("resnet/basic").io["input.pixel_values"])
    features = jax.vmap(lambda x: backbone(x, state)[0])(x)
    close(features, fixture("resnet/basic").io["output.hidden.2"])
