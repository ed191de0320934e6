"""Heads and channels of published networks are pruned in one line each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx

KEYS = jax.random.split(jax.random.key(0), 8)
IDS = jnp.array([3, 1, 4, 1, 5])
HEADS = {
    "encoder.*.attention.{query,key,value}": "out",
    "encoder.*.attention.op.attend": "heads",
    "encoder.*.attention.op.output": "in",
}


def bert(**options):
    settings = {
        "vocabulary": 11,
        "width": 8,
        "depth": 2,
        "heads": 4,
        "inner": 16,
        "act": jax.nn.gelu,
    }
    return eqx.nn.inference_mode(gx.zoo.bert(**settings, **options, key=KEYS[0]))


def llama(heads, kv_heads):
    settings = {"vocabulary": 11, "width": 8, "depth": 2, "inner": 16, "head_size": 4}
    return gx.zoo.llama(**settings, heads=heads, kv_heads=kv_heads, key=KEYS[0])


def masked(model, kept, heads):
    """The model whose outputs do not look at the heads that are not kept."""
    seen = jnp.isin(jnp.arange(heads), jnp.array(kept))

    def mask(weight):
        return weight * jnp.repeat(seen, weight.shape[1] // heads)[None]

    return gx.select(model, "encoder.*.attention.op.output.weight").apply(mask)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [[0, 2], [3], [2, 1, 0]])
def test_a_bert_with_pruned_heads_is_one_with_these_heads_masked(kept):
    model = bert()
    small = gx.take(model, HEADS, gx.blocks(kept, of=4))
    np.testing.assert_allclose(small(IDS), masked(model, kept, 4)(IDS), atol=1e-5)
    attention = small.encoder[0].attention
    assert attention.op.attend.heads == attention.op.attend.kv_heads == len(kept)
    assert attention.query.out_features == attention.op.output.in_features == 2 * len(kept)
    grads = eqx.filter_grad(lambda model: jnp.sum(model(IDS) ** 2))(small)
    assert grads.encoder[1].attention.query.weight.shape == (2 * len(kept), 8)


@pytest.mark.slow
def test_groups_of_heads_are_pruned_with_the_key_that_they_share():
    model = llama(heads=6, kv_heads=3)
    small = gx.take(model, HEADS, gx.blocks([2, 0], of=3))
    expected = masked(model, [4, 5, 0, 1], 6)(IDS)
    np.testing.assert_allclose(small(IDS), expected, rtol=1e-4, atol=1e-5)
    attend = small.encoder[0].attention.op.attend
    assert (attend.heads, attend.kv_heads) == (4, 2)


def test_queries_alone_are_pruned_equally_for_each_key():
    model = llama(heads=6, kv_heads=3)
    queries = {p.replace("{query,key,value}", "query"): axis for p, axis in HEADS.items()}
    small = gx.take(model, queries, gx.blocks([1, 2, 5], of=6))
    expected = masked(model, [1, 2, 5], 6)(IDS)
    np.testing.assert_allclose(small(IDS), expected, rtol=1e-4, atol=1e-5)
    attend = small.encoder[0].attention.op.attend
    assert (attend.heads, attend.kv_heads) == (3, 3)
    for kept in ([0, 1], [0, 1, 2, 3, 4], [0, 2, 1, 3]):
        with pytest.raises(ValueError, match=r"op.attend"):
            gx.take(model, queries, gx.blocks(kept, of=6))


def test_an_attention_that_is_not_told_its_heads_is_an_error_when_called():
    untold = {pattern: axis for pattern, axis in HEADS.items() if axis != "heads"}
    small = gx.take(bert(), untold, gx.blocks([0, 2], of=4))
    with pytest.raises(ValueError, match="not 4 heads of 2"):
        small(IDS)


def test_an_index_that_does_not_count_heads_is_refused():
    for index in ([0, 1, 2, 3], gx.blocks([0], of=2)):
        with pytest.raises(ValueError, match=r"op.attend.*4 heads.*blocks\(\.\.\., of=4\)"):
            gx.take(bert(), HEADS, index)
    with pytest.raises(ValueError, match=r"op.attend.*'heads'"):
        gx.take(bert(), HEADS | {"encoder.*.attention.op.attend": 0}, gx.blocks([0], of=4))


def test_the_inner_units_of_every_block():
    model = bert()
    order = jax.random.permutation(KEYS[1], 16)
    axes = {"encoder.*.mlp.up": "out", "encoder.*.mlp.down": "in"}
    np.testing.assert_allclose(gx.take(model, axes, order)(IDS), model(IDS), atol=1e-5)
    assert gx.take(model, axes, slice(4)).encoder[1].mlp.down.in_features == 4


def test_the_width_of_a_whole_bert_in_another_order():
    model = bert(head="vocabulary")
    order = jax.random.permutation(KEYS[1], 8)
    axes = {
        "embeddings.{word,position,token_type}": "out",
        "**.norm": 0,
        "**.{norm1,norm2}": 0,
        "encoder.*.attention.{query,key,value}": "in",
        "encoder.*.attention.op.output": "out",
        "**.up": "in",
        "**.down": "out",
        "head.dense": ("in", "out"),
        "head.vocabulary": "in",
    }
    same = gx.take(model, axes, order)
    np.testing.assert_allclose(same(IDS), model(IDS), atol=1e-5)
    assert same.embeddings.word.weight is same.head.vocabulary.weight
    assert gx.take(model, axes, slice(6))(IDS).shape == (5, 11)


def test_tokens_are_taken_and_the_padding_token_keeps_its_place():
    table = gx.Chain(word=gx.Vmap(gx.zoo.Embedding(9, 4, padding=3, key=KEYS[0])))
    small = gx.take(table, {"word": "in"}, [0, 5, 3]).word
    assert small.padding == 2 and small.num_embeddings == 3
    assert (small(jnp.array([1])) == table(jnp.array([5]))).all()
    assert gx.take(table, {"word": "out"}, [0, 2]).word.padding == 3
    with pytest.raises(ValueError, match=r"'word'.*padding token, 3"):
        gx.take(table, {"word": "in"}, [0, 5])


# --- Convolutional networks ---


def resnet(bottlenecks=False):
    model = gx.zoo.resnet(
        widths=(8, 16), depths=(1, 2), stem=8, bottlenecks=bottlenecks, classes=3, key=KEYS[0]
    )
    arrays = iter(jax.random.split(KEYS[1], 200))
    draw = lambda a: jax.random.uniform(next(arrays), a.shape, minval=0.5, maxval=1.5)
    norms = gx.select(model, gx.zoo.BatchNorm)
    model = norms.select(["weight", "bias", "batch_state_index.init.*"]).apply(draw)
    return eqx.nn.inference_mode(model)


IMAGE = jax.random.normal(KEYS[2], (3, 32, 32))


@pytest.mark.slow
def test_channels_of_a_resnet_are_pruned_with_their_running_statistics():
    model = resnet()
    kept = jnp.array([14, 3, 7, 0])
    gone = jnp.array([i for i in range(16) if i not in kept])
    unseen = gx.select(model, "stage2.*.conv2.weight").apply(lambda w: w.at[:, gone].set(0))
    axes = {"stage2.*.conv1": "out", "stage2.*.norm1": 0, "stage2.*.conv2": "in"}
    small = gx.take(unseen, axes, kept)
    np.testing.assert_allclose(small(IMAGE), unseen(IMAGE), rtol=1e-4, atol=1e-4)
    block = small.stage2[0]
    assert block.conv1.out_channels == block.norm1.input_size == block.conv2.in_channels == 4


@pytest.mark.slow
def test_the_pruned_network_trains():
    axes = {"stage2.*.conv1": "out", "stage2.*.norm1": 0, "stage2.*.conv2": "in"}
    small = eqx.nn.inference_mode(gx.take(resnet(), axes, slice(5)), False)
    small, state = eqx.nn.make_with_state(lambda: small)()
    over_batch = jax.vmap(small, (0, None), (0, None), axis_name="batch")
    y, state = over_batch(jax.random.normal(KEYS[3], (4, 3, 32, 32)), state)
    assert y.shape == (4, 3) and jnp.isfinite(y).all()


@pytest.mark.parametrize("bottlenecks", [False, True])
def test_the_batch_norms_of_the_zoo_fold(bottlenecks):
    model = resnet(bottlenecks)
    folded = gx.fold_batch_norm(model)
    assert not gx.select(folded, eqx.nn.BatchNorm)
    np.testing.assert_allclose(folded(IMAGE), model(IMAGE), rtol=1e-3, atol=1e-3)


# --- Adapters ---


def test_adapters_stand_beside_the_layers_of_the_zoo():
    conv = gx.LoRA(gx.zoo.Conv2d(4, 6, 3, key=KEYS[0]), 2, key=KEYS[1])
    word = gx.LoRA(gx.zoo.Embedding(9, 4, padding=3, key=KEYS[0]), 2, key=KEYS[1])
    image = jax.random.normal(KEYS[2], (4, 7, 7))
    for lora, x in ((conv, image), (word, jnp.array(5))):
        lora = gx.update(lora, lora_b=jax.random.normal(KEYS[3], lora.lora_b.shape))
        np.testing.assert_allclose(lora(x), lora.merged()(x), rtol=1e-4, atol=1e-4)
        program = jax.make_jaxpr(lambda lora, x: lora(x))(lora, x)
        shapes = [out.aval.shape for eqn in program.eqns for out in eqn.outvars]
        assert lora.layer.weight.shape not in shapes
    assert jnp.isnan(word(jnp.array(9))).all() and jnp.isnan(word(jnp.array(-1))).all()


def test_the_padding_token_gets_no_gradient_through_its_adapter():
    word = gx.LoRA(gx.zoo.Embedding(9, 4, padding=3, key=KEYS[0]), 2, key=KEYS[1])
    loss = lambda lora, id: jnp.sum(lora(jnp.array(id)) ** 2)
    assert not eqx.filter_grad(loss)(word, 3).lora_b.any()
    assert eqx.filter_grad(loss)(word, 4).lora_b.any()


def test_a_vocabulary_of_the_zoo_is_expanded():
    model = bert(head="vocabulary")
    more = gx.select(model, ["embeddings.word", "head.vocabulary"]).apply(
        lambda layer: gx.expand_vocabulary(layer, 13)
    )
    assert more.embeddings.word.weight is more.head.vocabulary.weight
    np.testing.assert_allclose(more(IDS)[:, :11], model(IDS), atol=1e-5)
    assert more(jnp.array([12])).shape == (1, 13)


class Steps(gx.zoo.Conv2d):
    """A subclass of a user's own, with a call of its own."""

    def __call__(self, x, *, key=None):
        return jnp.round(super().__call__(x))


def test_a_subclass_of_a_layer_of_the_zoo_stands_for_itself():
    layer = Steps(4, 6, 3, key=KEYS[0])
    with pytest.raises(ValueError, match="of which the rule"):
        gx.take(gx.Chain(c=layer), {"c": "out"}, [0])
    norm = gx.zoo.BatchNorm(6, inference=True)
    with pytest.raises(ValueError, match="nothing to fold"):
        gx.fold_batch_norm(gx.Chain(c=layer, norm=norm))
