"""What a model may be given as input, and what can be a layer in it."""

import functools
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_calling import tally

KEY = jax.random.key(7)
X = jnp.arange(4.0)

# --- Inputs ---


def test_several_positional_inputs_travel_as_one_tuple():
    pair = (X, 2 * X)
    assert gx.Chain(lambda x: x)(*pair) == pair
    assert gx.Chain()(*pair) == pair
    assert jnp.array_equal(gx.Chain(operator.itemgetter(1), jnp.negative)(*pair), -2 * X)
    for model in (
        gx.Parallel(jnp.negative, jnp.sin),
        gx.PairwiseFusion(jnp.negative, jnp.sin),
    ):
        assert eqx.tree_equal(model(*pair), model(pair))


def test_a_wrapper_passes_several_positional_inputs_on_as_it_got_them():
    for wrap in (gx.Wrapper, gx.Vmap, gx.Remat, lambda f: gx.Cast(f, jnp.float32), gx.Then):
        x = jnp.stack([X, 2 * X])
        assert jnp.array_equal(wrap(lambda x, y: x * y)(x, 3 * x), x * 3 * x)
        assert jnp.array_equal(wrap(wrap(lambda x, y: x * y))(x, 3 * x), x * 3 * x)
    chain = gx.Chain(first=operator.itemgetter(0))
    assert jnp.array_equal(gx.Remat(chain)(X, 2 * X), X)
    q = k = v = jnp.arange(12.0).reshape(3, 4)
    attention = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))
    assert jnp.allclose(gx.Remat(attention)(q, k, v), attention(q, k, v))


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
    assert jnp.allclose(value, value_by_hand, atol=1e-6)
    assert jnp.allclose(gradient, gradient_by_hand, atol=1e-6)


def test_a_bound_method_of_a_module_keeps_its_parameters_in_the_model():
    model = gx.Chain(scale=MODULE.method)
    gradient = eqx.filter_grad(lambda m: m(X).sum())(model)
    assert jax.tree.leaves(gradient) == [X.sum()]


def test_equinox_still_makes_a_module_by_the_call_of_its_metaclass():
    meta = type(eqx.Module)
    assert (
        issubclass(meta, type) and type(gx.Chain) is not meta and issubclass(type(gx.Chain), meta)
    )
    # Its own first argument is called `cls`, and a label may be: that is why the call is ours.
    assert gx.Chain(cls=abs).labels == ("cls",)
    with pytest.raises(TypeError, match="cls"):
        type(eqx.nn.Identity).__call__(eqx.nn.Identity, cls=1)
