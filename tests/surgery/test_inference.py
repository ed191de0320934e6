"""The inference mode that a layer takes on in the model it joins."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_state import norm
from common_surgery import linear
from graftax.surgery.inference import keeps_statistics, mode_of

frozen = eqx.nn.inference_mode


def dropout(inference=False):
    return eqx.nn.Dropout(0.5, inference=inference)


def model(**layers):
    return gx.Chain(lin=linear(3, 3, 0), **layers)


PUT_IN = {
    "insert_after": lambda m, new: gx.select(m, "lin").insert_after(new=new),
    "set": lambda m, new: gx.select(m, "lin").set(gx.Chain(new=new)),
    "apply": lambda m, new: gx.select(m, "lin").apply(lambda _: gx.Chain(new=new)),
    "update": lambda m, new: gx.select(m, "").update(lin=gx.Chain(new=new)),
}


def put_in(how, m, new):
    return gx.select(PUT_IN[how](m, new), "**.new").one()


@pytest.mark.parametrize("how", PUT_IN)
def test_a_dropout_beside_frozen_norms_stays_active(how):
    m = model(a=frozen(norm()), b=gx.Remat(frozen(norm())))
    assert put_in(how, m, dropout()).inference is False
    assert put_in(how, m, dropout(True)).inference is True
    block = put_in(how, m, gx.Chain(norm=norm(), drop=dropout()))
    assert block.norm.inference is True and block.drop.inference is False


@pytest.mark.parametrize("how", PUT_IN)
def test_a_norm_beside_frozen_norms_is_frozen(how):
    assert put_in(how, model(a=frozen(norm())), norm()).inference is True


@pytest.mark.parametrize("how", PUT_IN)
def test_a_model_all_in_inference_mode_gives_it_to_whatever_joins(how):
    for m in (model(a=frozen(norm()), b=dropout(True)), model(b=dropout(True))):
        assert put_in(how, m, dropout()).inference is True
        assert put_in(how, m, norm()).inference is True


@pytest.mark.parametrize("how", PUT_IN)
def test_a_model_in_training_gives_that_mode_too(how):
    for m in (model(a=norm()), model(b=dropout()), model(a=norm(), b=dropout())):
        assert put_in(how, m, dropout(True)).inference is False


@pytest.mark.parametrize("how", PUT_IN)
def test_layers_that_differ_or_have_no_mode_say_nothing(how):
    for m in (model(), model(a=frozen(norm()), b=dropout()), model(a=norm(), b=dropout(True))):
        for mode in (False, True):
            assert put_in(how, m, dropout(mode)).inference is mode


def test_a_dropout_with_a_layer_that_learns_is_active_in_a_published_network_that_is_fine_tuned():
    body = frozen(gx.Chain(lin=linear(3, 3, 0), norm=norm()))
    head = gx.select(body, "norm").insert_after(drop=dropout(), head=linear(3, 2, 1))
    x = jnp.ones(3)
    drawn = [head.drop(x, key=jax.random.key(i)) for i in range(4)]
    assert len({tuple(y.tolist()) for y in drawn}) > 1


class Block(eqx.Module):
    """A layer of a user's own, with a mode, around another with one of its own."""

    inner: eqx.Module
    counts: tuple
    inference: bool


def test_a_mode_is_that_of_statistics_where_they_are_the_layers_own():
    index = eqx.nn.StateIndex(jnp.zeros(()))
    assert keeps_statistics(norm())
    assert keeps_statistics(Block(linear(2, 2, 0), (index,), True))
    assert not keeps_statistics(Block(norm(), (), True))
    assert not keeps_statistics(dropout())
    spectral = eqx.nn.SpectralNorm(linear(2, 2, 0), "weight", key=jax.random.key(0))
    assert keeps_statistics(spectral)


def test_the_mode_of_a_node_is_its_own():
    assert mode_of(norm()) is False and mode_of(frozen(dropout())) is True
    assert mode_of(linear(2, 2, 0)) is None and mode_of(gx.Chain(norm())) is None
    assert mode_of(Block(linear(2, 2, 0), (), 3)) is None
