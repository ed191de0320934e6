"""Models with state, trained a little, and what to ask of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import graftax as gx
from common_surgery import linear

WIDTH = 3


def norm(mode="batch"):
    return eqx.nn.BatchNorm(WIDTH, axis_name="batch", mode=mode)


def net(seed=0, mode="batch"):
    return gx.Chain(lin=linear(WIDTH, WIDTH, seed), norm=norm(mode), out=linear(WIDTH, 2, seed + 1))


def built(seed=0, mode="batch"):
    return eqx.nn.make_with_state(net)(seed, mode)


def batch(seed):
    return jax.random.normal(jax.random.key(seed), (8, WIDTH)) + seed


def run(model, state, x):
    over_batch = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    return over_batch(x, state)


@eqx.filter_jit
def train_step(model, state, x):
    """One step of gradient descent: what comes out of JAX, statistics included."""

    def loss(model, state):
        y, state = run(model, state, x)
        return jnp.mean(y**2), state

    grads, state = eqx.filter_grad(loss, has_aux=True)(model, state)
    updates, _ = optax.sgd(0.1).update(grads, optax.sgd(0.1).init(grads))
    return eqx.apply_updates(model, updates), state


def trained(seed, mode="batch"):
    model, state = built(seed, mode)
    for i in range(2):
        model, state = train_step(model, state, batch(10 * seed + i))
    return model, state


def markers(tree):
    found = gx.select(tree, eqx.nn.StateIndex)
    return [index.marker for index in found]


def statistics(layer, state):
    if layer.mode == "ema":
        return state.get(layer.ema_state_index), state.get(layer.ema_first_time_index)
    return state.get(layer.batch_state_index), state.get(layer.batch_counter)


def scaled(tree, factor):
    return jax.tree.map(lambda leaf: factor * leaf if eqx.is_inexact_array(leaf) else leaf, tree)


INITIAL = ((jnp.zeros(WIDTH), jnp.ones(WIDTH)), jnp.array(0))
