"""The small layers: each against its formula."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_zoo import close
from graftax.zoo import DropPath, Take
from graftax.zoo.layers import QuickGELU

KEY = jax.random.key(0)


@pytest.mark.parametrize("index", [0, 2, -1, -3])
def test_take_is_one_element(index):
    x = jnp.arange(6.0).reshape(3, 2)
    assert (Take(index)(x) == x[index]).all()


@pytest.mark.parametrize(("index", "length"), [(3, 3), (-4, 3), (0, 0), (1, 1)])
def test_an_element_that_is_not_there_is_refused_and_not_the_nearest_one(index, length):
    with pytest.raises(ValueError, match=rf"Take\({index}\) was given a sequence of {length}"):
        Take(index)(jnp.ones((length, 2)))


def test_the_quick_gelu_is_its_formula():
    x = np.linspace(-3, 3, 7)
    close(QuickGELU()(jnp.asarray(x)), x / (1 + np.exp(-1.702 * x)))


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9])
def test_a_path_is_dropped_as_a_whole_as_often_as_said_and_scaled_so_that_the_mean_stays(p):
    layer = DropPath(p)
    x = jax.random.normal(KEY, (3, 4))
    keys = jax.random.split(KEY, 20_000)
    found = np.asarray(jax.vmap(lambda key: layer(x, key=key))(keys))
    is_dropped = (found == 0).all((1, 2))
    # What is not dropped is all there, and scaled.
    close(found[~is_dropped], np.broadcast_to(x / (1 - p), found[~is_dropped].shape))
    assert abs(is_dropped.mean() - p) < 4 * (p * (1 - p) / 20_000) ** 0.5 + 1e-9
    close(found.mean(0), x, 0.1)


def test_a_path_is_whole_in_inference_and_needs_a_key_in_training():
    x = jnp.ones(3)
    assert (eqx.nn.inference_mode(DropPath(0.5))(x) == x).all()
    assert (DropPath(0.5)(x, inference=True) == x).all()
    assert DropPath(0.5)(x.astype(jnp.bfloat16), key=KEY).dtype == jnp.bfloat16
    with pytest.raises(RuntimeError, match="requires a key"):
        DropPath(0.5)(x)


def test_a_dropped_path_is_a_dropout_to_those_who_look_for_one():
    model = gx.SkipConnection(double=lambda x: 2 * x, drop_path=DropPath(0.5))
    (layer,) = gx.select(model, eqx.nn.Dropout).nodes
    assert type(layer) is DropPath
    x = jnp.ones(4)
    found = {tuple(model(x, key=key).tolist()) for key in jax.random.split(KEY, 20)}
    assert found == {(1.0,) * 4, (5.0,) * 4}
