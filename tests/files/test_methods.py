"""Bound methods: known from the private parts of Equinox, which one file touches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import common_named as named
import graftax as gx
from common_files import linear
from graftax.files.methods import BOUND, as_method, borrows_a_name, method_of

HOLDER = named.Holder(jnp.ones(2), 1)


def test_equinox_still_makes_a_module_of_a_bound_method_and_none_of_a_magic_one():
    assert isinstance(HOLDER.shifted, BOUND) and issubclass(BOUND, eqx.Module)
    assert HOLDER.shifted.__self__ is HOLDER and HOLDER.shifted.__func__ is named.Holder.shifted
    assert not isinstance(HOLDER.__call__, eqx.Module)


@pytest.mark.parametrize(
    "wrap", [eqx.filter_jit, eqx.filter_vmap, eqx.filter_checkpoint, eqx.filter_grad]
)
def test_equinox_still_gives_its_wrappers_the_name_of_what_they_wrap(wrap):
    assert borrows_a_name(wrap(jnp.sum)) and wrap(jnp.sum).__qualname__ == jnp.sum.__qualname__
    assert borrows_a_name(HOLDER.shifted)


def test_layers_and_partials_have_no_borrowed_name():
    assert not any(
        map(borrows_a_name, (HOLDER, linear(1, 1), eqx.Partial(jnp.sum), gx.Chain(), jnp.sum))
    )


def test_a_method_is_its_module_and_its_name():
    for bound in (HOLDER.shifted, HOLDER.__call__):
        method = as_method(bound)
        assert method.of is HOLDER and getattr(method.of, method.name).__func__ is bound.__func__


def test_what_is_no_method_of_its_module_is_none():
    renamed = lambda self: self
    for odd in (
        jnp.sum,
        [].append,
        renamed.__get__(HOLDER),
        eqx.filter_jit(jnp.sum),
        jax.vmap(jnp.sum),
    ):
        assert as_method(odd) is None


def test_a_property_is_no_method_and_is_not_run():
    assert method_of(HOLDER, "prop") is None and method_of(HOLDER, "seen") is None
    assert method_of(HOLDER, 3) is None and method_of([], "append") is None
    assert method_of(HOLDER, "shifted") is named.Holder.shifted
