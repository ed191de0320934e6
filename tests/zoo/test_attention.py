"""Attention against its formula written out, and the inputs it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_containers import without_annotation_checks
from common_zoo import close
from graftax.zoo import DotProductAttention, DynamicRotary, RotaryEmbedding

KEY = jax.random.key(0)


def made(t, s, heads=4, kv_heads=2, size=3, seed=0):
    """Query, key and value of random numbers."""
    k1, k2, k3 = jax.random.split(jax.random.key(seed), 3)
    return (
        jax.random.normal(k1, (t, heads * size)),
        jax.random.normal(k2, (s, kv_heads * size)),
        jax.random.normal(k3, (s, kv_heads * size)),
    )


def by_hand(inputs, heads, kv_heads, seen, scale=None):
    """Softmax over the keys that are seen, head by head and query by query."""
    query, key, value = (np.asarray(x, np.float64) for x in inputs)
    size = query.shape[1] // heads
    scale = size**-0.5 if scale is None else scale
    y = np.zeros_like(query)
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        kv = head // (heads // kv_heads)
        theirs = slice(kv * size, (kv + 1) * size)
        for i in range(len(query)):
            picked = np.flatnonzero(np.broadcast_to(seen, (heads, len(query), len(key)))[head, i])
            scores = scale * key[picked, theirs] @ query[i, mine]
            weights = np.exp(scores - scores.max())
            y[i, mine] = weights / weights.sum() @ value[picked, theirs]
    return y


MASK = np.random.default_rng(0).random((4, 3, 7)) < 0.5
MASK[..., 0] = True
MASKS = {"keys": MASK[0, 0], "each query": MASK[0], "each head": MASK}


@pytest.mark.parametrize("mask", [None, *MASKS])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_it_is_the_mean_of_the_values_that_are_seen(mask, causal, dropout):
    # With dropout of hardly any probability, the other way to the same numbers.
    layer = DotProductAttention(
        4, kv_heads=2, causal=causal, scale=0.7, dropout=1e-9 if dropout else 0.0
    )
    inputs = made(3, 7)
    seen = np.ones((3, 7), bool)
    if causal:
        # The last query stands at the last key.
        seen = np.array([[j <= i + 4 for j in range(7)] for i in range(3)])
    given = {}
    if mask is not None:
        given = {"mask": jnp.asarray(MASKS[mask])}
        seen = seen & MASKS[mask]
    found = layer(inputs, **given, key=KEY)
    close(found, by_hand(inputs, 4, 2, seen, 0.7))


@pytest.mark.parametrize("prefix", [0, 1, 4])
def test_the_last_queries_of_a_causal_sequence_are_those_of_the_whole(prefix):
    by_length = DynamicRotary(factor=3.0, length=4)
    for rotary in (None, RotaryEmbedding(), by_length):
        layer = DotProductAttention(4, kv_heads=2, causal=True, rotary=rotary)
        query, key, value = made(6, 6, size=4)
        whole = layer((query, key, value))
        close(layer((query[prefix:], key, value)), whole[prefix:])
        # In any order, as padding on the left may have it.
        places = jnp.array([9, 2, 0, 1, 4, 3])
        there = layer((query, key, value), positions=places)
        close(layer((query[prefix:], key, value), positions=places), there[prefix:])


def test_causal_attention_compiled_looks_at_no_later_key():
    layer = eqx.filter_jit(DotProductAttention(2, causal=True))
    query, key, value = made(4, 6, heads=2, kv_heads=2)
    y = layer((query, key, value))
    changed = layer((query, key.at[4:].add(1), value.at[4:].set(9)))
    # The queries stand at keys 2 to 5.
    assert (y[:2] == changed[:2]).all()
    assert (y[2:] != changed[2:]).any(1).all()


# --- Masks ---


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8])
def test_a_tokenizers_mask_of_integers_is_taken_as_what_it_means(dtype):
    layer, inputs = DotProductAttention(4, kv_heads=2), made(3, 7)
    for mask in MASKS.values():
        found = eqx.filter_jit(layer)(inputs, mask=mask.astype(dtype))
        np.testing.assert_allclose(found, layer(inputs, mask=jnp.asarray(mask)), atol=1e-6)


@pytest.mark.parametrize("number", [2, -1, -10_000])
def test_integers_that_are_no_mask_give_nan(number):
    layer, inputs = DotProductAttention(4, kv_heads=2), made(3, 7)
    mask = jnp.ones(7, int).at[3].set(number)
    assert np.isnan(layer(inputs, mask=mask)).all()
    assert np.isnan(jax.jit(layer)(inputs, mask=mask)).all()


def test_a_mask_of_floats_is_refused():
    for mask in (jnp.ones(7), jnp.zeros(7, jnp.bfloat16)):
        with (
            without_annotation_checks(),
            pytest.raises(TypeError, match=r"mask must be booleans, .* got (b?float)"),
        ):
            DotProductAttention(4, kv_heads=2)(made(3, 7), mask=mask)


@pytest.mark.parametrize(
    "shape", [(), (1,), (6,), (8,), (7, 3), (3, 6), (2, 7), (2, 3, 7), (4, 7, 3), (1, 4, 3, 7)]
)
def test_a_mask_of_another_shape_is_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"mask has shape .*\(7,\), \(3, 7\) or \(4, 3, 7\)"):
        DotProductAttention(4, kv_heads=2)(made(3, 7), mask=jnp.ones(shape, bool))


@pytest.mark.parametrize("shape", [(1, 7), (1, 3, 7), (4, 1, 7), (1, 1, 7)])
def test_an_axis_of_one_stands_for_all_queries_or_heads(shape):
    layer, inputs = DotProductAttention(4, kv_heads=2), made(3, 7)
    mask = jnp.asarray(MASK[: shape[0], :1] if len(shape) == 3 else MASK[0, :1])
    mask = jnp.broadcast_to(mask[..., :1, :], shape)
    close(layer(inputs, mask=mask), by_hand(inputs, 4, 2, np.asarray(mask)))


# --- Heads ---


def test_heads_that_were_pruned_without_a_word_are_refused():
    model = gx.zoo.vit(
        image=(8, 8), patch=(4, 4), width=8, depth=1, heads=4, inner=8, act=jax.nn.gelu, key=KEY
    )
    pruned = gx.select(model, "{query,key,value}", eqx.nn.Linear).apply(
        lambda layer: gx.update(layer, weight=layer.weight[:6], bias=layer.bias[:6], out_features=6)
    )
    pruned = gx.select(pruned, "output", eqx.nn.Linear).apply(
        lambda layer: gx.update(layer, weight=layer.weight[:, :6], in_features=6)
    )
    image = jnp.ones((3, 8, 8))
    with pytest.raises(ValueError, match="query has 6 features, which are not 4 heads of 2") as e:
        pruned(image)
    assert any("encoder.0.attention.op.attend" in note for note in e.value.__notes__)
    told = gx.select(pruned, DotProductAttention).update(heads=3, kv_heads=3)
    assert told(image).shape == (1000,)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((12, 6, 3), "value has 3 features, which are not 2 heads of 3"),
        ((12, 3, 6), "key has 3 features"),
        ((9, 6, 6), "query has 9 features, which are not 4 heads of 3"),
    ],
)
def test_each_input_must_be_so_many_heads_of_the_size(widths, message):
    layer = DotProductAttention(4, kv_heads=2, head_size=3)
    with pytest.raises(ValueError, match=message):
        layer(tuple(jnp.ones((5, width)) for width in widths))


def test_without_a_head_size_the_inputs_must_agree_on_one():
    layer = DotProductAttention(4, kv_heads=2)
    with pytest.raises(ValueError, match="key has 8 features, which are not 2 heads of 3"):
        layer((jnp.ones((5, 12)), jnp.ones((5, 8)), jnp.ones((5, 8))))
    with pytest.raises(ValueError, match="query has 10 features"):
        layer((jnp.ones((5, 10)), jnp.ones((5, 4)), jnp.ones((5, 4))))
    with pytest.raises(ValueError, match="value has 10 features"):
        layer((jnp.ones((5, 12)), jnp.ones((5, 6)), jnp.ones((5, 10))))
    assert layer((jnp.ones((5, 20)), jnp.ones((5, 10)), jnp.ones((5, 10)))).shape == (5, 20)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (2, 4), (4, 0), (0, 0)])
def test_key_heads_that_do_not_divide_are_refused_also_by_an_update(heads, kv_heads):
    with pytest.raises(ValueError, match="kv_heads must divide heads"):
        DotProductAttention(heads, kv_heads=kv_heads)
    with pytest.raises(ValueError, match="kv_heads must divide heads"):
        gx.update(DotProductAttention(8), heads=heads, kv_heads=kv_heads)


# --- Sequences ---


@pytest.mark.parametrize(("t", "s"), [(0, 0), (0, 3), (3, 0)])
def test_an_empty_sequence_is_refused(t, s):
    with pytest.raises(ValueError, match="a sequence of one token or more"):
        DotProductAttention(4, kv_heads=2)(made(t, s))


def test_empty_ids_are_refused_by_every_language_model():
    sizes = {"vocabulary": 9, "width": 8, "depth": 1, "heads": 2, "inner": 8}
    models = [
        gx.zoo.llama(**sizes, key=KEY),
        gx.zoo.gpt2(**sizes, key=KEY),
        gx.zoo.bert(**sizes, act=jax.nn.gelu, key=KEY),
    ]
    for model in map(eqx.nn.inference_mode, models):
        with pytest.raises(ValueError, match="one token or more"):
            model(jnp.zeros(0, int))


def test_a_batch_is_an_error_that_says_vmap():
    inputs = tuple(jnp.stack([x, x]) for x in made(3, 3))
    with pytest.raises(ValueError, match=r"query has shape \(2, 3, 12\).*jax\.vmap"):
        DotProductAttention(4, kv_heads=2)(inputs)


def test_more_queries_than_keys_are_refused_if_causal():
    with pytest.raises(ValueError, match="4 queries and 3 keys: the first queries would see none"):
        DotProductAttention(4, kv_heads=2, causal=True)(made(4, 3))
    assert DotProductAttention(4, kv_heads=2)(made(4, 3)).shape == (4, 12)


def test_as_many_values_as_keys():
    query, key, value = made(3, 3)
    with pytest.raises(ValueError, match="There are 3 keys, but 2 values"):
        DotProductAttention(4, kv_heads=2)((query, key, value[:2]))


@pytest.mark.parametrize("shape", [(2,), (1, 3), (4,)])
def test_positions_of_another_length_are_refused_by_name(shape):
    layer = DotProductAttention(4, kv_heads=2, rotary=RotaryEmbedding(), causal=True)
    with pytest.raises(ValueError, match="positions has shape"):
        layer(made(3, 3, size=4), positions=jnp.zeros(shape, int))


# --- Dropout ---


def test_in_inference_and_without_probability_nothing_is_dropped():
    inputs = made(3, 7)
    plain = DotProductAttention(4, kv_heads=2)
    layer = DotProductAttention(4, kv_heads=2, dropout=0.5)
    assert plain.drop is None
    assert (eqx.nn.inference_mode(layer)(inputs) == plain(inputs)).all()
    close(gx.update(layer, drop=eqx.nn.Dropout(0.0))(inputs), plain(inputs))
    with pytest.raises(RuntimeError, match="requires a key"):
        layer(inputs)


def test_probabilities_are_dropped_as_often_as_said_and_scaled_so_that_the_mean_stays():
    # With values of one key each, the output is the probabilities themselves.
    s, p = 8, 0.3
    query, key, _ = made(5, s, heads=2, kv_heads=1, size=s)
    value = jnp.eye(s)
    layer = DotProductAttention(2, kv_heads=1, dropout=p)
    keys = jax.random.split(KEY, 4000)
    found = jax.jit(jax.vmap(lambda k: layer((query, key, value), key=k)))(keys)
    plain = eqx.nn.inference_mode(layer)((query, key, value))
    is_dropped = found == 0
    # 320,000 draws: three standard deviations are 0.0025.
    assert abs(float(is_dropped.mean()) - p) < 0.0025
    kept = jnp.where(is_dropped, 0, found)
    close(kept, jnp.where(is_dropped, 0, plain / (1 - p)))
    # Each probability by itself: six standard deviations of a mean of 4,000.
    rates = np.asarray(is_dropped.mean(0))
    assert np.abs(rates - p).max() < 6 * (p * (1 - p) / 4000) ** 0.5
    close(found.mean(0), plain, 0.05)
    # Heads and queries draw each for itself.
    flat = np.asarray(is_dropped).reshape(4000, -1).astype(float)
    correlation = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.abs(correlation).max() < 6 / 4000**0.5


@pytest.mark.slow
def test_the_rate_is_found_and_set_like_that_of_any_dropout():
    sizes = {"vocabulary": 9, "width": 8, "depth": 1, "heads": 2, "inner": 8}
    model = gx.zoo.gpt2(**sizes, attention_dropout=0.4, key=KEY)
    (path,) = gx.select(model, "**.attend.drop").paths
    assert path == "encoder.0.attention.op.attend.drop"
    still = gx.select(model, eqx.nn.Dropout).update(p=0.0)
    ids = jnp.arange(5)
    close(still(ids), eqx.nn.inference_mode(model)(ids))
    one, again, other = (model(ids, key=jax.random.key(k)) for k in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


def test_attention_can_be_saved_with_all_that_it_is(tmp_path):
    layer = DotProductAttention(
        4, kv_heads=2, head_size=3, causal=True, scale=0.5, rotary=RotaryEmbedding(), dropout=0.1
    )
    gx.save(tmp_path / "m.safetensors", gx.Chain(attend=layer))
    assert repr(gx.load(tmp_path / "m.safetensors").attend) == repr(layer)
