"""A step of training is that of PyTorch: exactly where nothing is random, and counted where it is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_zoo import close, exported, fixture, published, separated
from graftax.zoo import DropPath, from_pretrained

KEY = jax.random.key(0)


def still(model):
    """The model in training mode, with all that is random off."""
    model = eqx.nn.inference_mode(model, value=False)
    dropouts = gx.select(model, eqx.nn.Dropout)
    return dropouts.update(p=0.0) if dropouts else model


# --- Without chance ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert/padding", "llama/padding"])
def test_loss_and_gradients_are_those_of_pytorch_and_padding_learns_nothing(name, tmp_path):
    found = fixture(name)
    ids, weight = found.io["input.input_ids"], found.io["loss_weight.logits"]
    assert (ids == 5).any()

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(model):
        return (jax.vmap(model)(ids) * weight).sum()

    value, gradient = loss(still(found.model))
    close(value, found.io["loss"])
    tensors = exported(tmp_path, gradient, found.recipe)
    expected = found.group("grad.")
    assert sorted(tensors) == sorted(expected)
    for parameter, array in expected.items():
        close(tensors[parameter], array)
    (words,) = [
        n for n in expected if n.endswith(("word_embeddings.weight", "embed_tokens.weight"))
    ]
    assert not expected[words][5].any()
    # It is seen nevertheless: without the word that it is padding, its embedding would learn.
    free = gx.select(found.model, eqx.nn.Embedding).update(padding=None)
    _, gradient = loss(still(free))
    assert np.abs(exported(tmp_path, gradient, found.recipe)[words][5]).max() > 1e-3


def test_loss_gradients_and_statistics_of_a_network_with_norms_are_those_of_pytorch(tmp_path):
    found = fixture("resnet/training")
    model, state = separated("resnet/training")
    images, weight = found.io["input.pixel_values"], found.io["loss_weight.logits"]

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def loss(model, state):
        run = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
        logits, state = run(images, state)
        return (logits * weight).sum(), (logits, state)

    (value, (logits, after)), gradient = loss(still(model), state)
    close(value, found.io["train.loss"])
    close(logits, found.io["train.output.logits"])
    gradients = exported(tmp_path, gradient, found.recipe, state=after)
    expected = found.group("train.grad.")
    assert expected
    for parameter, array in expected.items():
        # Through norms on the statistics of the batch, gradients come out larger, and are rounded more.
        close(gradients[parameter], array, 2e-5)
    tensors = exported(tmp_path, model, found.recipe, state=after)
    moved = {n: a for n, a in found.group("train.").items() if "running_" in n}
    assert len(moved) == 2 * len(gx.select(model, eqx.nn.BatchNorm))
    for name, array in moved.items():
        close(tensors[name], array)


# --- By chance ---


def test_the_blocks_of_convnext_are_left_out_the_more_often_the_later_they_stand():
    model = gx.zoo.convnext(
        widths=(4, 8), depths=(2, 3), act=jax.nn.gelu, drop_path=0.4, scale=None, key=KEY
    )
    rates = {path: layer.p for path, layer in gx.select(model, DropPath).items()}
    # torch.linspace(0, 0.4, 5); the first block is always there.
    assert rates == pytest.approx(
        {
            "stage1.blocks.1.drop_path": 0.1,
            "stage2.blocks.0.drop_path": 0.2,
            "stage2.blocks.1.drop_path": 0.3,
            "stage2.blocks.2.drop_path": 0.4,
        }
    )
    block = model.stage2.blocks[2]
    x = jax.random.normal(KEY, (8, 4, 4))
    run = jax.jit(jax.vmap(lambda key: block(x, key=key)))
    found = np.asarray(run(jax.random.split(KEY, 2000)))
    is_left_out = (found == np.asarray(x)).all((1, 2, 3))
    assert abs(is_left_out.mean() - 0.4) < 4 * (0.4 * 0.6 / 2000) ** 0.5
    added = eqx.nn.inference_mode(block)(x) - x
    close(found[~is_left_out][0] - x, added / 0.6, 1e-4)


def test_published_rates_are_followed(tmp_path):
    model = from_pretrained(published(tmp_path, "convnext/base", drop_path_rate=0.3))
    assert [layer.p for layer in gx.select(model, DropPath)] == pytest.approx([0.1, 0.2, 0.3])
    close(model(jnp.ones((3, 32, 32))), fixture("convnext/base").model(jnp.ones((3, 32, 32))))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("bert/base", "attention_probs_dropout_prob"),
        ("gpt2/base", "attn_pdrop"),
        ("llama/gqa", "attention_dropout"),
        ("vit/base", "attention_probs_dropout_prob"),
    ],
)
def test_the_rate_of_attention_is_that_of_the_configuration(name, key, tmp_path):
    model = from_pretrained(published(tmp_path, name, **{key: 0.25}))
    rates = [layer.drop.p for layer in gx.select(model, gx.zoo.DotProductAttention)]
    assert rates == [0.25, 0.25]


def test_berts_classifier_drops_what_it_is_given():
    model = gx.zoo.bert(
        vocabulary=9,
        width=64,
        depth=0,
        heads=2,
        inner=8,
        act=jax.nn.gelu,
        dropout=0.0,
        head="classifier",
        head_dropout=0.3,
        key=KEY,
    )
    pooled = model[:"dropout"](jnp.arange(3))
    found = jax.vmap(lambda key: model[:"head"](jnp.arange(3), key=key))(jax.random.split(KEY, 500))
    is_dropped = np.asarray(found == 0)
    assert abs(is_dropped.mean() - 0.3) < 4 * (0.3 * 0.7 / is_dropped.size) ** 0.5
    close(np.where(is_dropped, 0, found), np.where(is_dropped, 0, pooled / 0.7))
