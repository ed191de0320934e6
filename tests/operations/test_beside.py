"""The path of a LoRA stands beside the layer, in any wrapper, quantised or not, and forms no weight."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_hlo import compiled, gradient, stripped

KEY = jax.random.key(7)


def trained(lora):
    """The adapter after some training: `B` no longer zero."""
    return gx.update(lora, lora_b=jax.random.normal(KEY, lora.lora_b.shape, lora.lora_b.dtype))


def linear(inputs=6, outputs=4, **options):
    return eqx.nn.Linear(inputs, outputs, key=KEY, **options)


LAYERS = {
    "linear": (linear(), (6,)),
    "quantised": (gx.quantize(linear()), (6,)),
    "quantised without bias": (gx.quantize(linear(use_bias=False)), (6,)),
    "conv": (eqx.nn.Conv2d(4, 6, (3, 2), 2, "SAME", key=KEY), (4, 7, 7)),
    "circular": (
        eqx.nn.Conv1d(4, 6, 3, padding=1, padding_mode="CIRCULAR", key=KEY),
        (4, 7),
    ),
    "grouped": (eqx.nn.Conv2d(4, 6, 3, groups=2, dilation=2, key=KEY), (4, 7, 7)),
    "depthwise": (eqx.nn.Conv1d(4, 8, 3, groups=4, use_bias=False, key=KEY), (4, 7)),
    "transposed": (
        eqx.nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1, groups=2, key=KEY),
        (4, 5, 5),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_path_is_a_change_of_the_weight(name):
    layer, shape = LAYERS[name]
    lora, x = trained(gx.LoRA(layer, 2, alpha=3.0, key=KEY)), jax.random.normal(KEY, shape)
    y = eqx.filter_jit(lora)(x)
    assert y.shape == layer(x).shape and not jnp.allclose(y, layer(x), atol=1e-2)
    np.testing.assert_allclose(y, lora.merged()(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_no_weight_is_formed(name):
    layer, shape = LAYERS[name]
    lora = trained(gx.LoRA(layer, 5, key=KEY))
    program = jax.make_jaxpr(lambda lora, x: lora(x))(lora, jnp.ones(shape))
    formed = [
        eqn for eqn in program.eqns for out in eqn.outvars if out.aval.shape == layer.weight.shape
    ]
    # A quantised weight is made floating-point as it is multiplied, as without an adapter.
    assert len(formed) == isinstance(layer, gx.QuantizedLinear)


def test_over_a_linear_layer_the_program_is_that_of_lora_by_hand():
    class Hand(eqx.Module):
        layer: eqx.nn.Linear
        a: jax.Array
        b: jax.Array

        def __call__(self, x):
            return self.layer(x) + 2.0 * (self.b @ (self.a @ x))

    lora = trained(gx.LoRA(linear(), 2, alpha=4.0, key=KEY))
    hand, x = Hand(lora.layer, lora.lora_a, lora.lora_b), jnp.arange(6.0)
    call = lambda model, x: [model(x)]
    for run in (call, gradient(call)):
        assert stripped(compiled(run, lora, x)) == stripped(compiled(run, hand, x))


WRAPPED = {
    "vmap": (gx.Vmap, (3, 6)),
    "remat": (gx.Remat, (6,)),
    "both": (lambda layer: gx.Remat(gx.Vmap(layer)), (3, 6)),
    "pixelwise": (gx.zoo.Pixelwise, (6, 2, 3)),
}


@pytest.mark.parametrize("inner", [linear(), gx.quantize(linear())])
@pytest.mark.parametrize("name", WRAPPED)
def test_around_a_wrapper_it_is_what_it_is_inside(name, inner):
    wrap, shape = WRAPPED[name]
    x = jax.random.normal(KEY, shape)
    outside = trained(gx.LoRA(wrap(inner), 2, alpha=5.0, key=KEY))
    inside = wrap(trained(gx.LoRA(inner, 2, alpha=5.0, key=KEY)))
    np.testing.assert_allclose(outside(x), inside(x), atol=1e-5)
    np.testing.assert_allclose(outside(x), outside.merged()(x), rtol=1e-3, atol=1e-4)
    grads = [
        eqx.filter_grad(lambda model: jnp.sum(model(x) ** 2))(model) for model in (outside, inside)
    ]
    for g in ("lora_a", "lora_b"):
        mine, theirs = (getattr(grad, g) for grad in grads)
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


class Doubled(gx.Wrapper):
    """A wrapper of a user's own."""

    def forward(self, call, *inputs):
        return 2 * call(self.layer, *inputs)


class Added(gx.Wrapper):
    """A wrapper that is not linear in what it wraps."""

    def forward(self, call, *inputs):
        return jnp.tanh(call(self.layer, *inputs)) + inputs[0][:4]


@pytest.mark.parametrize("wrap", [Doubled, Added])
def test_a_wrapper_of_ones_own_does_with_both_what_it_does_with_one(wrap):
    lora, x = trained(gx.LoRA(wrap(linear()), 2, key=KEY)), jnp.arange(6.0)
    np.testing.assert_allclose(lora(x), lora.merged()(x), rtol=1e-4)


def test_state_keys_and_context_pass_by():
    norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
    model = gx.Chain(up=gx.LoRA(linear(), 2, key=KEY), norm=norm, drop=eqx.nn.Dropout(0.5))
    model, state = eqx.nn.make_with_state(lambda: model)()
    run = lambda x, key: model(x, state, key=key)
    y, _ = jax.vmap(run, (0, None), (0, None), axis_name="batch")(jnp.ones((3, 6)), KEY)
    assert y.shape == (3, 4)


def test_ids_and_rows_of_an_embedding():
    layer = eqx.nn.Embedding(9, 4, key=KEY)
    lora = trained(gx.LoRA(gx.Vmap(layer), 2, alpha=3.0, key=KEY))
    ids = jnp.array([0, 8, 3, -1])
    np.testing.assert_allclose(lora(ids), lora.merged()(ids), atol=1e-5)
    program = jax.make_jaxpr(lambda lora, x: lora(x))(lora, ids)
    assert not any(out.aval.shape == (9, 4) for eqn in program.eqns for out in eqn.outvars)


# --- Quantised ---


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_qlora_in_either_order_is_one_function(dtype):
    model = gx.Chain(up=gx.Vmap(linear(dtype=dtype)), act=jax.nn.relu)

    def adapt(layer):
        # Numbers that are the same in every dtype.
        lora = gx.LoRA(layer, 2, alpha=3.0, key=KEY)
        rounded = lambda a: jnp.round(8 * jax.random.normal(KEY, a.shape)) / 8
        a, b = (rounded(each).astype(each.dtype) for each in (lora.lora_a, lora.lora_b))
        return gx.update(lora, lora_a=a, lora_b=b)

    first = gx.select(gx.select(model, "up").apply(gx.quantize), "up").apply(adapt)
    last = gx.select(gx.select(model, "up").apply(adapt), "up").apply(gx.quantize)
    by_type = gx.select(gx.select(model, "up").apply(adapt), eqx.nn.Linear).apply(gx.quantize)
    x = jax.random.normal(KEY, (3, 6), dtype)
    expected = first(x)
    assert expected.dtype == dtype and type(gx.select(first, "up").one()) is gx.LoRA
    for other in (last, by_type):
        tolerance = 1e-5 if dtype == jnp.float32 else 5e-2
        np.testing.assert_allclose(
            other(x).astype(float), expected.astype(float), rtol=tolerance, atol=tolerance
        )
    merged = gx.merge_lora(first)
    assert isinstance(gx.select(merged, "up", eqx.nn.Linear).one(), eqx.nn.Linear)
    np.testing.assert_allclose(
        merged(x).astype(float), expected.astype(float), rtol=5e-2, atol=5e-2
    )


def test_merging_over_a_quantised_layer_is_the_dequantised_weight_and_the_change():
    small = gx.quantize(linear())
    lora = trained(gx.LoRA(small, 2, alpha=3.0, key=KEY))
    by_hand = small.weight * small.scale[:, None] + 1.5 * lora.lora_b @ lora.lora_a
    np.testing.assert_allclose(lora.merged().weight, by_hand, rtol=1e-5)
    again = gx.quantize(lora.merged())
    np.testing.assert_allclose(again(jnp.ones(6)), lora(jnp.ones(6)), atol=0.1)


def test_only_the_adapter_of_a_quantised_layer_is_trained():
    lora = gx.LoRA(gx.quantize(linear()), 2, key=KEY)
    adapter, rest = gx.select(lora, "{lora_a,lora_b}").partition()
    loss = lambda adapter: jnp.sum(eqx.combine(adapter, rest)(jnp.ones(6)) ** 2)
    grads = eqx.filter_grad(loss)(adapter)
    assert float(jnp.abs(grads.lora_b).sum()) > 0 and grads.layer.scale is None


# --- Precision ---


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_merging_rounds_once(dtype):
    layer = linear(dtype=dtype)
    lora = trained(gx.LoRA(layer, 2, alpha=3.0, key=KEY))
    wide = [a.astype(jnp.float32) for a in (layer.weight, lora.lora_a, lora.lora_b)]
    expected = (wide[0] + 1.5 * (wide[2] @ wide[1])).astype(dtype)
    assert (lora.merged().weight == expected).all()


def test_the_output_keeps_the_dtype_that_the_layer_gives():
    # An adapter in float32 over a layer in bfloat16, as it is often trained.
    lora = gx.LoRA(linear(dtype=jnp.bfloat16), 2, key=KEY)
    wide = gx.select(lora, "{lora_a,lora_b}").apply(lambda a: a.astype(jnp.float32))
    assert wide(jnp.ones(6, jnp.bfloat16)).dtype == jnp.bfloat16
    assert wide.merged().weight.dtype == jnp.bfloat16


# --- Variants ---


class DoRA(gx.LoRA):
    """The direction of each row changed by the adapter, its length learnt by itself."""

    length: jax.Array

    def __init__(self, layer, rank, *, key):
        super().__init__(layer, rank, key=key)
        weight = layer.dequantized().weight if hasattr(layer, "dequantized") else layer.weight
        self.length = rows(weight)

    def changed(self, weight):
        weight = super().changed(weight)
        return self.length * weight / jax.lax.stop_gradient(rows(weight))


def rows(weight):
    return jnp.linalg.norm(weight.reshape(len(weight), -1), axis=1).reshape(
        -1, *(1,) * (weight.ndim - 1)
    )


class RankStabilised(gx.LoRA):
    """Another scale: a variant by one property."""

    @property
    def scale(self):
        return self.alpha / self.lora_a.shape[0] ** 0.5


@pytest.mark.parametrize("name", ["linear", "quantised", "conv", "grouped"])
def test_a_variant_is_honoured_by_the_call_and_by_merging(name):
    layer, shape = LAYERS[name]
    x = jax.random.normal(KEY, shape)
    start = DoRA(layer, 2, key=KEY)
    np.testing.assert_allclose(start(x), layer(x), rtol=1e-3, atol=1e-4)
    dora = trained(start)
    dora = gx.update(dora, length=2 * dora.length)
    merged = gx.merge_lora(gx.Chain(part=dora)).part
    np.testing.assert_allclose(dora(x), merged(x), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(rows(merged.weight), dora.length, rtol=1e-4)
    plain = trained(gx.LoRA(layer, 2, key=KEY))
    assert not jnp.allclose(dora(x), plain(x), atol=1e-2)


def test_the_length_of_a_variant_is_trained():
    dora = DoRA(linear(), 2, key=KEY)
    grads = eqx.filter_grad(lambda dora: jnp.sum(dora(jnp.ones(6)) ** 2))(dora)
    assert all(jnp.abs(g).sum() > 0 for g in (grads.length, grads.lora_b))


def test_another_scale_is_honoured_by_the_call_and_by_merging():
    lora = trained(RankStabilised(linear(), 4, alpha=2.0, key=KEY))
    x = jnp.arange(6.0)
    expected = lora.layer(x) + 1.0 * lora.lora_b @ (lora.lora_a @ x)
    np.testing.assert_allclose(lora(x), expected, rtol=1e-4)
    np.testing.assert_allclose(lora.merged()(x), expected, rtol=1e-4)


class Standardised(eqx.nn.Conv1d):
    """A subclass that is not linear in its weight."""

    def __call__(self, x, *, key=None):
        weight = self.weight / jnp.linalg.norm(self.weight)
        return eqx.nn.Conv1d.__call__(gx.update(self, weight=weight), x)


def test_a_subclass_with_a_call_of_its_own_is_run_with_the_changed_weight():
    lora = trained(gx.LoRA(Standardised(4, 6, 3, key=KEY), 2, key=KEY))
    x = jax.random.normal(KEY, (4, 7))
    changed = lora.layer.weight + (lora.lora_b @ lora.lora_a).reshape(lora.layer.weight.shape)
    np.testing.assert_allclose(lora(x), gx.update(lora.layer, weight=changed)(x), rtol=1e-4)


# --- Stacks ---


@pytest.mark.parametrize(
    "make",
    [
        lambda key: eqx.nn.Linear(6, 4, key=key),
        lambda key: eqx.nn.Conv1d(6, 4, 3, key=key),
        lambda key: eqx.nn.Embedding(6, 4, key=key),
        lambda key: gx.quantize(eqx.nn.Linear(6, 4, key=key)),
    ],
)
def test_stacked_layers_get_an_adapter_each(make):
    keys = jax.random.split(KEY, 3)
    stacked = eqx.filter_vmap(make)(keys)
    with pytest.raises(ValueError, match=r"shape \(3, .*eqx.filter_vmap"):
        gx.LoRA(stacked, 2, key=KEY)
    many = eqx.filter_vmap(lambda layer, key: gx.LoRA(layer, 2, key=key))(stacked, keys)
    one = gx.LoRA(make(keys[1]), 2, key=keys[1])
    np.testing.assert_allclose(many.lora_a[1], one.lora_a, rtol=1e-6)
    assert many.lora_b.shape == (3, *one.lora_b.shape)


def test_a_complex_weight_is_refused():
    with pytest.raises(TypeError, match="floating-point weight"):
        gx.LoRA(linear(dtype=jnp.complex64), 1, key=KEY)


# --- Cut ---


@pytest.mark.parametrize("inner", [linear(), gx.Vmap(linear()), gx.quantize(linear())])
def test_taking_from_an_adapted_layer_takes_from_its_adapter(inner):
    lora = trained(gx.LoRA(inner, 2, alpha=3.0, key=KEY))
    model, x = gx.Chain(part=lora), jax.random.normal(KEY, (6,))
    run = lambda layer, x: layer(x[None])[0] if isinstance(inner, gx.Vmap) else layer(x)
    rows = gx.take(model, {"part": "out"}, [3, 1]).part
    np.testing.assert_allclose(run(rows, x), run(lora, x)[jnp.array([3, 1])], rtol=1e-4)
    columns = gx.take(model, {"part": "in"}, [5, 0, 2]).part
    index = jnp.array([5, 0, 2])
    kept = jnp.zeros(6).at[index].set(1)
    np.testing.assert_allclose(run(columns, x[index]), run(lora, x * kept), rtol=1e-4, atol=1e-5)


def test_taking_from_adapted_convolutions_and_embeddings():
    conv = trained(gx.LoRA(eqx.nn.Conv1d(4, 6, 3, key=KEY), 2, key=KEY))
    x = jax.random.normal(KEY, (4, 7))
    both = gx.take(gx.take(gx.Chain(c=conv), {"c": "out"}, [3, 1]), {"c": "in"}, [2, 0]).c
    kept = jnp.array([1.0, 0, 1, 0])[:, None]
    np.testing.assert_allclose(
        both(x[jnp.array([2, 0])]), conv(x * kept)[jnp.array([3, 1])], rtol=1e-4, atol=1e-4
    )
    word = trained(gx.LoRA(eqx.nn.Embedding(9, 4, key=KEY), 2, key=KEY))
    narrow = gx.take(gx.Chain(w=word), {"w": "out"}, [3, 1]).w
    np.testing.assert_allclose(narrow(jnp.array(5)), word(jnp.array(5))[jnp.array([3, 1])])
    fewer = gx.take(gx.Chain(w=word), {"w": "in"}, [3, 1]).w
    np.testing.assert_allclose(fewer(jnp.array(0)), word(jnp.array(3)))


def test_what_cannot_be_taken_of_an_adapter_is_refused():
    grouped = gx.LoRA(eqx.nn.Conv1d(4, 6, 3, groups=2, key=KEY), 2, key=KEY)
    with pytest.raises(ValueError, match=r"'c'.*merge_lora"):
        gx.take(gx.Chain(c=grouped), {"c": "in"}, [0, 2])
    with pytest.raises(ValueError, match=r"'d'.*of which the rule"):
        gx.take(gx.Chain(d=DoRA(linear(), 2, key=KEY)), {"d": "out"}, [0])
    with pytest.raises(ValueError, match=r"'c.lora_a' alone"):
        gx.take(gx.Chain(c=grouped), {"c.lora_a": 0}, [0])
