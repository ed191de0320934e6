"""Residual and Then: wrappers with labelled layers of their own, beside those of what they wrap."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, strategies as st

import graftax as gx
from common_containers import double, increment, linear, square, without_annotation_checks

X = jnp.arange(1.0, 5.0)
FUNCTIONS = [double, increment, square, gx.Chain(), abs]


@given(*[st.sampled_from(FUNCTIONS)] * 3, st.integers(-9, 9))
def test_laws_of_residual_and_then(a, b, c, x):
    assert gx.Residual(a, first=b, second=c)(x) == x + a(c(b(x)))
    assert gx.Residual(a)(x) == x + a(x)
    assert gx.Then(a, first=b, second=c)(x) == c(b(a(x)))
    assert gx.Then(a)(x) == a(x)


def test_their_layers_stand_beside_those_of_what_they_wrap():
    for make in (gx.Residual, gx.Then):
        model = gx.Chain(block=make(gx.Chain(up=double, down=square), norm=increment))
        assert set(gx.select(model, "block.*").paths) == {"block.up", "block.down", "block.norm"}
        assert model.block.norm is model.block["norm"] is increment
        assert model.block.up is double and model.block[0] is double
        assert "norm" in model.block and "up" in model.block and "nor" not in model.block
        assert {"norm", "up"} <= set(dir(model.block))
        assert set(model.block._ipython_key_completions_()) == {"norm", "up", "down"}
        assert (
            repr(model.block) == f"{make.__name__}(Chain(up=double, down=square), norm=increment)"
        )


def test_their_layers_are_edited_like_those_of_a_container():
    model = gx.Chain(block=gx.Residual(gx.Chain(up=double), norm=increment))
    assert gx.select(model, "norm").set(square)(3) == 3 + 2 * 9
    assert gx.select(model, "norm").remove()(3) == 3 + 6
    assert gx.select(model, "norm").insert_after(again=square)(3) == 3 + 2 * 16
    assert gx.select(model, "norm").insert_before(again=square)(3) == 3 + 2 * 10
    assert gx.select(model, "norm").rename("first").block.first is increment
    assert gx.select(model, "up").insert_after(down=square).block.labels == ("up", "down")


def test_a_then_that_has_nothing_left_behind_it_is_the_layer():
    model = gx.Parallel(a=gx.Then(double, after_=increment), b=square)
    assert gx.select(model, "after_").remove().a is double


@pytest.mark.parametrize("make", [gx.Residual, gx.Then])
def test_two_layers_at_one_path_are_refused_by_name(make):
    with pytest.raises(
        ValueError, match=f"{make.__name__} would hide 'norm' of the Chain it wraps"
    ):
        make(gx.Chain(norm=double), norm=increment)
    model = gx.Chain(block=make(gx.Chain(up=double), norm=increment))
    for edit in (
        lambda: gx.select(model, "up").insert_before(norm=square),
        lambda: gx.select(model, "up").rename("norm"),
        lambda: gx.select(model, "norm").rename("up"),
        lambda: gx.select(model, "norm").insert_after(up=square),
        lambda: gx.select(model, "block", gx.Chain).set(gx.Chain(norm=double)),
    ):
        with pytest.raises(ValueError, match=r"'block'.*would hide '(norm|up)'"):
            edit()


@pytest.mark.parametrize("make", [gx.Residual, gx.Then])
def test_what_is_no_layer_or_no_label_is_refused(make):
    message = f"Layer 'norm' of {make.__name__} must be callable"
    with without_annotation_checks(), pytest.raises(TypeError, match=message):
        make(double, norm=3)
    with pytest.raises(ValueError, match="'layer' cannot be a label"):
        make(double, **{"layer": increment})
    message = f"{make.__name__} wraps a callable"
    with without_annotation_checks(), pytest.raises(TypeError, match=message):
        make(3)
    model = gx.Chain(block=make(gx.Chain(up=double), norm=increment))
    with pytest.raises(TypeError, match=r"At 'block.norm': Layer 'norm' of .* must be callable"):
        gx.select(model, "norm").set(3)


def test_a_then_passes_several_inputs_to_what_it_wraps():
    attention = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))
    x = jnp.arange(12.0).reshape(3, 4)
    y = gx.Then(attention, scale=lambda y: 2 * y)(x, x, x)
    assert jnp.allclose(y, 2 * attention(x, x, x))


def test_each_layer_behind_draws_from_a_key_of_its_own_and_the_wrapped_one_from_its_old_key():
    class Noise(eqx.Module):
        def __call__(self, x, *, key):
            return x + jax.random.normal(key, x.shape)

    key = jax.random.key(0)
    alone = gx.Chain(a=Noise())(X, key=key)
    with_more = gx.Chain(a=gx.Then(Noise(), more=lambda y: y))(X, key=key)
    twice = gx.Chain(a=gx.Then(Noise(), more=Noise()))(X, key=key)
    assert jnp.array_equal(alone, with_more)
    assert not jnp.allclose(twice - alone, alone - X)


def test_gradients_reach_all_of_their_layers():
    model = gx.Residual(linear(4, 4, 0), norm=linear(4, 4, 1))
    gradient = eqx.filter_grad(lambda m: m(X).sum())(model)
    by_hand = eqx.filter_grad(lambda ab: (X + ab[0](ab[1](X))).sum())((model.layer, model.norm))
    assert jnp.allclose(gradient.norm.weight, by_hand[1].weight, rtol=1e-5)
    assert jnp.allclose(gradient.layer.weight, by_hand[0].weight, rtol=1e-5)
    assert jnp.allclose(jax.jit(jax.vmap(model))(X[None])[0], model(X), rtol=1e-5)


def test_tree_map_and_flattening_keep_them():
    model = gx.Residual(linear(4, 4, 0), norm=linear(4, 4, 1))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, model)
    assert jnp.array_equal(doubled.norm.weight, 2 * model.norm.weight)
    replaced = eqx.tree_at(lambda m: m.norm, model, linear(4, 4, 2))
    assert jnp.array_equal(replaced.norm.weight, linear(4, 4, 2).weight)
