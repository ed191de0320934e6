"""What a callable declares: its keywords, its inputs, and whether it is an operation of two."""

import functools
import gc
import inspect
import operator
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from graftax.structure.signature import is_binary, signature_of


class Layer(eqx.Module):
    weight: jax.Array

    def __call__(self, x, bias, *, mask=None, key):
        return self.weight * x + bias

    def method(self, x, *, mask=None):
        return x

    @eqx.filter_jit
    def jitted(self, x, *, mask=None):
        return x

    @jax.named_scope("scope")
    def scoped(self, x, *, mask=None):
        return x


class Jitted(eqx.Module):
    @eqx.filter_jit
    def __call__(self, x, *, mask=None):
        return x


class Plain:
    def __call__(self, x, *, mask=None):
        return x


class Unhashable(Plain):
    __hash__ = None


class NoReference(Plain):
    __slots__ = ()


def masked(x, *, mask=None):
    return x


LAYER = Layer(jnp.ones(()))
ONLY_MASK = {
    "function": masked,
    "lambda": lambda x, mask=None: x,
    "positional only input": lambda x, /, *, mask: x,
    "partial": functools.partial(lambda shift, x, *, mask: x, 1),
    "partial that sets it": functools.partial(masked, mask=1),
    "tree_util.Partial": jax.tree_util.Partial(masked),
    "eqx.Partial": eqx.Partial(lambda shift, x, *, mask: x, 1),
    "jit": jax.jit(masked),
    "filter_jit": eqx.filter_jit(masked),
    "filter_checkpoint": eqx.filter_checkpoint(masked),
    "vmap": jax.vmap(masked),
    "custom_jvp": jax.custom_jvp(masked),
    "method": LAYER.method,
    "jitted method": LAYER.jitted,
    "scoped method": LAYER.scoped,
    "method of a plain class": Plain().__call__,
    "jitted layer": Jitted(),
    "plain class": Plain(),
    "unhashable": Unhashable(),
    "no weak reference": NoReference(),
    "jit of jit of a partial": jax.jit(eqx.filter_jit(functools.partial(masked))),
}


@pytest.mark.parametrize("name", ONLY_MASK)
def test_the_keywords_are_those_behind_every_kind_of_wrapping(name):
    for _ in range(2):  # the second time it may come from the memo
        signature = signature_of(ONLY_MASK[name])
        assert signature.keywords == {"mask"}
        assert signature.takes("mask") and not signature.takes("key")
        assert signature.inputs == 1
        assert not signature.any_keyword


def test_a_layer_declares_what_its_call_declares():
    signature = signature_of(LAYER)
    assert signature.keywords == {"bias", "mask", "key"}
    assert signature.required == {"bias", "key"}
    assert signature.positional == ("x", "bias")
    assert signature.inputs == 2
    linear = signature_of(eqx.nn.Linear(2, 2, key=jax.random.key(0)))
    assert linear.keywords == {"key"} and linear.required == frozenset() and linear.inputs == 1


def test_layers_of_one_class_share_one_signature_and_other_classes_do_not():
    assert signature_of(LAYER) is signature_of(Layer(jnp.zeros(3)))
    assert signature_of(LAYER) is not signature_of(Jitted())


def test_an_input_is_no_keyword():
    signature = signature_of(lambda query, key, *, mask: query)
    assert signature.takes("key") and not signature.takes("key", inputs=2)
    assert not signature.takes("query") and not signature.takes("query", inputs=2)
    assert signature.takes("mask", inputs=2)
    anything = signature_of(lambda query, key, **keywords: query)
    assert anything.takes("other", inputs=2) and not anything.takes("key", inputs=2)


def test_var_keywords_take_everything():
    signature = signature_of(lambda x, **keywords: x)
    assert signature.any_keyword and signature.takes("mask") and signature.keywords == frozenset()


def test_filter_vmap_takes_no_keyword_whatever_it_wraps():
    signature = signature_of(eqx.filter_vmap(lambda x, *, mask=None, **rest: x))
    assert not signature.takes("mask") and not signature.takes("other")


def test_a_container_takes_every_keyword_by_its_call():
    assert signature_of(gx.Chain()).takes("mask")
    assert signature_of(gx.Wrapper(jnp.tanh)).takes("mask")


@pytest.mark.parametrize("function", [max, min, type("C", (), {"__call__": max})()])
def test_a_callable_without_a_readable_signature_takes_one_input_and_no_keyword(function):
    signature = signature_of(function)
    assert not signature.takes("key")
    assert not signature.any_keyword


def test_the_memo_keeps_no_function_alive():
    function = lambda x, *, mask: x
    reference = weakref.ref(function)
    signature_of(function)
    del function
    gc.collect()
    assert reference() is None


class OpOfTwo(eqx.Module):
    def __call__(self, a, b, *, key=None):
        return a + b


class OpOfOne(eqx.Module):
    nin: int = 2

    def __call__(self, outputs, *, mask=None, key=None):
        return outputs


class StatefulOp(eqx.Module):
    def __call__(self, outputs, state):
        return outputs, state


BINARY = {
    "operator": operator.add,
    "jnp.multiply": jnp.multiply,
    "jnp.maximum": jnp.maximum,
    "jnp.logaddexp": jnp.logaddexp,
    "np.add": np.add,
    "jit": jax.jit(jnp.add),
    "filter_jit": eqx.filter_jit(lambda a, b: a),
    "lambda": lambda a, b: a,
    "with defaults": lambda a, b, scale=1.0: a,
    "partial": functools.partial(lambda scale, a, b: a, 1.0),
    "layer": OpOfTwo(),
    "keyword only besides": lambda a, b, *, mask: a,
    "attention scores": lambda query, key: query @ key,
}
NOT_BINARY = {
    "sum": sum,
    "tuple": tuple,
    "max": max,
    "concatenate": jnp.concatenate,
    "partial of concatenate": functools.partial(jnp.concatenate, axis=-1),
    "stack": jnp.stack,
    "one": lambda outputs: outputs,
    "one and a default": lambda outputs, axis=0: outputs,
    "three": lambda a, b, c: a,
    "var positional": lambda *outputs: outputs,
    "layer with a field called nin": OpOfOne(),
    "layer with a state": StatefulOp(),
    "container": gx.Chain(),
    "wrapper": gx.Remat(OpOfOne()),
    "jnp.sin": jnp.sin,
    "np.sin": np.sin,
}


@pytest.mark.parametrize("name", BINARY)
def test_a_function_of_exactly_two_required_arguments_is_binary(name):
    assert is_binary(BINARY[name])


@pytest.mark.parametrize("name", NOT_BINARY)
def test_any_other_function_is_not_binary(name):
    assert not is_binary(NOT_BINARY[name])


# --- What this file knows of Equinox beyond its documentation ---


def test_equinox_still_makes_one_class_for_all_that_filter_vmap_wraps():
    cls = type(eqx.filter_vmap(abs))
    assert type(eqx.filter_vmap(jnp.tanh)) is cls
    assert type(eqx.filter_jit(abs)) is not cls and type(eqx.filter_checkpoint(abs)) is not cls


@pytest.mark.parametrize(
    "wrap", [eqx.filter_vmap, eqx.filter_jit, eqx.filter_grad, eqx.filter_checkpoint]
)
def test_equinox_still_keeps_what_it_wraps_under_the_class_of_the_wrapping(wrap):
    def inside(x, *, mask):
        return x

    wrapped = wrap(inside)
    found = type(wrapped).__wrapped__.__get__(wrapped)
    assert inspect.unwrap(found) is inside
