"""`fold_batch_norm` computes the same with fewer layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_containers import same_arrays

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


class Standardised(eqx.nn.Conv1d):
    """A subclass that gives its weight another meaning."""

    def __call__(self, x, *, key=None):
        centred = self.weight - self.weight.mean((1, 2), keepdims=True)
        return eqx.nn.Conv1d.__call__(gx.update(self, weight=centred), x)


class Named(eqx.nn.Conv1d):
    """A subclass that adds nothing."""


class Branching(gx.Chain):
    """A chain whose children do not run one after the other."""

    def forward(self, call, x):
        return call(self[0], x, label=0)


def conv1d(cls=eqx.nn.Conv1d, outputs=6, key=KEY):
    return cls(4, outputs, 3, key=key)


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


def computed(model, x):
    """What a model in inference computes, its statistics taken out."""
    whole, state = eqx.nn.make_with_state(lambda: model)()
    return whole(x, state)[0]


@pytest.mark.parametrize("wrap", [gx.Remat, lambda layer: gx.Remat(gx.Remat(layer))])
def test_what_is_only_run_in_another_way_folds(wrap):
    x = jax.random.normal(jax.random.key(2), (4, 9))
    model = gx.Chain(layer=wrap(conv1d(Named)), norm=wrap(norm()))
    folded = gx.fold_batch_norm(model)
    assert folded.labels == ("layer",) and type(folded.layer) is gx.Remat
    np.testing.assert_allclose(folded(x), computed(model, x), atol=1e-5)


def test_several_norms_fold_one_after_the_other():
    x = jax.random.normal(jax.random.key(2), (4, 9))
    model = gx.Chain(layer=conv1d(), norm=norm(), again=norm("ema"))
    folded = gx.fold_batch_norm(model)
    assert folded.labels == ("layer",)
    np.testing.assert_allclose(folded(x), computed(model, x), atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_layer_in_half_precision_is_rounded_once(dtype):
    layer = jax.tree.map(lambda a: a.astype(dtype) if eqx.is_array(a) else a, conv1d())
    folded = gx.fold_batch_norm(gx.Chain(layer=layer, norm=norm())).layer
    wide = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_array(a) else a, layer)
    expected = gx.fold_batch_norm(gx.Chain(layer=wide, norm=norm())).layer
    assert folded.weight.dtype == folded.bias.dtype == dtype
    assert (folded.weight == expected.weight.astype(dtype)).all()
    assert (folded.bias == expected.bias.astype(dtype)).all()


UNFOLDED = {
    "subclass": lambda: gx.Chain(layer=conv1d(Standardised), norm=norm()),
    "weight norm": lambda: gx.Chain(layer=eqx.nn.WeightNorm(conv1d()), norm=norm()),
    "lora": lambda: gx.Chain(layer=gx.LoRA(conv1d(), rank=1, key=KEY), norm=norm()),
    "vmap": lambda: gx.Chain(layer=gx.Vmap(eqx.nn.Linear(4, 6, key=KEY)), norm=norm()),
    "cast": lambda: gx.Chain(layer=gx.Cast(conv1d(), jnp.bfloat16), norm=norm()),
    "own forward": lambda: Branching(layer=conv1d(), norm=norm()),
    "something between": lambda: gx.Chain(layer=conv1d(), act=jax.nn.relu, norm=norm()),
    "side by side": lambda: gx.Parallel(layer=conv1d(), norm=norm()),
}


@pytest.mark.parametrize("name", UNFOLDED)
def test_what_may_compute_something_else_is_left_as_it_is(name):
    with pytest.raises(ValueError, match="nothing to fold"):
        gx.fold_batch_norm(UNFOLDED[name]())
    # Beside a pair that folds, it stays.
    both = gx.Chain(pair=gx.Chain(layer=conv1d(), norm=norm()), other=UNFOLDED[name]())
    assert same_arrays(gx.fold_batch_norm(both).other, both.other)


def test_channels_that_differ_and_stacked_weights_are_refused_by_path():
    stacked = eqx.filter_vmap(lambda key: conv1d(key=key))(jax.random.split(KEY, 1))
    for layer in (conv1d(outputs=5), stacked):
        model = gx.Chain(body=gx.Chain(layer=layer, norm=norm()))
        with pytest.raises(ValueError, match=r"6 channels cannot be folded into 'body.layer'"):
            gx.fold_batch_norm(model)


def test_a_weight_that_is_tied_and_folded_is_tied_no_more():
    model = gx.Chain(a=conv1d(), norm=norm(), act=jnp.tanh, b=eqx.nn.Conv1d(4, 6, 3, key=KEY))
    tied = gx.tie(model, "a.weight", "b.weight")
    folded = gx.fold_batch_norm(tied)
    assert (folded.b.weight == model.a.weight).all()
    assert not jnp.allclose(folded.a.weight, model.a.weight)


def test_folding_inside_a_traced_function_is_refused():
    model = gx.Chain(layer=conv1d(), norm=norm())
    with pytest.raises(TypeError, match=r"behind 'layer'.*fold outside of jit"):
        eqx.filter_jit(lambda model: gx.fold_batch_norm(model).layer.weight)(model)
