"""Any other keyword goes to each layer, at any depth, that declares it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_calling import INDEX, Attention, folded, own, same_keys, tally

KEY = jax.random.key(7)
X = jnp.arange(4.0)
Sequential = eqx.nn.Sequential


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
