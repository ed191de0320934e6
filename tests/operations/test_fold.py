"""`fold_batch_norm` computes the same with fewer layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx

KEY = jax.random.key(0)
LAYERS = {
    "conv": (lambda bias: eqx.nn.Conv2d(4, 6, 3, use_bias=bias, key=KEY), (4, 8, 8)),
    "grouped": (lambda bias: eqx.nn.Conv2d(4, 6, 3, groups=2, use_bias=bias, key=KEY), (4, 8, 8)),
    "conv1d": (lambda bias: eqx.nn.Conv1d(4, 6, 3, use_bias=bias, key=KEY), (4, 8)),
    "transposed": (
        lambda bias: eqx.nn.ConvTranspose2d(4, 6, 3, 2, groups=2, use_bias=bias, key=KEY),
        (4, 5, 5),
    ),
    "linear": (lambda bias: eqx.nn.Linear(4, 6, use_bias=bias, key=KEY), (4,)),
}


def norm(mode="batch", affine=True):
    """A BatchNorm with statistics and parameters that show."""
    layer = eqx.nn.BatchNorm(6, axis_name="batch", mode=mode, channelwise_affine=affine)
    keys = iter(jax.random.split(jax.random.key(1), 4))
    draw = lambda low: jax.random.uniform(next(keys), (6,), minval=low, maxval=low + 1)
    names = {"running_mean": draw(-0.5), "running_var": draw(0.5)}
    if affine:
        names |= {"weight": draw(0.5), "bias": draw(-0.5)}
    return eqx.nn.inference_mode(gx.load_weights(layer, names))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_model_computes_the_same(name, bias):
    make, shape = LAYERS[name]
    model = gx.Chain(layer=make(bias), norm=norm(), act=jax.nn.relu)
    x = jax.random.normal(jax.random.key(2), shape)
    whole, state = eqx.nn.make_with_state(lambda: model)()
    expected, _ = whole(x, state)
    for folded in (gx.fold_batch_norm(model), gx.fold_batch_norm(whole, state)):
        assert folded.labels == ("layer", "act")
        np.testing.assert_allclose(eqx.filter_jit(folded)(x), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("affine", [True, False])
def test_every_kind_of_batch_norm_folds(mode, affine):
    model = gx.SkipConnection(LAYERS["linear"][0](True), norm(mode, affine), op=lambda y, x: y)
    whole, state = eqx.nn.make_with_state(lambda: model)()
    expected, _ = whole(jnp.ones(4), state)
    np.testing.assert_allclose(gx.fold_batch_norm(model)(jnp.ones(4)), expected, atol=1e-5)


def test_what_is_left_keeps_its_state():
    model = gx.Chain(a=gx.Chain(conv=LAYERS["linear"][0](True), norm=norm()), lone=norm())
    whole, state = eqx.nn.make_with_state(lambda: model)()
    folded = gx.fold_batch_norm(whole, state)
    assert gx.select(folded, eqx.nn.BatchNorm).paths == ("lone",)
    y, _ = folded(jnp.ones(4), gx.extend_state(state, folded))
    np.testing.assert_allclose(y, whole(jnp.ones(4), state)[0], atol=1e-5)


def test_nothing_to_fold_and_a_missing_state_are_errors():
    with pytest.raises(ValueError, match="nothing to fold"):
        gx.fold_batch_norm(gx.Chain(norm=norm()))
    whole, _ = eqx.nn.make_with_state(gx.Chain)(layer=LAYERS["linear"][0](True), norm=norm())
    with pytest.raises(ValueError, match="give state="):
        gx.fold_batch_norm(whole)
