"""Everything public comes back: layers and models with arguments, and functions as layers."""

import inspect
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_files import same_bits
from common_public import ABSTRACT_OF_EQUINOX, NO_MODEL_OF_ZOO, OF_EQUINOX, OF_ZOO, OURS
from graftax.surgery.state import has_state

EVERYTHING = {
    f"{of}.{name}": make
    for of, made in (("eqx.nn", OF_EQUINOX), ("gx", OURS), ("gx.zoo", OF_ZOO))
    for name, make in made.items()
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_is_public_comes_back(tmp_path, name):
    model = EVERYTHING[name]()
    gx.save(tmp_path / "f", model)
    loaded = gx.load(tmp_path / "f", gx.types_of(model))
    if has_state(model):
        # Of a state that was never separated, the marker is an object of each model's own.
        model, loaded = (eqx.nn.make_with_state(lambda m=m: m)() for m in (model, loaded))
        gx.save(tmp_path / "f", *model)
    assert same_bits(loaded, model)


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_is_of_graftax_and_equinox_alone_needs_no_types(name):
    made = {thing.__module__ for thing in gx.types_of(EVERYTHING[name]())}
    assert made <= {"common_named"}


def classes_in(module):
    return {
        name
        for name, thing in vars(module).items()
        if isinstance(thing, type) and issubclass(thing, eqx.Module) and name[0] != "_"
    }


def test_no_layer_of_equinox_is_left_out():
    assert OF_EQUINOX.keys() == classes_in(eqx.nn) - ABSTRACT_OF_EQUINOX


def test_no_layer_of_graftax_is_left_out():
    concrete = {name for name in classes_in(gx) if not inspect.isabstract(getattr(gx, name))}
    assert concrete <= OURS.keys()


def test_no_layer_and_no_builder_of_the_zoo_is_left_out():
    public = {
        name
        for name, thing in vars(gx.zoo).items()
        if name[0] != "_" and callable(thing) and not isinstance(thing, types.ModuleType)
    }
    assert OF_ZOO.keys() == public - NO_MODEL_OF_ZOO


FUNCTIONS = {
    f"{name}.{each}": getattr(module, each)
    for name, module in (("jax.nn", jax.nn), ("jnp", jnp), ("gx", gx), ("gx.zoo", gx.zoo))
    for each in dir(module)
    if each[0] != "_" and callable(getattr(module, each))
}


def test_every_public_function_and_class_is_the_very_object_again(tmp_path):
    # What JAX keeps private under a public name, no name leads to: it is refused, not changed.
    refused = []
    for name, function in FUNCTIONS.items():
        try:
            gx.save(tmp_path / "f", {"a": function})
        except gx.UnsavableError:
            refused.append(name)
            continue
        assert gx.load(tmp_path / "f", gx.types_of({"a": function}))["a"] is function, name
    assert refused == []
    assert len(FUNCTIONS) > 400


def test_activations_need_no_types():
    assert all(
        gx.types_of(getattr(jax.nn, name)) == ()
        for name in dir(jax.nn)
        if callable(getattr(jax.nn, name)) and name[0] != "_"
    )
