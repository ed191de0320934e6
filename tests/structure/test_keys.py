"""Each layer draws from a random key of its own, folded from the labels on its path."""

import operator

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings

import graftax as gx
from common_calling import draw, folded, join, same_keys

KEY = jax.random.key(7)
X = jnp.arange(4.0)
Sequential = eqx.nn.Sequential


# Model, and the labels and positions by which the key of each draw is folded, in order.
FOLDS = {
    "labels": (gx.Chain(a=draw, b=draw), [("a",), ("b",)]),
    "positions": (gx.Chain(draw, draw), [(0,), (1,)]),
    "nested": (
        gx.Chain(a=gx.Chain(b=draw, c=gx.Chain(draw, draw)), d=draw),
        [("a", "b"), ("a", "c", 0), ("a", "c", 1), ("d",)],
    ),
    "parallel": (
        gx.Parallel(a=draw, b=gx.Parallel(draw, draw, op=join), op=gx.Chain(join, draw)),
        [("a",), ("b", 0), ("b", 1), ("op", 1)],
    ),
    "skip": (
        gx.SkipConnection(a=draw, b=draw, shortcut=draw),
        [("a",), ("b",), ("shortcut",)],
    ),
    "op of a skip": (
        gx.SkipConnection(a=draw, op=lambda y, x, *, key: [*y, key]),
        [("a",), ("op",)],
    ),
    "op of one fold": (
        gx.Parallel(a=draw, b=draw, op=lambda y, x, *, key: [*y, *x, key]),
        [("a",), ("b",), ("op",)],
    ),
    "pairwise fusion": (
        gx.Chain(gx.PairwiseFusion(a=draw, b=draw), lambda outputs: outputs[-1]),
        [(0, "a"), (0, "b")],
    ),
    "repeat": (
        gx.Chain(r=gx.Repeat(a=draw, times=3)),
        [("r", 0, "a"), ("r", 1, "a"), ("r", 2, "a")],
    ),
    "wrappers": (
        gx.Chain(a=gx.Wrapper(gx.Chain(b=draw)), c=gx.Cast(draw, jnp.float32)),
        [("a", "b"), ("c",)],
    ),
}


@pytest.mark.parametrize("name", FOLDS)
@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(7)], ids=["typed", "raw"])
def test_a_key_is_folded_with_each_label_or_position(name, key):
    model, folds = FOLDS[name]
    expected = [folded(key, *labels) for labels in folds]
    assert same_keys(model([], key=key), expected)
    assert same_keys(jax.tree.map(lambda leaf: leaf, model)([], key=key), expected)
    assert same_keys(jax.jit(lambda key: model([], key=key))(key), expected)


def test_keys_are_folded_under_vmap_as_one_by_one():
    model, folds = FOLDS["nested"]
    keys = jax.random.split(KEY, 3)
    drawn = jax.vmap(lambda key: model([], key=key))(keys)
    for i in range(3):
        assert same_keys([k[i] for k in drawn], [folded(keys[i], *labels) for labels in folds])


def test_equinox_sequential_inside_splits_the_key_it_was_given():
    noise = eqx.nn.Lambda(lambda x: x)
    model = gx.Chain(a=Sequential([noise, eqx.nn.Dropout()]))
    expected = eqx.nn.Dropout()(X, key=jax.random.split(folded(KEY, "a"), 2)[1])
    assert jnp.array_equal(model(X, key=KEY), expected)


def test_inside_equinox_sequential_the_split_key_is_folded():
    model = Sequential([gx.Chain(a=draw), gx.Chain(b=draw)])
    first, second = jax.random.split(KEY, 2)
    assert same_keys(model([], key=KEY), [folded(first, "a"), folded(second, "b")])


KEYS = st.one_of(
    st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1, max_size=3).map(tuple),
    st.integers(1, 3).map(lambda n: tuple(range(n))),
)
# What a random model looks like: None for a layer that draws, or (kind, {label or position: inside}).
SHAPES = st.recursive(
    st.none(),
    lambda inside: st.tuples(
        st.sampled_from(["chain", "parallel", "skip", "wrapped"]),
        KEYS.flatmap(lambda keys: st.fixed_dictionaries(dict.fromkeys(keys, inside))),
    ),
    max_leaves=8,
)


def record(seen, *, key):
    return seen | {tuple(jax.random.key_data(key).tolist())}


def built(shape):
    """`(model, labels of each draw in order)`."""
    if shape is None:
        return record, [()]
    kind, inside = shape
    parts = {key: built(below) for key, below in sorted(inside.items())}
    folds = [(key, *each) for key, (_, below) in parts.items() for each in below]
    models = {key: model for key, (model, _) in parts.items()}
    layers = models if isinstance(next(iter(models)), str) else list(models.values())
    if kind == "parallel":
        return gx.Parallel(layers, op=lambda outputs: frozenset.union(*outputs)), folds
    if kind == "skip":
        return gx.SkipConnection(layers, op=lambda y, x: y), folds
    chain = gx.Chain(layers)
    return (chain if kind == "chain" else gx.Wrapper(chain)), folds


@given(SHAPES)
@settings(max_examples=60)
def test_in_every_model_each_draw_has_the_key_of_its_path(shape):
    model, folds = built(shape)
    got = set(model(frozenset(), key=KEY))
    expected = [tuple(jax.random.key_data(folded(KEY, *labels)).tolist()) for labels in folds]
    assert got == set(expected)
    assert len(got) == len(folds)


def test_adding_a_labelled_layer_does_not_change_what_the_others_draw():
    small = gx.Chain(a=draw, b=gx.Parallel(c=draw, d=draw, op=join))
    large = gx.Chain(
        new=draw, a=draw, b=gx.Parallel(c=draw, newer=draw, d=draw, op=join), newest=draw
    )
    kept = small([], key=KEY)
    drawn = large([], key=KEY)
    data = [jax.random.key_data(key).tolist() for key in drawn]
    assert all(jax.random.key_data(key).tolist() in data for key in kept)


def test_dropout_differs_between_layers_and_repeats_with_the_same_key():
    ones = jnp.ones(64)
    drop = eqx.nn.Dropout(0.5)
    model = gx.Parallel(a=drop, b=gx.Chain(c=drop, d=jnp.abs), e=gx.Remat(drop))
    first = model(ones, key=KEY)
    assert all(
        not jnp.array_equal(a, b) for a, b in zip(first, (*first[1:], first[0]), strict=True)
    )
    assert eqx.tree_equal(model(ones, key=KEY), first)
    other = model(ones, key=jax.random.key(8))
    assert all(not jnp.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_one_layer_that_is_called_again_draws_anew_each_time():
    ones, drop = jnp.ones(64), eqx.nn.Dropout(0.5)
    mapped = gx.Parallel(drop)((ones, ones, ones), key=KEY)
    stacked = gx.branch(tuple, drop, execution="vmap")((ones, ones, ones), key=KEY)
    assert eqx.tree_equal(mapped, stacked)
    repeated = gx.Repeat(lambda seen, *, key: [*seen, drop(ones, key=key)], times=3)([], key=KEY)
    noisy = lambda a, b, *, key: [*a, drop(ones, key=key)]
    folds = gx.Parallel(*[lambda x: x] * 4, op=noisy)([], key=KEY)
    fused = gx.PairwiseFusion(*[lambda x: x] * 4, op=noisy)([], key=KEY)[-1]
    for masks in (mapped, repeated, folds, fused):
        assert len(masks) == 3
        assert len({tuple(mask.tolist()) for mask in masks}) == 3


def test_the_first_call_of_a_layer_draws_as_if_it_were_the_only_one():
    one, three = gx.Parallel(a=draw)(([],), key=KEY), gx.Parallel(a=draw)(([], [], []), key=KEY)
    assert same_keys(one[0], [folded(KEY, "a")])
    assert same_keys(three[0], one[0])


def test_without_a_key_no_layer_is_given_one():
    seen = []
    layer = lambda x, **keywords: seen.append(keywords) or x
    gx.Chain(layer, gx.Parallel(layer, op=operator.itemgetter(0)))(X)
    assert seen == [{}, {}]


def test_dropout_without_a_key_fails_as_in_equinox_with_its_path():
    with pytest.raises(RuntimeError, match="Dropout requires a key") as caught:
        gx.Chain(a=gx.Chain(drop=eqx.nn.Dropout()))(X)
    assert any(note.startswith("In a.drop: Dropout") for note in caught.value.__notes__)
