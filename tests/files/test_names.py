"""A name is given only if it leads back to the very object; `types` are known by their full names."""

import functools
import re
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import common_named as named
import graftax as gx
from graftax.files.names import Names, full_name, looked_up, name_of, public, public_name


def test_every_public_name_leads_to_what_has_it():
    for name, thing in public().items():
        assert public()[public_name(thing)] is thing, name
        assert name_of(thing) == public_name(thing)


def test_the_table_is_made_once():
    assert public() is public()


def test_no_two_classes_of_graftax_have_one_name():
    own = [name for name in public() if name.startswith("graftax.")]
    classes = {thing for name, thing in public().items() if name.startswith("graftax.")}
    assert len(own) == len(classes) > 20


def test_every_class_of_eqx_nn_and_of_gx_and_its_zoo_is_public():
    for module in (eqx.nn, gx, gx.zoo):
        for name, thing in vars(module).items():
            if isinstance(thing, type) and issubclass(thing, eqx.Module) and name[0] != "_":
                assert public_name(thing) is not None, name


def test_nothing_public_touches_files_or_makes_functions_of_text():
    for name in public():
        assert not re.search(r"load|save|file|eval|exec|import|dlpack|buffer|<", name.lower()), name


PRIVATE = "equinox.nn._weight_norm._norm_except_axis"


def test_the_private_function_that_weight_norm_holds_is_known():
    norm = eqx.nn.WeightNorm(eqx.nn.Linear(2, 2, key=jax.random.key(0)))._norm
    assert name_of(norm.func) == PRIVATE


@pytest.mark.parametrize(
    "thing",
    [
        jax.vmap(jnp.sum),
        jax.jit(jnp.sum),
        named.twice,
        eqx.filter_jit(jnp.sum),
        lambda x: x,
        None,
        3,
    ],
)
def test_what_no_name_leads_to_has_none(thing):
    assert name_of(thing) is None


def test_what_an_object_makes_up_is_not_found():
    class Odd:
        def __getattr__(self, name):
            raise AssertionError("asked")

    odd = Odd()
    named.odd = odd
    try:
        assert looked_up("common_named", "odd") is odd
        assert looked_up("common_named", "odd.anything") is None
    finally:
        del named.odd
    assert looked_up("no.such.module", "x") is None and looked_up(None, "x") is None


def test_types_are_known_by_their_full_names():
    names = Names([named.Block, named.square, np.add])
    assert names.get("common_named.Block") is named.Block and names.get("numpy.add") is np.add
    assert names.get("Block") is None and names.get("elsewhere.Block") is None
    assert names.get(["common_named.Block"]) is None
    assert names.module("common_named.square") is None


def test_a_public_name_means_what_it_does_whatever_is_handed_over():
    fake = lambda x: x
    fake.__module__, fake.__qualname__ = "jax.nn", "relu"
    with pytest.raises(ValueError, match=r"'jax\.nn\.relu'"):
        Names([fake])
    assert Names({"jax.nn.relu": fake}).get("jax.nn.relu") is jax.nn.relu


def test_a_wrapper_is_not_taken_for_what_it_wraps():
    with pytest.raises(ValueError, match=r"calls itself 'common_named\.square'"):
        Names([jax.vmap(named.square)])
    with pytest.raises(TypeError, match="have names"):
        Names([functools.partial(named.square)])
    with pytest.raises(TypeError, match="have names"):
        Names([3])


def test_one_class_is_no_list_of_them():
    with pytest.raises(TypeError, match=r"types=\[Block\]"):
        Names(named.Block)


def test_the_error_names_the_nearest():
    with pytest.raises(
        gx.FormatError, match=r"'common_named\.Blok'.*nearest: 'common_named.Block'"
    ):
        Names([named.Block]).need("common_named.Blok", "a")


def test_full_names_are_of_the_module_and_the_place_in_it():
    assert full_name(named.Outer.Inner) == "common_named.Outer.Inner"


def test_names_of_any_length_and_number_take_no_time():
    names = Names([named.Block, named.square])
    start = time.process_time()
    with pytest.raises(gx.FormatError) as caught:
        names.need("x." * 1_000_000 + "Y", "a")
    assert len(str(caught.value)) < 1000
    for i in range(20_000):
        assert "types=[...]" in names.unknown(f"some.module.Name{i}")
    assert time.process_time() - start < 2
