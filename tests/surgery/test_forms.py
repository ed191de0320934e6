"""`update` gives fields the form their constructors give them, and refuses those that contradict."""

import dataclasses
import functools
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import same_arrays
from common_layers import KEY, LAYERS, conv, stacked
from common_surgery import linear

nn = eqx.nn


@pytest.mark.parametrize("name", LAYERS)
def test_fields_that_are_given_as_they_are_stay_as_they_are(name):
    layer = LAYERS[name]()
    fields = [f.name for f in dataclasses.fields(layer) if not f.name.startswith("_")]
    for field in fields:
        assert same_arrays(gx.update(layer, **{field: getattr(layer, field)}), layer), field
    assert same_arrays(gx.update(layer, **{f: getattr(layer, f) for f in fields}), layer)


@pytest.mark.parametrize("name", LAYERS)
def test_arrays_of_the_same_shapes_change_nothing_else(name):
    layer = LAYERS[name]()
    arrays = {
        f.name: 2 * value
        for f in dataclasses.fields(layer)
        if eqx.is_array(value := getattr(layer, f.name))
    }
    new = gx.update(layer, **arrays)
    assert jax.tree.structure(new) == jax.tree.structure(layer)
    assert all(bool((getattr(new, f) == value).all()) for f, value in arrays.items())


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (conv, {"stride": 2}),
        (conv, {"padding": 1}),
        (conv, {"padding": (1, 2)}),
        (conv, {"padding": "same"}),
        (conv, {"dilation": [2, 1]}),
        (conv, {"padding_mode": "circular", "padding": "same"}),
        (conv, {"stride": 2, "padding": [(1, 0), (0, 1)]}),
        (functools.partial(nn.ConvTranspose1d, 2, 3, 4, key=KEY), {"stride": 2, "padding": 1}),
        (
            functools.partial(nn.ConvTranspose2d, 2, 3, 4, key=KEY),
            {"stride": 3, "output_padding": 1, "dilation": 2},
        ),
        (
            functools.partial(nn.MaxPool2d, kernel_size=2),
            {"kernel_size": 3, "stride": 2, "padding": 1},
        ),
        (functools.partial(nn.AvgPool1d, 2), {"stride": 2, "use_ceil": True}),
        (functools.partial(nn.AvgPool3d, 2), {"padding": (0, 1, 0)}),
        (functools.partial(nn.AdaptiveMaxPool3d, target_shape=2), {"target_shape": 4}),
        (functools.partial(nn.LayerNorm, shape=8), {"shape": 8, "eps": 1e-3}),
    ],
)
def test_the_form_is_that_of_the_constructor(make, fields):
    layer = gx.update(make(), **fields)
    assert same_arrays(layer, functools.partial(make, **fields)())


def test_strided_and_padded_it_computes_what_was_meant():
    layer, x = conv(), jnp.arange(4.0 * 9 * 9).reshape(4, 9, 9)
    strided = gx.update(layer, stride=2, padding=1)
    full = gx.update(layer, padding=1)(x)
    assert full.shape == (8, 9, 9)
    assert bool(jnp.allclose(strided(x), full[:, ::2, ::2], atol=1e-3))


def test_lists_of_layers_and_activations_take_their_forms():
    sequential = gx.update(LAYERS["Sequential"](), layers=[nn.Lambda(jnp.sin)])
    assert sequential.layers == (nn.Lambda(jnp.sin),)
    mlp = LAYERS["MLP"]()
    learning = gx.update(mlp, activation=nn.PReLU(0.1))
    assert learning.activation.negative_slope.shape == (2, 4)
    expected = nn.MLP(2, 3, 4, 2, activation=nn.PReLU(0.1), key=KEY)
    x = jnp.array([-1.0, 2.0])
    assert bool(jnp.allclose(learning(x), expected(x)))
    assert gx.update(mlp, activation=jnp.tanh).activation is jnp.tanh
    assert gx.update(gx.Cast(jnp.tanh, jnp.bfloat16), dtype="float16").dtype == jnp.float16


# --- What follows ---


def test_numbers_become_an_array():
    layer = gx.update(linear(3, 2, 0), bias=[1, 2])
    assert layer.bias.dtype == jnp.float32 and layer.bias.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"of shape \(\), and must be of shape \(2,\)"):
        gx.update(linear(3, 2, 0), bias=0.0)
    mask = jax.tree.map(lambda _: False, linear(3, 2, 0))
    assert gx.update(mask, bias=True).bias is True


# --- What contradicts ---


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (
            LAYERS["Linear"],
            {"out_features": 4},
            r"of shape \(5,\), and must be of shape \(4,\) with out_f",
        ),
        (
            LAYERS["Linear"],
            {"in_features": 4},
            r"of shape \(5, 3\), and must be of shape \(5, 4\) with in_",
        ),
        (
            LAYERS["Linear"],
            {"weight": jnp.ones((6, 3))},
            r"\(5,\), and must be of shape \(6,\) with out_f",
        ),
        (
            LAYERS["Linear"],
            {"bias": jnp.ones(4)},
            r"bias of Linear is of shape \(4,\), and must be of s",
        ),
        (
            LAYERS["Linear"],
            {"bias": jnp.ones((5, 1))},
            r"of shape \(5, 1\), and must be of shape \(5,\)",
        ),
        (
            LAYERS["Linear"],
            {"weight": jnp.ones((6, 3)), "bias": jnp.ones(6), "out_features": 4},
            r"\(6,\), and must be of shape \(4,\) with out_features=4",
        ),
        (
            LAYERS["Linear"],
            {"bias": jnp.ones(5), "use_bias": False},
            r"is of shape \(5,\), and must be None with use_bias=False",
        ),
        (
            lambda: nn.Linear(3, 5, use_bias=False, key=KEY),
            {"use_bias": True},
            r"bias of Linear is None, and must be of shape \(5,\) with use_bias=True",
        ),
        (
            stacked,
            {"weight": jnp.ones((5, 3))},
            r"bias of Linear is of shape \(7, 5\), and must be",
        ),
        (conv, {"groups": 3}, r"There is no Conv2d with groups=3: .*divisible"),
        (conv, {"groups": 2}, r"\(8, 4, 3, 3\), and must be of shape \(8, 2, 3, 3\) with groups=2"),
        (conv, {"kernel_size": 5}, r"must be of shape \(8, 4, 5, 5\) with kernel_size=5"),
        (conv, {"num_spatial_dims": 3}, r"its num_spatial_dims is 2, not 3"),
        (conv, {"padding": "full"}, r"There is no Conv2d with padding='full': "),
        (conv, {"stride": (1, 2, 3)}, r"There is no Conv2d with stride=\(1, 2, 3\): "),
        # A bias of this shape would be added along the wrong axis.
        (conv, {"bias": jnp.ones(8)}, r"of shape \(8,\), and must be of shape \(8, 1, 1\)"),
        (LAYERS["Embedding"], {"num_embeddings": 7}, r"\(6, 4\), and must be of shape \(7, 4\)"),
        (LAYERS["LayerNorm"], {"shape": 3}, r"\(2, 3\), and must be of shape \(3,\) with shape=3"),
        (
            LAYERS["LayerNorm"],
            {"weight": jnp.ones(3)},
            r"bias of LayerNorm is of shape \(2, 3\), and",
        ),
        (LAYERS["GroupNorm"], {"groups": 3}, r"There is no GroupNorm with groups=3"),
        (
            LAYERS["BatchNorm of batches"],
            {"weight": jnp.ones(3), "bias": jnp.ones(3)},
            r"batch_state_index.init.0 of BatchNorm is of shape \(4,\), and must be of shape \(3,\)",
        ),
        (LAYERS["BatchNorm of batches"], {"mode": "ema"}, r"of BatchNorm is None, and must be of"),
        (
            LAYERS["MLP"],
            {"depth": 3},
            r"layers of MLP is of shape \(3,\), and must be of shape \(4,\)",
        ),
        (LAYERS["MLP"], {"width_size": 5}, r"with width_size=5"),
        (LAYERS["LSTMCell"], {"hidden_size": 4}, r"with hidden_size=4"),
        (LAYERS["WeightNorm"], {"axis": 1}, r"g of WeightNorm is of shape \(5, 1\), and must be"),
    ],
)
def test_a_contradiction_is_refused_with_both_sides(make, fields, message):
    with pytest.raises(ValueError, match=message):
        gx.update(make(), **fields)
    with pytest.raises(ValueError, match=rf"^In .* at 'some': .*{message}"):
        gx.select(gx.Chain(some=make(), other=jnp.sin), "some").update(**fields)


def test_how_branches_are_run_is_checked():
    model = gx.Chain(p=gx.Parallel(a=jnp.sin, b=jnp.cos))
    assert gx.select(model, "p").update(execution="scan").p.execution == "scan"
    with pytest.raises(ValueError, match=r"^In Parallel at 'p': .*execution.*'typo'"):
        gx.select(model, "p").update(execution="typo")
    with pytest.raises(ValueError, match=r"init"):
        gx.update(gx.Parallel(a=jnp.sin, op=operator.add, init=0.0), op=sum)


# --- What is left alone ---


def test_a_layer_that_was_made_in_its_own_way_can_still_be_updated():
    odd = eqx.tree_at(lambda layer: layer.weight, linear(3, 5, 0), jnp.ones((6, 3)))
    new = gx.update(odd, bias=jnp.ones(6))
    assert new.bias.shape == (6,) and new.out_features == 6
    assert gx.update(odd, in_features=3) is not odd


def test_constructors_of_others_are_not_run():
    class Own(eqx.nn.Linear):
        def __init__(self, size):
            super().__init__(size, size, key=KEY)
            self.bias = None

    class Described(eqx.nn.Linear):
        """The constructor of Linear, with a class of its own."""

    new = gx.update(Own(3), out_features=7)
    assert new.out_features == 7
    with pytest.raises(ValueError, match=r"of Linear"):
        gx.update(Described(3, 5, key=KEY), out_features=7)
    assert type(gx.update(Described(3, 5, key=KEY), bias=None)) is Described


def test_holes_of_a_partition_are_no_contradiction():
    layer = linear(3, 5, 0)
    selected, rest = gx.select(layer, "weight").partition()
    assert gx.update(selected, weight=2 * layer.weight).bias is None
    assert gx.update(rest, bias=2 * layer.bias).weight is None


def test_under_jit_vmap_and_grad_it_is_as_outside():
    layer = conv()

    @jax.jit
    def run(bias):
        return gx.update(layer, stride=2, bias=bias)(jnp.ones((4, 5, 5)))

    assert bool(
        jnp.allclose(run(layer.bias), gx.update(layer, stride=2)(jnp.ones((4, 5, 5))), atol=1e-5)
    )
    make = eqx.filter_vmap(lambda w: gx.update(linear(3, 5, 0), weight=w))
    assert make(jnp.ones((7, 5, 3))).weight.shape == (7, 5, 3)
    grad = jax.grad(lambda b: gx.update(linear(3, 5, 0), bias=b)(jnp.ones(3)).sum())(jnp.ones(5))
    assert bool((grad == 1).all())


def test_arrays_that_are_only_described_say_sizes_too():
    layer = eqx.filter_eval_shape(lambda: linear(3, 5, 0))
    shape = jax.ShapeDtypeStruct
    new = gx.update(layer, weight=shape((6, 3), jnp.float32), bias=shape((6,), jnp.float32))
    assert new.out_features == 6


def test_layers_inside_wrappers_have_their_forms_too():
    assert gx.update(gx.Remat(conv()), stride=2).stride == (2, 2)
    with pytest.raises(ValueError, match=r"of Conv2d"):
        gx.update(gx.Vmap(gx.Remat(conv())), groups=2)
