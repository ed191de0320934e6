"""LoRA: the layer with `W + alpha / rank * (B @ A)`, transparent to paths."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import graftax as gx
from common_containers import same_arrays, without_annotation_checks
from common_surgery import labelled_model, linear

KEY = jax.random.key(7)


class Bilinear(eqx.Module):
    """A layer of a user's own, with a weight of three axes."""

    weight: jax.Array

    def __call__(self, x):
        return jnp.einsum("oij,i,j->o", self.weight, x, x)


def bilinear():
    return Bilinear(jax.random.normal(KEY, (2, 3, 3)))


def moved(lora):
    """The adapter after some training: `B` no longer zero."""
    return gx.update(
        lora, lora_b=jax.random.normal(jax.random.key(1), lora.lora_b.shape, lora.lora_b.dtype)
    )


def with_change(layer, lora, alpha):
    """By hand: the layer with the changed weight."""
    change = alpha / lora.lora_a.shape[0] * (lora.lora_b @ lora.lora_a)
    where = lambda node: node.weight
    return eqx.tree_at(where, layer, layer.weight + change.reshape(layer.weight.shape))


LAYERS = {
    "linear": (linear(3, 4, 0), jnp.arange(3.0)),
    "linear_without_bias": (eqx.nn.Linear(3, 4, use_bias=False, key=KEY), jnp.arange(3.0)),
    "linear_to_scalar": (eqx.nn.Linear(3, "scalar", key=KEY), jnp.arange(3.0)),
    "linear_from_scalar": (eqx.nn.Linear("scalar", 3, key=KEY), jnp.array(2.0)),
    "conv1d": (eqx.nn.Conv1d(2, 4, 3, key=KEY), jnp.arange(10.0).reshape(2, 5)),
    "conv2d": (eqx.nn.Conv2d(2, 4, 3, stride=2, key=KEY), jnp.arange(50.0).reshape(2, 5, 5) / 50),
    "grouped": (eqx.nn.Conv1d(4, 4, 3, groups=2, key=KEY), jnp.arange(20.0).reshape(4, 5)),
    "transposed": (eqx.nn.ConvTranspose1d(2, 4, 3, key=KEY), jnp.arange(10.0).reshape(2, 5)),
    "embedding": (eqx.nn.Embedding(6, 3, key=KEY), jnp.array(4)),
    "own": (bilinear(), jnp.arange(3.0)),
}


@pytest.mark.parametrize("alpha", [None, 1.0, 8.0])
@pytest.mark.parametrize("name", LAYERS)
def test_lora_is_the_layer_with_a_changed_weight(name, alpha):
    layer, x = LAYERS[name]
    lora = moved(gx.LoRA(layer, rank=2, alpha=alpha, key=KEY))
    expected = with_change(layer, lora, 2 if alpha is None else alpha)(x)
    assert bool(jnp.allclose(lora(x), expected, atol=1e-4))
    assert not bool(jnp.allclose(lora(x), layer(x), atol=1e-2))


@pytest.mark.parametrize("name", LAYERS)
def test_lora_starts_as_the_layer(name):
    layer, x = LAYERS[name]
    assert bool((gx.LoRA(layer, rank=2, key=KEY)(x) == layer(x)).all())


@pytest.mark.parametrize("name", LAYERS)
def test_merging_gives_the_same_function_without_the_adapter(name):
    layer, x = LAYERS[name]
    lora = moved(gx.LoRA(layer, rank=2, alpha=3.0, key=KEY))
    merged = lora.merged()
    assert type(merged) is type(layer)
    assert jax.tree.structure(merged) == jax.tree.structure(layer)
    assert bool(jnp.allclose(merged(x), lora(x), atol=1e-4))


@pytest.mark.parametrize("wrap", [gx.Vmap, gx.Remat, lambda layer: gx.Remat(gx.Vmap(layer))])
def test_lora_around_and_inside_of_wrappers(wrap):
    layer, xs = linear(3, 4, 0), jnp.arange(6.0).reshape(2, 3)
    run = lambda lora: (
        lora(xs) if isinstance(unwrapped(wrap(layer)), gx.Vmap) else jax.vmap(lora)(xs)
    )
    outside = moved(gx.LoRA(wrap(layer), rank=2, alpha=5.0, key=KEY))
    inside = wrap(moved(gx.LoRA(layer, rank=2, alpha=5.0, key=KEY)))
    expected = jax.vmap(with_change(layer, outside, 5.0))(xs)
    for lora in (outside, inside):
        assert bool(jnp.allclose(run(lora), expected, atol=1e-5))
        assert bool(jnp.allclose(eqx.filter_jit(run)(lora), expected, atol=1e-5))


def unwrapped(layer):
    return layer.layer if isinstance(layer, gx.Remat) else layer


def test_a_second_adapter_goes_around_what_the_first_was_merged_into():
    layer, x = linear(3, 4, 0), jnp.ones(3)
    first = moved(gx.LoRA(layer, rank=1, key=KEY))
    with pytest.raises(ValueError, match=r"LoRA would hide 'lora_a' of the LoRA it wraps"):
        gx.LoRA(first, rank=2, key=KEY)
    both = moved(gx.LoRA(first.merged(), rank=2, key=jax.random.key(2)))
    expected = with_change(with_change(layer, first, 1), both, 2)(x)
    assert bool(jnp.allclose(both(x), expected, atol=1e-5))


def test_the_adapter_has_the_dtype_of_the_weight():
    dtype = jnp.bfloat16
    for layer, x in (
        (eqx.nn.Linear(3, 4, dtype=dtype, key=KEY), jnp.ones(3, dtype)),
        (eqx.nn.Embedding(6, 3, dtype=dtype, key=KEY), jnp.array(4)),
    ):
        lora = moved(gx.LoRA(layer, rank=2, key=KEY))
        assert lora.lora_a.dtype == lora.lora_b.dtype == dtype
        assert lora(x).dtype == lora.merged().weight.dtype == dtype
        expected = with_change(layer, lora, 2)(x)
        assert bool(jnp.allclose(lora(x), expected, rtol=0.1, atol=0.1))


def test_cast_around_lora_runs_in_that_precision():
    lora = moved(gx.LoRA(linear(3, 4, 0), rank=2, key=KEY))
    y = gx.Cast(lora, jnp.bfloat16)(jnp.ones(3))
    assert y.dtype == jnp.bfloat16
    assert bool(jnp.allclose(y.astype(jnp.float32), lora(jnp.ones(3)), rtol=0.1, atol=0.1))


# --- Parameters ---


def test_a_is_drawn_within_its_bound_and_b_is_zero():
    lora = gx.LoRA(linear(16, 4, 0), rank=8, key=KEY)
    assert lora.lora_a.shape == (8, 16) and lora.lora_b.shape == (4, 8)
    assert not bool(lora.lora_b.any())
    largest = float(jnp.abs(lora.lora_a).max())
    assert 0.2 < largest <= 0.25  # 1 / sqrt(16)
    assert same_arrays(lora, gx.LoRA(linear(16, 4, 0), rank=8, key=KEY))
    assert not same_arrays(lora, gx.LoRA(linear(16, 4, 0), rank=8, key=jax.random.key(0)))


def test_the_frozen_weight_is_shared_with_the_old_layer():
    layer = linear(3, 4, 0)
    lora = gx.LoRA(layer, rank=2, key=KEY)
    assert lora.weight is layer.weight and lora.bias is layer.bias
    assert lora.in_features == 3


def test_alpha_over_rank_is_the_scale():
    assert gx.LoRA(linear(3, 4, 0), rank=2, alpha=16, key=KEY).scale == 8
    assert gx.LoRA(linear(3, 4, 0), rank=2, key=KEY).scale == 1
    assert gx.LoRA(linear(3, 4, 0), rank=2, alpha=0.0, key=KEY).scale == 0


# --- Paths ---


def adapted_model():
    model = labelled_model()
    return gx.select(model, eqx.nn.Linear).apply(
        lambda layer, key: gx.LoRA(layer, rank=1, key=key), key=KEY
    )


def test_lora_does_not_appear_in_paths():
    paths = [path for path, _ in gx.walk(labelled_model())]
    adapted = [path for path, _ in gx.walk(adapted_model())]
    assert [path for path in adapted if "lora" not in path] == paths
    assert gx.select(adapted_model(), "head.*").paths == (
        "head.weight",
        "head.bias",
        "head.lora_a",
        "head.lora_b",
    )


def test_the_adapters_can_be_selected_merged_and_taken_out():
    model = labelled_model()
    adapted = adapted_model()
    assert gx.select(adapted, gx.LoRA).paths == gx.select(model, eqx.nn.Linear).paths
    x = jnp.ones(3)
    merged = gx.select(adapted, gx.LoRA).apply(lambda lora: lora.merged())
    assert jax.tree.structure(merged) == jax.tree.structure(model)
    assert bool(jnp.allclose(merged(x), model(x), atol=1e-6))
    out = gx.select(adapted, gx.LoRA).apply(lambda lora: lora.layer)
    assert same_arrays(out, model)


def test_the_size_of_the_adapters():
    model = gx.Chain(up=linear(6, 4, 0), down=linear(4, 6, 1))
    adapted = gx.select(model, eqx.nn.Linear).apply(
        lambda layer, key: gx.LoRA(layer, rank=2, key=key), key=KEY
    )
    assert gx.select(adapted, "{lora_a,lora_b}").size == 2 * 2 * (6 + 4)


# --- Training ---


def test_gradients_go_through_the_mask_alone():
    model, x = adapted_model(), jnp.ones(3)
    adapters, frozen = gx.select(model, "{lora_a,lora_b}").partition()
    grads = eqx.filter_grad(lambda adapters: jnp.sum(eqx.combine(adapters, frozen)(x) ** 2))(
        adapters
    )
    assert grads.head.weight is None and grads.stem.bias is None
    assert float(jnp.abs(grads.head.lora_b).sum()) > 0
    # B is zero, and so is the gradient of A, at first.
    assert not bool(grads.head.lora_a.any())


def test_the_gradient_is_that_of_the_changed_weight():
    layer, x = linear(3, 4, 0), jnp.arange(3.0)
    lora = moved(gx.LoRA(layer, rank=2, alpha=6.0, key=KEY))

    def loss(adapters):
        return jnp.sum(gx.update(lora, lora_a=adapters[0], lora_b=adapters[1])(x) ** 2)

    def by_hand(adapters):
        a, b = adapters
        return jnp.sum(((layer.weight + 3 * b @ a) @ x + layer.bias) ** 2)

    pair = (lora.lora_a, lora.lora_b)
    ours, theirs = jax.grad(loss)(pair), jax.grad(by_hand)(pair)
    assert all(jnp.allclose(a, b, rtol=1e-4) for a, b in zip(ours, theirs, strict=True))


def test_optax_trains_the_adapters_and_nothing_else():
    model, x = adapted_model(), jnp.ones(3)
    optimiser = optax.partition(
        {"train": optax.adam(0.01), "frozen": optax.set_to_zero()},
        gx.label_fn({"{lora_a,lora_b}": "train", "**": "frozen"}),
    )
    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        grads = eqx.filter_grad(lambda model: jnp.sum(model(x) ** 2))(model)
        updates, state = optimiser.update(grads, state)
        return eqx.apply_updates(model, updates), state

    trained, state = step(*step(model, state))
    changed = {
        path
        for (path, old), (_, new) in zip(gx.walk(model), gx.walk(trained), strict=True)
        if eqx.is_array(old) and not bool((old == new).all())
    }
    assert changed == set(gx.select(model, "{lora_a,lora_b}").paths)
    loss = lambda model: float(jnp.sum(model(x) ** 2))
    assert loss(trained) < loss(model)


def test_vmap_over_many_adapters_of_one_layer():
    layer, x = linear(3, 4, 0), jnp.ones(3)
    keys = jax.random.split(KEY, 5)
    many = eqx.filter_vmap(lambda key: moved(gx.LoRA(layer, rank=2, key=key)))(keys)
    ys = eqx.filter_vmap(lambda lora: lora(x))(many)
    one = moved(gx.LoRA(layer, rank=2, key=keys[3]))
    assert ys.shape == (5, 4) and bool(jnp.allclose(ys[3], one(x), atol=1e-5))


def test_copies_pickles_and_tree_maps():
    lora = moved(gx.LoRA(linear(3, 4, 0), rank=2, key=KEY))
    for again in (
        copy.deepcopy(lora),
        pickle.loads(pickle.dumps(lora)),
        jax.tree.map(lambda leaf: leaf, lora),
    ):
        assert jax.tree.structure(again) == jax.tree.structure(lora) and same_arrays(again, lora)


def test_the_mode_of_a_layer_inside_stays_reachable():
    model = gx.Chain(drop=eqx.nn.Dropout(0.5), lin=gx.LoRA(linear(3, 4, 0), 2, key=KEY))
    assert eqx.nn.inference_mode(model)(jnp.ones(3)).shape == (4,)


# --- Refusals ---


@pytest.mark.parametrize(
    "layer",
    [jax.nn.relu, eqx.nn.LayerNorm(3), eqx.nn.Dropout(), gx.Chain(a=jnp.sin), gx.Vmap(jnp.sin)],
)
def test_a_layer_without_a_matrix_is_refused(layer):
    message = (
        r"^LoRA needs a layer with a floating-point weight of at least two axes; \w+ has none\.$"
    )
    with pytest.raises(TypeError, match=message):
        gx.LoRA(layer, rank=1, key=KEY)


def test_an_integer_weight_is_refused():
    layer = gx.update(linear(2, 2, 0), weight=jnp.ones((2, 2), jnp.int8))
    with pytest.raises(TypeError, match=r"floating-point weight"):
        gx.LoRA(layer, rank=1, key=KEY)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank):
    with pytest.raises(ValueError, match=rf"^The rank of LoRA must be at least 1; got {rank}.$"):
        gx.LoRA(linear(3, 4, 0), rank=rank, key=KEY)


def test_what_is_no_layer_is_refused():
    with (
        without_annotation_checks(),
        pytest.raises(TypeError, match=r"^LoRA wraps a callable; got 3"),
    ):
        gx.LoRA(3, rank=1, key=KEY)
