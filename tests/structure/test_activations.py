"""`activations` looks through what computes just what it holds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx


def model():
    k1, k2 = jax.random.split(jax.random.key(0))
    return gx.Chain(embed=eqx.nn.Embedding(5, 3, key=k1), head=eqx.nn.Linear(3, 5, key=k2))


@pytest.mark.parametrize("wrap", [gx.Remat, lambda m: gx.tie(m, "embed.weight", "head.weight")])
def test_a_wrapper_that_changes_nothing_does_not_hide_the_children(wrap):
    wrapped = wrap(model())
    given = gx.activations(wrapped, jnp.array(2))
    assert list(given) == ["embed", "head"]
    assert (given["embed"] == model().embed.weight[2]).all()
    assert (given["head"] == wrapped(jnp.array(2))).all()


@pytest.mark.parametrize("wrap", [gx.Vmap, lambda m: gx.Cast(m, jnp.bfloat16)])
def test_a_wrapper_that_changes_what_its_layers_see_is_refused(wrap):
    with pytest.raises(TypeError, match=r"takes a Chain, not a (Vmap|Cast)"):
        gx.activations(wrap(model()), jnp.array([2]))
