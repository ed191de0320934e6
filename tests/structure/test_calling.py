"""The calling convention: who is given the state, the key, the context keywords; and the inputs."""

import functools
import operator

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import graftax as gx
from common_calling import (
    Attention,
    OwnTally,
    Tally,
    TallyOfTwo,
    draw,
    folded,
    join,
    same_keys,
)

KEY = jax.random.key(7)
X = jnp.arange(4.0)
Sequential = eqx.nn.Sequential

# --- State ---

INDEX = eqx.nn.StateIndex(jnp.array(0))


def tally(digit):
    return Tally(INDEX, digit)


def own(digit):
    return OwnTally(INDEX, digit)


def of_two(digit):
    return TallyOfTwo(INDEX, digit)


# What is expected is spelled by the digits in the order in which the layers must run.
ORDERS = {
    "chain": (lambda: gx.Chain(tally(1), tally(2), tally(3)), 123),
    "labelled chain": (lambda: gx.Chain(a=tally(1), b=tally(2), c=tally(3)), 123),
    "chain, own module": (lambda: gx.Chain(own(1), tally(2), own(3)), 123),
    "parallel": (lambda: gx.Parallel(tally(1), own(2), tally(3), op=sum), 123),
    "parallel, op called once": (
        lambda: gx.Parallel(tally(1), own(2), op=gx.Chain(sum, tally(3))),
        123,
    ),
    "parallel, op folded": (
        lambda: gx.Parallel(tally(1), tally(2), tally(3), op=of_two(4)),
        12344,
    ),
    "skip": (lambda: gx.SkipConnection(tally(1), own(2), shortcut=tally(3), op=of_two(4)), 1234),
    "pairwise fusion": (
        lambda: gx.Chain(gx.PairwiseFusion(tally(1), own(2), tally(3), op=of_two(4)), sum),
        14243,
    ),
    "repeat": (lambda: gx.Repeat(gx.Chain(tally(1), own(2)), times=2), 1212),
    "wrapper": (lambda: gx.Wrapper(gx.Chain(tally(1), gx.Wrapper(own(2)))), 12),
    "remat": (lambda: gx.Remat(gx.Chain(tally(1), gx.Remat(own(2)))), 12),
    "cast": (lambda: gx.Cast(gx.Chain(tally(1), gx.Cast(own(2), jnp.float32)), jnp.float32), 12),
    "Sequential inside": (lambda: gx.Chain(tally(1), Sequential([tally(2), tally(3)])), 123),
    "inside Sequential": (lambda: Sequential([gx.Chain(tally(1), own(2)), tally(3)]), 123),
    "inside Sequential inside": (
        lambda: gx.Chain(a=Sequential([tally(1), gx.Chain(b=own(2), c=Sequential([tally(3)]))])),
        123,
    ),
    "all of them": (
        lambda: gx.Chain(
            stem=gx.Remat(tally(1)),
            body=gx.SkipConnection(
                gx.Parallel(tally(2), gx.Repeat(own(3), times=2), op=sum),
                Sequential([gx.Chain(tally(4))]),
                shortcut=gx.Wrapper(tally(5)),
            ),
            head=own(6),
        ),
        1233456,
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_state_goes_through_every_layer_in_order(name):
    make, order = ORDERS[name]
    model = make()
    y, state = model(X, state=eqx.nn.State(model))
    assert state.get(INDEX) == order
    for run in (eqx.filter_jit(model), jax.tree.map(lambda leaf: leaf, model)):
        y_again, state_again = run(X, state=eqx.nn.State(model))
        assert eqx.tree_equal((y_again, state_again), (y, state))


def test_the_state_goes_through_under_vmap_and_grad():
    model, order = ORDERS["all of them"][0](), ORDERS["all of them"][1]
    run = lambda x, state: model(x, state=state)
    ys, state = jax.vmap(run, in_axes=(0, None), out_axes=(0, None))(
        jnp.stack([X, 2 * X]), eqx.nn.State(model)
    )
    assert state.get(INDEX) == order
    assert jnp.array_equal(ys[1], run(2 * X, eqx.nn.State(model))[0])

    def total(x, state):
        y, state = run(x, state)
        return y.sum(), state

    gradient, state = jax.grad(total, has_aux=True)(X, eqx.nn.State(model))
    assert state.get(INDEX) == order
    assert jnp.array_equal(gradient, jnp.full_like(X, 3.0))


def test_the_state_may_be_the_second_positional_argument():
    model = gx.Chain(tally(1), gx.Parallel(tally(2), tally(3), op=operator.add))
    by_keyword = model(X, state=eqx.nn.State(model))
    assert eqx.tree_equal(model(X, eqx.nn.State(model)), by_keyword)


def test_the_state_may_come_after_several_inputs():
    model = gx.Parallel(tally(1), tally(2), op=tuple)
    (a, b), state = model(X, 2 * X, eqx.nn.State(model))
    assert jnp.array_equal(a, X + 1) and jnp.array_equal(b, 2 * X + 2)
    assert state.get(INDEX) == 12


def test_a_state_given_twice_is_refused():
    model = gx.Chain(tally(1))
    state = eqx.nn.State(model)
    with pytest.raises(TypeError, match="Chain was given a state twice"):
        model(X, state, state=state)


@pytest.mark.parametrize("make", [gx.Chain, gx.Parallel, gx.SkipConnection, gx.Wrapper])
def test_without_a_state_there_is_an_output_with_one_a_pair(make):
    model, state = make(jnp.tanh), eqx.nn.State(gx.Chain(tally(1)))
    y = model(X)
    y_again, same_state = model(X, state=state)
    assert eqx.tree_equal(y, y_again)
    assert same_state is state


STATEFUL_CALLABLES = {
    "own module": own,
    "function": lambda digit: lambda x, state: own(digit)(x, state),
    "keyword only": lambda digit: lambda x, *, state: own(digit)(x, state),
    "partial": lambda digit: functools.partial(lambda shift, x, state: own(digit)(x, state), 0),
    "eqx.Partial": lambda digit: eqx.Partial(lambda shift, x, state: own(digit)(x, state), 0),
    "bound method": lambda digit: own(digit).method,
    "filter_jit": lambda digit: eqx.filter_jit(own(digit)),
    "subclass of a container": lambda digit: type("Block", (gx.Chain,), {})(own(digit)),
}


@pytest.mark.parametrize("name", STATEFUL_CALLABLES)
def test_whoever_declares_a_state_is_given_it(name):
    model = gx.Chain(a=gx.Chain(b=STATEFUL_CALLABLES[name](4)))
    assert model.is_stateful()
    y, state = model(X, state=eqx.nn.State(gx.Chain(own(4))))
    assert jnp.array_equal(y, X + 4)
    assert state.get(INDEX) == 4


def test_a_container_is_stateful_if_any_layer_is():
    assert not gx.Chain(a=jnp.tanh, b=eqx.nn.Dropout(), c=Sequential([])).is_stateful()
    assert gx.Chain(a=gx.Chain(b=tally(1))).is_stateful()
    assert gx.SkipConnection(jnp.tanh, shortcut=own(1)).is_stateful()
    assert gx.Parallel(jnp.tanh, op=own(1)).is_stateful()
    assert gx.Chain(Sequential([tally(1)])).is_stateful()
    assert gx.Chain(gx.Remat(gx.Wrapper(own(1)))).is_stateful()


class Optional(eqx.Module):
    """Takes a state if there is one, and says which."""

    def __call__(self, x, state=None):
        return x if state is None else (x + 1, state)


def test_a_layer_whose_state_is_optional_works_without_one():
    model = gx.Chain(a=Optional(), b=jnp.negative)
    assert jnp.array_equal(model(X), -X)
    y, _ = model(X, state=eqx.nn.State(gx.Chain(tally(1))))
    assert jnp.array_equal(y, -(X + 1))


MISSING = {
    "a.b.0": lambda: gx.Chain(a=gx.Parallel(b=gx.Repeat(tally(1), times=2))),
    "a.shortcut": lambda: gx.Chain(a=gx.SkipConnection(jnp.tanh, shortcut=own(1))),
    "a.op": lambda: gx.Chain(a=gx.Parallel(jnp.tanh, op=own(1))),
    "a.b": lambda: gx.Chain(a=gx.Remat(gx.Chain(b=gx.Wrapper(tally(1))))),
    "a.layers.1.b": lambda: gx.Chain(a=Sequential([gx.Chain(jnp.tanh), gx.Chain(b=tally(1))])),
    "b": lambda: Sequential([gx.Chain(b=own(1))]),
}


@pytest.mark.parametrize("path", MISSING)
def test_a_missing_state_is_an_error_that_says_where_and_what_to_do(path):
    with pytest.raises(
        TypeError, match=r"keeps a state: call the model as model\(x, state=state\)"
    ) as caught:
        MISSING[path]()(X)
    assert any(note.startswith(f"In {path}: ") for note in caught.value.__notes__)


def test_a_layer_that_declares_no_state_is_given_none():
    seen = []
    layer = lambda x, **keywords: seen.append(keywords) or x
    gx.Chain(layer, tally(1))(X, state=eqx.nn.State(gx.Chain(tally(1))))
    assert seen == [{}]


# --- Keys ---

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


# --- Context keywords ---


def attention_model(p=0.0):
    """Attention three levels down, in a block in an encoder in a model."""
    q, k, v, m = jax.random.split(jax.random.key(1), 4)
    linear = lambda key: gx.Vmap(eqx.nn.Linear(4, 4, key=key))
    attention = gx.Parallel(query=linear(q), key=linear(k), value=linear(v), op=Attention(p))
    block = gx.SkipConnection(attention=attention, output=linear(m))
    return gx.Chain(encoder=gx.Chain(first=jnp.tanh, block=gx.Remat(block)), head=jnp.sin)


def by_hand(model, x, mask, key=None):
    x = jnp.tanh(x)
    attention = model.encoder.block.attention
    parts = tuple(jax.vmap(attention[label].layer)(x) for label in ("query", "key", "value"))
    y = attention.op(parts, mask=mask, key=key)
    return jnp.sin(jax.vmap(model.encoder.block.output.layer)(y) + x)


TOKENS = jax.random.normal(jax.random.key(2), (5, 4))
CAUSAL = jnp.tril(jnp.ones((5, 5), bool))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap, jax.checkpoint])
def test_a_mask_reaches_an_attention_layer_three_levels_down(transform):
    model = attention_model()
    x, mask = TOKENS, CAUSAL
    if transform is jax.vmap:
        x, mask = jnp.stack([x, 2 * x]), jnp.stack([CAUSAL, CAUSAL.T])
    masked = transform(lambda x, mask: model(x, mask=mask))(x, mask)
    expected = transform(lambda x, mask: by_hand(model, x, mask))(x, mask)
    assert jnp.allclose(masked, expected, atol=1e-6)
    assert not jnp.allclose(masked, transform(lambda x: model(x))(x), atol=1e-3)


def test_the_gradient_goes_through_a_masked_attention_as_by_hand():
    model = attention_model()
    ours = eqx.filter_grad(lambda m: m(TOKENS, mask=CAUSAL).sum())(model)
    hand = eqx.filter_grad(lambda m: by_hand(m, TOKENS, CAUSAL).sum())(model)
    leaves = list(zip(jax.tree.leaves(ours), jax.tree.leaves(hand), strict=True))
    assert len(leaves) == 8
    assert all(jnp.allclose(a, b, atol=1e-5) for a, b in leaves)
    assert all(jnp.abs(a).max() > 0 for a, _ in leaves if a.ndim == 2)


def test_mask_and_key_reach_the_same_layer_at_once():
    model = attention_model(p=0.5)
    key = folded(KEY, "encoder", "block", "attention", "op")
    expected = by_hand(model, TOKENS, CAUSAL, key)
    assert jnp.allclose(model(TOKENS, mask=CAUSAL, key=KEY), expected, atol=1e-6)


def test_a_keyword_goes_to_each_layer_that_declares_it_and_to_no_other():
    times = lambda x, *, scale: x * scale
    shifted = lambda x, *, scale=0, shift=1: x + scale + shift
    model = gx.Chain(
        gx.Parallel(
            times, jnp.negative, op=lambda outputs, *, shift: outputs[0] + shift * outputs[1]
        ),
        gx.SkipConnection(jnp.abs, shortcut=shifted, op=lambda y, x, *, scale: y - scale * x),
    )
    y = X * 3.0 - 2.0 * X
    assert jnp.array_equal(model(X, scale=3.0, shift=2.0), jnp.abs(y) - 3.0 * (y + 3.0 + 2.0))


def test_a_layer_with_var_keywords_is_given_all_of_them():
    seen = {}

    def layer(x, **keywords):
        seen.update(keywords)
        return x

    gx.Chain(a=gx.Wrapper(gx.Chain(b=layer)))(1, mask=2, anything=3, key=KEY)
    assert seen.keys() == {"mask", "anything", "key"}
    assert (seen["mask"], seen["anything"]) == (2, 3)
    assert same_keys([seen["key"]], [folded(KEY, "a", "b")])


def test_a_keyword_passes_by_equinox_layers_that_do_not_declare_it():
    model = gx.Chain(
        eqx.nn.Identity(), Sequential([eqx.nn.Identity()]), lambda x, *, scale: scale * x
    )
    assert jnp.array_equal(model(X, scale=2.0), 2 * X)


def test_inference_is_a_keyword_like_any_other():
    model = gx.Chain(a=gx.Chain(drop=eqx.nn.Dropout()))
    assert jnp.array_equal(model(X, inference=True), X)


UNDECLARED = {
    "chain": lambda layer: gx.Chain(a=gx.Chain(b=gx.Chain(c=layer))),
    "parallel": lambda layer: gx.Parallel(a=gx.Parallel(b=layer)),
    "op": lambda layer: gx.Parallel(a=jnp.tanh, op=gx.Chain(lambda x: x, layer)),
    "shortcut": lambda layer: gx.SkipConnection(a=jnp.tanh, shortcut=layer),
    "repeat": lambda layer: gx.Repeat(layer, times=0),
    "pairwise fusion": lambda layer: gx.PairwiseFusion(layer),
    "wrapper": lambda layer: gx.Wrapper(gx.Remat(layer)),
    "vmap": lambda layer: gx.Vmap(gx.Chain(a=layer)),
    "cast": lambda layer: gx.Cast(layer, jnp.float32),
}


@pytest.mark.parametrize("name", UNDECLARED)
def test_a_keyword_that_nobody_declares_is_refused_with_the_nearest(name):
    model = UNDECLARED[name](lambda x, *, mask=None, temperature=1.0: x)
    with pytest.raises(TypeError) as caught:
        model(X, masks=1)
    assert str(caught.value) == (
        f"No layer of this {type(model).__name__} takes the keyword 'masks'. "
        "Declared are: key, mask, state, temperature. Did you mean 'mask'?"
    )


def test_a_keyword_far_from_all_others_is_refused_without_a_guess():
    with pytest.raises(TypeError, match=r"'zzz'\. Declared are: key, state\.$"):
        gx.Chain(jnp.tanh)(X, zzz=1)


def test_a_keyword_is_refused_before_any_layer_runs():
    ran = []
    with pytest.raises(TypeError, match="'masks'"):
        gx.Chain(lambda x: ran.append(x), lambda x, *, mask: x)(X, masks=1)
    assert ran == []


class Masked(eqx.Module):
    """As `eqx.nn.Sequential` wants its layers: they take a key."""

    def __call__(self, x, *, mask=0.0, key=None):
        return x + mask


def test_a_keyword_reaches_the_layers_of_equinox_sequential():
    inner = Sequential([gx.Chain(b=Masked()), eqx.nn.Identity(), Sequential([Masked()])])
    model = gx.Chain(a=Sequential([eqx.nn.Lambda(jnp.sin), inner, gx.Remat(Masked())]), c=Masked())
    assert jnp.allclose(model(X, mask=2.0), jnp.sin(X) + 8.0)
    assert jnp.allclose(eqx.filter_jit(model)(X, mask=2.0), jnp.sin(X) + 8.0)
    assert jnp.array_equal(model(X), jnp.sin(X))
    with pytest.raises(TypeError, match=r"takes the keyword 'masks'.*Did you mean 'mask'"):
        model(X, masks=2.0)


def test_a_keyword_the_key_and_the_state_reach_equinox_sequential_at_once():
    seen = lambda x, *, mask, key: [*x, mask, key]
    model = gx.Chain(a=Sequential([gx.Chain(b=seen), Sequential([gx.Chain(d=seen)])]))
    first, second = jax.random.split(folded(KEY, "a"), 2)
    (inner,) = jax.random.split(second, 1)
    (mask1, key1, mask2, key2) = model([], mask=7, key=KEY)
    assert (mask1, mask2) == (7, 7)
    assert same_keys([key1, key2], [folded(first, "b"), folded(inner, "d")])
    model = gx.Chain(a=Sequential([tally(1), gx.Chain(own(2), Masked()), Masked()]))
    y, state = model(X, mask=3.0, state=eqx.nn.State(model))
    assert jnp.array_equal(y, X + 1 + 2 + 6) and state.get(INDEX) == 12


def test_the_input_is_no_keyword():
    with pytest.raises(TypeError, match="No layer of this Chain takes the keyword 'x'"):
        gx.Chain(lambda x: x)(X, x=1)
    with pytest.raises(TypeError, match="No layer of this SkipConnection takes the keyword 'b'"):
        gx.SkipConnection(jnp.tanh, op=lambda a, b: a)(X, b=1)


def test_a_keyword_that_a_layer_requires_and_is_not_given_fails_with_its_path():
    with pytest.raises(TypeError, match="required keyword-only argument: 'mask'") as caught:
        gx.Chain(a=gx.Chain(b=lambda x, *, mask: x))(X)
    assert any(note.startswith("In a.b: ") for note in caught.value.__notes__)


def test_an_op_of_two_inputs_may_call_them_key_and_mask():
    model = gx.Parallel(query=jnp.negative, key=jnp.abs, op=lambda query, key: query - 2.0 * key)
    assert jnp.array_equal(model(X, key=KEY), -X - 2.0 * jnp.abs(X))
    model = gx.Chain(
        gx.SkipConnection(jnp.abs, op=lambda y, mask: y * mask), lambda x, *, mask: x + mask
    )
    assert jnp.array_equal(model(X, mask=2.0), jnp.abs(X) * X + 2.0)


class Scaled(gx.Chain):
    """A subclass with a keyword of its own, which its layers do not know."""

    def __call__(self, x, *, scale=1.0, key=None, **context):
        return scale * super().__call__(x, key=key, **context)


def test_a_subclass_may_add_a_keyword_of_its_own():
    model = gx.Chain(block=Scaled(a=lambda x, *, mask=0.0: x + mask), c=jnp.negative)
    assert jnp.array_equal(model(X, scale=3.0, mask=1.0), -3.0 * (X + 1.0))
    assert jnp.array_equal(model(X), -X)
    with pytest.raises(TypeError, match="Did you mean 'scale'"):
        model(X, scales=3.0)


class Foreign(eqx.Module):
    """A user's own module around a container: what it declares is what reaches the inside."""

    inside: gx.Chain

    def __call__(self, x, *, mask=None, key=None):
        return self.inside(x, mask=mask, key=key)


def test_keywords_and_keys_go_through_a_users_own_module():
    seen = lambda x, *, mask, key: [*x, mask, key]
    model = gx.Chain(a=Foreign(gx.Chain(b=seen)))
    mask, key = model([], mask=5, key=KEY)
    assert mask == 5
    assert same_keys([key], [folded(KEY, "a", "b")])


# --- Inputs ---


def test_several_positional_inputs_travel_as_one_tuple():
    pair = (X, 2 * X)
    assert gx.Chain(lambda x: x)(*pair) == pair
    assert gx.Chain()(*pair) == pair
    assert jnp.array_equal(gx.Chain(operator.itemgetter(1), jnp.negative)(*pair), -2 * X)
    for model in (
        gx.Parallel(jnp.negative, jnp.sin),
        gx.PairwiseFusion(jnp.negative, jnp.sin),
        gx.Vmap(lambda pair: pair[0] * pair[1]),
        gx.Remat(lambda pair: pair[0] * pair[1]),
    ):
        assert eqx.tree_equal(model(*pair), model(pair))


@pytest.mark.parametrize("model", [gx.Chain(jnp.tanh), gx.Parallel(jnp.tanh), gx.Vmap(jnp.tanh)])
def test_a_call_without_an_input_is_refused(model):
    name = type(model).__name__
    with pytest.raises(TypeError, match=f"{name} was called without an input"):
        model()
    with pytest.raises(TypeError, match=f"{name} was called without an input"):
        model(eqx.nn.State(gx.Chain(tally(1))))


def test_an_input_may_be_any_pytree():
    tree = {"a": X, "b": [1, None, "text"]}
    assert gx.Chain(gx.Chain(), lambda x: x)(tree) is tree


# --- What can be a child ---


class Plain:
    """No module, just a class with `__call__`."""

    def __call__(self, x):
        return x + 1.0


class PlainWithKeywords:
    def __call__(self, x, *, key=None, mask=0.0):
        return x + mask + (0.0 if key is None else 1.0)


class WithMethods(eqx.Module):
    weight: jax.Array

    def method(self, x):
        return self.weight * x

    def masked(self, x, *, mask=0.0):
        return self.weight * x + mask

    @eqx.filter_jit
    def jitted(self, x, *, mask=0.0):
        return self.weight * x + mask


class PlainMethods:
    def method(self, x, *, mask=0.0):
        return x - mask


@jax.custom_jvp
def sine(x):
    return jnp.sin(x)


sine.defjvps(lambda tangent, _, x: jnp.cos(x) * tangent)

MODULE = WithMethods(jnp.array(3.0))
MASK = 0.5
# A child, and what it must give for `X`, `mask=MASK` and a key.
CALLABLES = {
    "jnp function": (jnp.tanh, lambda x: jnp.tanh(x)),
    "jnp ufunc with one input": (jnp.negative, lambda x: -x),
    "numpy-like constant": (jnp.zeros_like, lambda x: 0 * x),
    "relu": (jax.nn.relu, jax.nn.relu),
    "gelu": (jax.nn.gelu, jax.nn.gelu),
    "silu": (jax.nn.silu, jax.nn.silu),
    "softmax": (jax.nn.softmax, jax.nn.softmax),
    "log_softmax": (jax.nn.log_softmax, jax.nn.log_softmax),
    "lambda": (lambda x: 2.0 * x, lambda x: 2.0 * x),
    "lambda with a default": (lambda x, power=2: x**power, lambda x: x**2),
    "partial": (functools.partial(jax.nn.gelu, approximate=False), lambda x: jax.nn.gelu(x, False)),
    "partial, positional": (functools.partial(jnp.multiply, 3.0), lambda x: 3.0 * x),
    "partial of a masked one": (
        functools.partial(lambda scale, x, *, mask: scale * x + mask, 2.0),
        lambda x: 2.0 * x + MASK,
    ),
    "tree_util.Partial": (jax.tree_util.Partial(jnp.add, 1.0), lambda x: 1.0 + x),
    "eqx.Partial": (eqx.Partial(jnp.subtract, 1.0), lambda x: 1.0 - x),
    "jax.jit": (jax.jit(lambda x: x**2), lambda x: x**2),
    "jax.jit with mask": (jax.jit(lambda x, *, mask: x + mask), lambda x: x + MASK),
    "filter_jit": (eqx.filter_jit(lambda x, *, mask: x - mask), lambda x: x - MASK),
    "filter_jit of a layer": (eqx.filter_jit(eqx.nn.Dropout(0.0)), lambda x: x),
    "jax.vmap": (jax.vmap(lambda x: x + 1.0), lambda x: x + 1.0),
    "filter_vmap": (eqx.filter_vmap(eqx.nn.Lambda(jnp.sin)), jnp.sin),
    "filter_vmap of a masked one": (
        eqx.filter_vmap(lambda x, mask=1.0: x + mask),
        lambda x: x + 1.0,
    ),
    "jax.checkpoint": (jax.checkpoint(jnp.sin), jnp.sin),
    "filter_checkpoint": (eqx.filter_checkpoint(jnp.sin), jnp.sin),
    "custom_jvp": (sine, jnp.sin),
    "bound method of a module": (MODULE.method, lambda x: 3.0 * x),
    "bound method with mask": (MODULE.masked, lambda x: 3.0 * x + MASK),
    "jitted method": (MODULE.jitted, lambda x: 3.0 * x + MASK),
    "bound method of a plain class": (PlainMethods().method, lambda x: x - MASK),
    "plain class": (Plain(), lambda x: x + 1.0),
    "plain class with keywords": (PlainWithKeywords(), lambda x: x + MASK + 1.0),
    "var keywords": (lambda x, **keywords: x + len(keywords), lambda x: x + 2.0),
    "builtin": (abs, abs),
    "builtin without a signature": (max, max),
    "a type": (tuple, tuple),
    "operator": (operator.neg, operator.neg),
    "itemgetter": (operator.itemgetter(1), lambda x: x[1]),
    "numpy function": (np.asarray, np.asarray),
    "eqx.nn.Lambda": (eqx.nn.Lambda(jnp.cos), jnp.cos),
    "eqx.nn.Identity": (eqx.nn.Identity(), lambda x: x),
    "eqx.nn.PReLU": (eqx.nn.PReLU(0.5), lambda x: jnp.where(x >= 0, x, 0.5 * x)),
}


@pytest.mark.parametrize("name", CALLABLES)
@pytest.mark.parametrize("where", ["child", "branch", "shortcut", "op"])
def test_any_callable_is_a_child(name, where):
    layer, expected = CALLABLES[name]
    take_all = lambda x, **keywords: x
    x = X - 1.5
    model = {
        "child": gx.Chain(start=take_all, layer=layer),
        "branch": gx.Parallel(start=take_all, layer=layer, op=operator.itemgetter(1)),
        "shortcut": gx.SkipConnection(start=take_all, shortcut=layer, op=lambda y, x: x),
        "op": gx.Parallel(start=gx.Chain(take_all), op=gx.Chain(operator.itemgetter(0), layer)),
    }[where]
    got = model(x, key=KEY, mask=MASK)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b)), got, expected(x)))


TRACED = [
    name for name in CALLABLES if name not in ("builtin without a signature", "numpy function")
]


@pytest.mark.parametrize("name", TRACED)
def test_any_callable_is_a_child_under_jit_and_grad(name):
    layer, expected = CALLABLES[name]
    model = gx.Chain(start=lambda x, **keywords: x, layer=layer)
    total = lambda y: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(y))
    run = lambda x, key: total(model(x, key=key, mask=MASK))
    x = X - 1.5
    value, gradient = jax.jit(jax.value_and_grad(run))(x, KEY)
    value_by_hand, gradient_by_hand = jax.value_and_grad(lambda x: total(expected(x)))(x)
    assert jnp.allclose(value, value_by_hand)
    assert jnp.allclose(gradient, gradient_by_hand)


def test_a_bound_method_of_a_module_keeps_its_parameters_in_the_model():
    model = gx.Chain(scale=MODULE.method)
    gradient = eqx.filter_grad(lambda m: m(X).sum())(model)
    assert jax.tree.leaves(gradient) == [X.sum()]
