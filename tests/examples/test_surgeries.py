"""Seventeen surgeries: each against PyTorch's numbers, a closed form, or the same thing by hand."""

import ast
import inspect
import itertools
import math
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import graftax as gx
from common_language import batch
from common_surgery import untouched
from common_zoo import arrays, close, fixture, separated

pytestmark = pytest.mark.slow

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "examples")
    import surgeries as s

KEY = jax.random.key(3)
FUNCTIONS = {
    name: fn
    for name, fn in vars(s).items()
    if inspect.isfunction(fn) and re.match(r"\d+\. ", fn.__doc__ or "")
}
TIED = ["bert/masked_lm", "gpt2/base", "llama/tied"]


@eqx.filter_jit
def run(model, xs, state=None, **context):
    """A batch through a model, in inference."""
    if state is not None:
        return jax.vmap(lambda x: model(x, state)[0])(xs)
    return jax.vmap(lambda x, context: model(x, **context))(xs, context)


def logits(model, name):
    ids, context = batch(name)
    return run(model, ids, **context)


@eqx.filter_jit
def gradients(part, rest, ids):
    return eqx.filter_grad(lambda part: jnp.sum(eqx.combine(part, rest)(ids) ** 2))(part)


def resnet(name="resnet/basic"):
    found = fixture(name)
    return *separated(name), found.io["input.pixel_values"], found.group("output.")


def linear(layer, xs):
    return xs @ np.asarray(layer.weight).T + np.asarray(layer.bias)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def with_noise(selection):
    """The model with other values in the arrays selected."""
    draw = lambda array, key: array + 0.3 * jax.random.normal(key, array.shape)
    return selection.apply(draw, key=KEY)


def is_tied(model, head):
    """The embeddings and the head are one array, and one leaf."""
    word = model.embeddings.word.weight
    same = gx.select(model, f"{head}.weight").one() is word
    return same and sum(leaf is word for leaf in jax.tree.leaves(model)) == 1


def shared(a, b):
    """The same arrays, not copies of them."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x is y for x, y in pairs)


def head_of(name):
    return "head.vocabulary" if name.startswith("bert") else "head"


# --- The code ---


def test_all_seventeen_are_there():
    numbers = [int(fn.__doc__.partition(".")[0]) for fn in FUNCTIONS.values()]
    assert sorted(set(numbers)) == list(range(1, 18))
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_is_at_most_three_lines_of_code(name):
    source = inspect.getsource(FUNCTIONS[name])
    (function,) = ast.parse(source).body
    docstring, *body = function.body
    assert isinstance(docstring.value.value, str)
    assert 1 <= len(body) <= 3
    lines = source.splitlines()[docstring.end_lineno :]
    assert len([line for line in lines if line.strip()]) <= 3
    assert max(map(len, lines)) <= 100
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    assert len(statements) == len(body) + 2
    assert ";" not in "".join(lines)


# --- Heads, activations, norms ---


def test_1_a_new_head_reads_the_features_of_pytorch():
    model, state, images, outputs = resnet()
    new = s.replace_head(model, 3, KEY)
    close(run(new, images, state), linear(new.head, outputs["hidden.3"].mean((2, 3))))
    assert new.head.out_features == 3 and untouched(model, new, "head")


def test_2_gelu_stands_for_every_relu_and_computes_its_formula():
    model = fixture("bert/masked_lm").model
    new = s.relu_to_gelu(model)
    places = gx.select(model, lambda node: node is jax.nn.relu).paths
    assert places == ("encoder.0.mlp.act", "encoder.1.mlp.act", "head.act")
    assert gx.select(new, lambda node: node is jax.nn.gelu).paths == places
    x = np.asarray(jax.random.normal(KEY, (4, 20)))
    part = new.encoder[0].mlp.layer
    by_hand = linear(part.down.layer, gelu(linear(part.up.layer, x)))
    close(run(part, x[None])[0], by_hand)
    assert untouched(model, new, *places) and is_tied(new, "head.vocabulary")


def group_norm(norm, groups, x):
    grouped = np.asarray(x).reshape(groups, -1)
    grouped = grouped - grouped.mean(1, keepdims=True)
    y = (grouped / np.sqrt(grouped.var(1, keepdims=True) + 1e-5)).reshape(x.shape)
    return np.asarray(norm.weight)[:, None, None] * y + np.asarray(norm.bias)[:, None, None]


def test_3_group_norms_compute_their_formula_and_need_no_state():
    model, state, images, _ = resnet()
    new = s.batch_to_group_norm(model, 4)
    assert gx.select(new, eqx.nn.GroupNorm).paths == gx.select(model, eqx.nn.BatchNorm).paths
    assert not jax.tree.leaves(gx.extend_state(state, new)) and run(new, images).shape == (2, 5)
    stem, block = new.stem, new.stage1[0]
    conv = np.asarray(run(stem.conv, images))
    x = np.maximum(np.stack([group_norm(stem.norm, 4, image) for image in conv]), 0)
    close(run(new.stem[:"pool"], images), x)
    y = np.stack([group_norm(block.norm1, 4, y) for y in np.asarray(run(block.conv1, x))])
    y = np.asarray(run(block.conv2, np.maximum(y, 0)))
    y = np.stack([group_norm(block.norm2, 4, y) for y in y])
    close(run(new.stage1, x), np.maximum(x + y, 0))


# --- Adapters ---


def test_4_lora_starts_from_pytorchs_numbers_and_merges_into_w_plus_ba():
    name = "bert/classification"
    model, expected = fixture(name).model, fixture(name).io["output.logits"]
    new = s.add_lora(model, 2, KEY)
    places = gx.select(new, gx.LoRA).paths
    assert places == tuple(f"encoder.{i}.attention.{p}" for i in (0, 1) for p in ("query", "value"))
    close(logits(new, name), expected)
    new = with_noise(gx.select(new, "{lora_a,lora_b}"))
    assert gx.select(new, "{lora_a,lora_b}").size == 4 * 2 * (24 + 24)
    merged = s.merge_lora(new)
    moved = logits(new, name)
    assert np.abs(moved - expected).max() > 1e-2
    close(logits(merged, name), moved)
    for path, lora in gx.select(new, gx.LoRA).items():
        by_hand = lora.weight + np.asarray(lora.lora_b) @ np.asarray(lora.lora_a)
        close(gx.select(merged, f"{path}.weight").one(), by_hand)
    assert untouched(model, merged, *places)


def adapted(adapter, x):
    return x + linear(adapter.expand, gelu(linear(adapter.reduce, x)))


@pytest.mark.parametrize("name", [*TIED, "vit/published"])
def test_16_adapters_change_nothing_at_first_and_differ_at_each_place(name):
    found = fixture(name)
    width, depth = found.model.encoder[0].attention.query.out_features, len(found.model.encoder)
    new = s.add_adapters(found.model, width, 4, KEY)
    adapters = gx.select(new, "adapter")
    assert len(adapters) == 2 * depth
    assert adapters.size == 2 * depth * (2 * 4 * width + 4 + width)
    reduce = [adapter.reduce.weight for adapter in adapters]
    assert not any(bool((a == b).any()) for a, b in itertools.pairwise(reduce))
    given = "pixel_values" if name.startswith("vit") else None
    after = run(new, found.io["input.pixel_values"]) if given else logits(new, name)
    close(after, found.io["output.logits"])
    assert untouched(found.model, new)


def test_16_an_adapter_stands_after_the_sublayer_and_before_the_residual():
    model = fixture("bert/masked_lm").model
    new = s.add_adapters(model, 20, 4, KEY)
    new = with_noise(gx.select(new, "adapter").select("{weight,bias}"))
    old, block = model.encoder[0], new.encoder[0]
    x = jax.random.normal(KEY, (1, 5, 20))
    y = x + adapted(block.attention.op.adapter, np.asarray(run(old.attention.layer, x)))
    y = run(old.norm1, y)
    y = y + adapted(block.mlp.adapter, np.asarray(run(old.mlp.layer, y)))
    close(run(block, x), run(old.norm2, y))


# --- Parts of a model ---


def test_5_a_truncated_backbone_gives_what_leaves_the_stage_in_pytorch():
    model, state, images, outputs = resnet()
    body, kept = s.truncate(model, state, "stage3")
    assert body.labels == ("stem", "stage1", "stage2")
    close(run(body, images, kept), outputs["hidden.2"])
    for norm in gx.select(body, eqx.nn.BatchNorm):
        index = norm.batch_state_index
        assert eqx.tree_equal(kept.get(index), state.get(index))
    with pytest.raises(KeyError):
        kept.get(gx.select(model, "stage3.**", eqx.nn.BatchNorm).nodes[0].batch_state_index)
    assert untouched(model[:"stage3"], body)


def test_9_the_features_are_what_leaves_each_stage_in_pytorch():
    model, state, images, outputs = resnet("resnet/bottleneck")
    features = jax.jit(jax.vmap(lambda x: s.multi_scale_features(model, x, state)))(images)
    assert list(features) == ["stage1", "stage2", "stage3"]
    for i, feature in enumerate(features.values()):
        close(feature, outputs[f"hidden.{i + 1}"])


def test_10_the_small_model_is_every_second_block_of_the_large_one():
    large, small = s.language_model(4, key=KEY), s.language_model(2, key=jax.random.key(1))
    new, ids = s.every_second_block(small, large), jnp.arange(6)[None]
    by_hand = [large.embeddings, large.encoder[0], large.encoder[2], large.head]
    close(run(new, ids), run(gx.Chain(by_hand), ids))
    assert is_tied(new, "head.vocabulary")
    assert jax.tree.structure(new) == jax.tree.structure(small)
    assert shared(new.encoder[0], large.encoder[0]) and shared(new.encoder[1], large.encoder[2])
    with pytest.raises(gx.MatchError, match="2 nodes are selected; 1 values were given"):
        s.every_second_block(small, gx.update(large, encoder=large.encoder[:1]))


def test_15_the_largest_pixels_of_pytorchs_features_go_to_the_head():
    model, state, images, outputs = resnet()
    new = s.swap_pooling(model)
    close(run(new, images, state), linear(model.head, outputs["hidden.3"].max((2, 3))))
    assert new.stem.pool is model.stem.pool and untouched(model, new, "pool")


# --- Training ---


def test_6_only_norms_get_gradients_and_those_are_the_full_ones():
    model, ids = fixture("bert/masked_lm").model, batch("bert/masked_lm")[0][0]
    trained, frozen = s.freeze_all_but_norms(model)
    found = gradients(trained, frozen, ids)
    full = gradients(*eqx.partition(model, eqx.is_inexact_array), ids)
    by_hand = jax.tree.leaves(gx.select(full, eqx.nn.LayerNorm).nodes)
    assert len(by_hand) == 2 * 6
    for ours, theirs in zip(jax.tree.leaves(found), by_hand, strict=True):
        close(ours, theirs)
    updated = eqx.combine(eqx.apply_updates(trained, found), frozen)
    changed = {path for path, a in arrays(updated).items() if (a != arrays(model)[path]).any()}
    assert {path.split(".")[-2] for path in changed} == {"norm", "norm1", "norm2"}


def test_6_statistics_are_no_parameters():
    model, state, images, _ = resnet()
    trained, frozen = s.freeze_all_but_norms(model)
    norms = gx.select(model, eqx.nn.BatchNorm)
    assert len(jax.tree.leaves(trained)) == 2 * len(norms)
    close(run(eqx.combine(trained, frozen), images, state), run(model, images, state))


def test_7_the_rate_of_a_block_is_a_power_of_the_decay():
    model = fixture("bert/masked_lm").model
    params = eqx.filter(model, eqx.is_inexact_array)
    optimiser = optax.chain(optax.adam(0.1), s.layerwise_decay(model, 0.5))

    @eqx.filter_jit
    def step(params):
        grads = jax.tree.map(jnp.ones_like, params)
        return optimiser.update(grads, optimiser.init(params), params)[0]

    # The first step of Adam has the size of the rate.
    rates = {"embeddings": 0.1 / 8, "encoder.0": 0.1 / 4, "encoder.1": 0.1 / 2, "head": 0.1}
    updates = arrays(step(params))
    for path, update in updates.items():
        tied = path == "head.vocabulary.weight"
        rate = next(r for start, r in rates.items() if path.startswith(start))
        np.testing.assert_allclose(update, -(rates["embeddings"] if tied else rate), rtol=1e-5)
    assert len(updates) == len(arrays(params))


def test_8_a_tied_head_scores_by_the_embeddings_and_gradients_add_up():
    name = "gpt2/untied"
    model, ids = fixture(name).model, batch(name)[0]
    tied = s.tie_head(model)
    word = np.asarray(model.embeddings.word.weight)
    # The last of them is after the norm.
    close(logits(tied, name), fixture(name).io["output.hidden.2"] @ word.T)
    assert is_tied(tied, "head")
    assert gx.select(tied, "").size == gx.select(model, "").size - word.size
    same = gx.select(model, "head.weight").set(model.embeddings.word.weight)
    ours, theirs = (
        gradients(*eqx.partition(m, eqx.is_inexact_array), ids[0]) for m in (tied, same)
    )
    by_hand = theirs.embeddings.word.weight + theirs.head.weight
    close(ours.embeddings.word.weight, by_hand)


# --- Numbers of another kind, layers folded ---


def test_11_int8_computes_with_weights_rounded_to_a_127th_of_the_largest_of_a_row():
    name = "bert/classification"
    model = fixture(name).model
    small = s.int8_but_head(model)
    rounded = gx.select(model, "**.{query,key,value,output,up,down,dense}.weight")

    def by_hand(weight):
        step = np.abs(weight).max(1, keepdims=True) / 127
        return jnp.asarray(np.round(np.asarray(weight) / step) * step)

    assert len(gx.select(small, gx.QuantizedLinear)) == len(rounded) == 13
    close(logits(small, name), logits(rounded.apply(by_hand), name))
    assert small.head is model.head
    assert untouched(model, small, *(path.removesuffix(".weight") for path in rounded.paths))


def test_11_of_a_head_of_several_layers_all_stay():
    model = fixture("bert/masked_lm").model
    small = s.int8_but_head(model)
    assert len(gx.select(small, gx.QuantizedLinear)) == 12
    assert untouched(model[-1], small[-1]) and is_tied(small, "head.vocabulary")


@pytest.mark.parametrize("name", ["resnet/basic", "resnet/bottleneck"])
def test_12_without_batch_norms_the_logits_are_still_those_of_pytorch(name):
    model, state, images, outputs = resnet(name)
    folded, empty = s.fold_batch_norm(model, state)
    assert not gx.select(folded, eqx.nn.BatchNorm) and not folded.is_stateful()
    assert not jax.tree.leaves(empty)
    close(run(folded, images), outputs["logits"])
    norm, weight = model.stem.norm, np.asarray(model.stem.conv.weight)
    tensors = fixture(name).stored
    variance = next(
        a for n, a in tensors.items() if n.endswith("embedder.normalization.running_var")
    )
    scale = np.asarray(norm.weight) / np.sqrt(variance + 1e-5)
    close(folded.stem.conv.weight, weight * scale[:, None, None, None])


# --- Embeddings ---


def test_13_positions_for_a_larger_image_are_those_of_pytorch():
    found = fixture("vit/interpolated")
    larger = s.extend_positions(found.model, (4, 6), prefix=1)
    close(larger.embeddings.position.weight, found.io["output.larger.position_embeddings"][0])
    close(run(larger, found.io["input.larger.pixel_values"]), found.io["output.larger.logits"])
    assert untouched(found.model, larger, "embeddings.position.weight")


def test_13_twice_as_many_positions_of_a_text_are_a_cubic_convolution():
    model = fixture("bert/masked_lm").model
    old = np.asarray(model.embeddings.position.weight)
    n = len(old)
    new = s.extend_positions(model, 2 * n)
    near = lambda d: 1.25 * d**3 - 2.25 * d**2 + 1
    far = lambda d: -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
    taps = np.array([far(1.75), near(0.75), near(0.25), far(1.25)])
    padded = np.pad(old, ((2, 2), (0, 0)), mode="edge")
    before = np.stack([taps @ padded[i : i + 4] for i in range(n)])
    after = np.stack([taps[::-1] @ padded[i + 1 : i + 5] for i in range(n)])
    close(new.embeddings.position.weight, np.stack([before, after], 1).reshape(2 * n, -1))
    assert run(new, jnp.zeros((1, n + 1), int)).shape[1] == n + 1
    assert is_tied(new, "head.vocabulary")


@pytest.mark.parametrize("name", TIED)
def test_14_old_tokens_score_as_in_pytorch_and_the_tie_survives(name):
    found = fixture(name)
    model, expected = found.model, found.io["output.logits"]
    old = expected.shape[-1]
    new = s.expand_vocabulary(model, old + 3, KEY)
    scores = logits(new, name)
    assert scores.shape[-1] == old + 3
    close(scores[..., :old], expected)
    assert is_tied(new, head_of(name))
    head = gx.select(new, head_of(name)).one()
    assert new.embeddings.word.num_embeddings == head.out_features == old + 3
    rows, before = np.asarray(new.embeddings.word.weight), np.asarray(model.embeddings.word.weight)
    np.testing.assert_array_equal(rows[:old], before)
    noise = (rows[old:] - before.mean(0)) / before.std(0)
    assert 0.05 < noise.std() < 0.2 and np.abs(noise).max() < 0.5
    ids, context = batch(name)
    assert np.isfinite(run(new, np.full_like(ids, old + 2), **context)).all()


def test_14_new_biases_are_the_mean_of_the_old():
    model = fixture("bert/masked_lm").model
    new = s.expand_vocabulary(model, 64, KEY).head.vocabulary.bias
    close(new[61:], np.full(3, np.asarray(model.head.vocabulary.bias).mean()))


def test_14_an_untied_model_stays_untied():
    new = s.expand_vocabulary(fixture("gpt2/untied").model, 70, KEY)
    assert new.head.weight is not new.embeddings.word.weight
    assert bool((new.head.weight[67:] != new.embeddings.word.weight[67:]).all())


# --- Checkpoints ---


def blank_vit():
    model = jax.tree.map(lambda a: 0 * a if eqx.is_array(a) else a, fixture("vit/published").model)
    return s.replace_head(model, 3, KEY)


def test_17_the_body_is_loaded_under_its_prefix_and_the_head_stays():
    found, blank = fixture("vit/published"), blank_vit()
    assert all(name.startswith(("vit.", "classifier.")) for name in found.stored)
    new = s.load_body(blank, found.directory, found.recipe.rename, ["classifier.{p}"])
    close(run(new[:"norm"], found.io["input.pixel_values"]), found.io["output.hidden.2"])
    assert new.head is blank.head and new.labels == blank.labels
    body = found.model[:"head"]
    assert eqx.tree_equal(new[:"head"], body)
    features = np.asarray(run(body, found.io["input.pixel_values"]))
    close(run(new, found.io["input.pixel_values"]), linear(blank.head, features))


def test_17_what_is_missing_in_the_body_or_extra_outside_is_an_error():
    found, blank = fixture("vit/published"), blank_vit()
    tensors = found.stored
    gone = next(name for name in tensors if name.endswith("0.output.dense.weight"))
    missing = {name: a for name, a in tensors.items() if name != gone}
    with pytest.raises(gx.WeightsError, match=r"encoder\.0\.mlp\.down\.weight"):
        s.load_body(blank, missing, found.recipe.rename, ["classifier.{p}"])
    with pytest.raises(gx.WeightsError, match=r"classifier\.bias"):
        s.load_body(blank, tensors, found.recipe.rename, [])


# --- Several in a row ---


def test_on_a_tied_model_lora_adapters_and_a_larger_vocabulary_compose_in_any_order():
    name = "bert/masked_lm"
    model, expected = fixture(name).model, fixture(name).io["output.logits"]
    steps = [
        lambda m: s.add_lora(m, 2, KEY),
        lambda m: s.add_adapters(m, 20, 4, KEY),
        lambda m: s.expand_vocabulary(m, 64, KEY),
    ]
    new, other = model, model
    for step in steps:
        new = step(new)
    for step in reversed(steps):
        other = step(other)
    close(logits(new, name)[..., :61], expected)
    assert eqx.tree_equal(new, other)
    assert is_tied(new, "head.vocabulary")
    assert untouched(
        model, new, "embeddings.word.weight", "head.vocabulary.weight", "head.vocabulary.bias"
    )
    new = with_noise(
        gx.select(new, "{lora_a,lora_b}") | gx.select(new, "expand").select("{weight,bias}")
    )
    merged = s.merge_lora(new)
    close(logits(merged, name), logits(new, name))
    assert is_tied(merged, "head.vocabulary")


def test_on_a_tied_model_fewer_blocks_int8_and_a_larger_vocabulary_compose():
    name = "bert/masked_lm"
    model = fixture(name).model
    short = s.int8_but_head(gx.update(model, encoder=model.encoder[::2]))
    new, (ids, context) = s.expand_vocabulary(short, 64, KEY), batch(name)
    close(run(new, ids, **context)[..., :61], run(short, ids, **context))
    assert is_tied(new, "head.vocabulary")
    grads = gradients(*eqx.partition(new, eqx.is_inexact_array), ids[0])
    assert grads.embeddings.word.weight.shape == (64, 20)
    assert shared(new.encoder, short.encoder)


def test_on_a_stateful_model_truncation_a_head_pooling_and_folding_compose():
    model, state, images, outputs = resnet()
    body, kept = s.truncate(model, state, "stage3")
    short = gx.Chain({**dict(body.items()), "pool": model.pool, "head": model.head})
    new = s.swap_pooling(gx.update(short, head=eqx.nn.Linear(12, 4, key=KEY)))
    by_hand = linear(new.head, outputs["hidden.2"].max((2, 3)))
    close(run(new, images, kept), by_hand)
    assert untouched(model[:"stage3"], new[:"pool"])
    folded, empty = s.fold_batch_norm(new, kept)
    close(run(folded, images), by_hand)
    assert not jax.tree.leaves(empty)


def test_on_a_stateful_model_what_was_learnt_is_kept_and_what_is_new_starts_anew():
    model, state, images, _ = resnet()
    new = s.relu_to_gelu(s.replace_head(model, 3, KEY))
    norm = eqx.nn.BatchNorm(16, axis_name="batch", mode="batch")
    new = gx.select(new, ".stage3").insert_after(norm=norm)
    grown = gx.extend_state(state, new)
    for before in gx.select(model, eqx.nn.BatchNorm):
        index = before.batch_state_index
        assert eqx.tree_equal(grown.get(index), state.get(index))
    mean, _ = grown.get(new.norm.batch_state_index)
    assert not mean.any() and int(grown.get(new.norm.batch_counter)) == 0
    train = gx.Vmap(eqx.nn.inference_mode(new, value=False), axis_name="batch")
    _, moved = eqx.filter_jit(train)(images, grown)
    assert int(moved.get(new.norm.batch_counter)) == 1
    assert moved.get(new.norm.batch_state_index)[0].any()


# --- The script ---


def test_the_script_reports_each_surgery_in_sixty_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    s.main()
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 60 and "\x1b" not in printed
    rows = [line.split() for line in lines if re.match(r" *\d+ +[a-z]", line)]
    rows = [row for row in rows if row[1] != "seconds"]
    assert [int(row[0]) for row in rows] == list(range(1, 18))
    assert all(float(row[-1]) < 1e-5 for row in rows)
    parameters = {row[0]: [int(n.replace(",", "")) for n in row[-4:-1]] for row in rows}
    assert parameters["4"][1] - parameters["4"][0] == parameters["4"][2]
    assert parameters["8"][0] - parameters["8"][1] == s.TOKENS * s.WIDTH
