"""Everything public comes back: layers and models with arguments, and functions as layers."""

import inspect
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from safetensors.numpy import load_file

import graftax as gx
from common_files import same_bits
from common_public import ABSTRACT_OF_EQUINOX, OF_EQUINOX, OF_ZOO, OURS, USES_A_KEY, cheap
from graftax.surgery.state import has_state

EVERYTHING = {
    f"{of}.{name}": make
    for of, made in (("eqx.nn", OF_EQUINOX), ("gx", OURS), ("gx.zoo", OF_ZOO))
    for name, make in made.items()
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_is_public_comes_back(tmp_path, name):
    make = EVERYTHING[name]
    model = cheap(make) if name.startswith("gx.zoo") else make()
    gx.save(tmp_path / "f", model)
    # What is of graftax and Equinox alone needs no types.
    assert {thing.__module__ for thing in gx.types_of(model)} <= {"common_named"}
    loaded = gx.load(tmp_path / "f", gx.types_of(model))
    if has_state(model):
        # Of a state that was never separated, the marker is an object of each model's own.
        model, loaded = (eqx.nn.make_with_state(lambda m=m: m)() for m in (model, loaded))
        gx.save(tmp_path / "f", *model)
    assert same_bits(loaded, model)


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_tensor_is_called_by_its_path(tmp_path, name):
    make = EVERYTHING[name]
    model = cheap(make) if name.startswith("gx.zoo") else make()
    gx.save(tmp_path / "f", model)
    arrays = {path: node for path, node in gx.walk(model) if eqx.is_array(node)}
    stored = load_file(tmp_path / "f")
    assert stored.keys() <= arrays.keys() and len(stored) == len({id(a) for a in arrays.values()})


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
    functions = [thing for name, thing in vars(gx.zoo).items() if name[0] != "_"]
    builders = {
        function.__name__
        for function in functions
        if isinstance(function, types.FunctionType)
        and "key" in inspect.signature(function).parameters
    }
    assert classes_in(gx.zoo) | builders - USES_A_KEY <= OF_ZOO.keys()


FUNCTIONS = {
    f"{name}.{each}": getattr(module, each)
    for name, module in (("jax.nn", jax.nn), ("jnp", jnp), ("gx", gx), ("gx.zoo", gx.zoo))
    for each in dir(module)
    if each[0] != "_" and callable(getattr(module, each))
}


def test_every_public_function_and_class_is_the_very_object_again(tmp_path):
    gx.save(tmp_path / "f", FUNCTIONS)
    loaded = gx.load(tmp_path / "f", gx.types_of(FUNCTIONS))
    assert [name for name in FUNCTIONS if loaded[name] is not FUNCTIONS[name]] == []
    assert len(FUNCTIONS) > 400


def test_functions_of_jax_need_no_types():
    of_jax = {name: fn for name, fn in FUNCTIONS.items() if name.startswith(("jax.nn", "jnp"))}
    refused = {"load", "save", "savez", "fromfile", "frombuffer", "from_dlpack", "frompyfunc"}
    assert {thing.__name__ for thing in gx.types_of(of_jax)} & refused == refused
    activations = {name: fn for name, fn in of_jax.items() if name.startswith("jax.nn")}
    assert gx.types_of(activations) == ()
