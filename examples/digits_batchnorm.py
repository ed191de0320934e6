"""A network whose layers keep a state: train it, then graft one more stateful block into it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from digits import WIDTH, Data, Row, bottleneck, build, draw, load, table, tracked
from jaxtyping import Array, Float
from rich.console import Console

import graftax as gx

State = eqx.nn.State


def with_batchnorm(model):
    """Every GroupNorm becomes a BatchNorm."""
    norm = partial(eqx.nn.BatchNorm, axis_name="batch", mode="batch")
    return model.replace_where(eqx.nn.GroupNorm, lambda old: norm(old.channels))


def graft(model, state, key):
    """One more block, at first the identity: the weight of its last norm is zero."""
    block = with_batchnorm(bottleneck(2 * WIDTH, key))
    block = gx.select(block, "expand.norm.weight").apply(jnp.zeros_like)
    model = gx.select(model, "stage2").insert_after(stage3=block)
    state = gx.extend_state(state, model)
    return eqx.nn.delete_init_state(model), state


def train_only(model, where):
    """The rest in inference mode: it keeps its weights, and its running statistics too."""
    model = eqx.nn.inference_mode(model)
    return gx.select(model, where).apply(partial(eqx.nn.inference_mode, value=False))


@eqx.filter_jit
def accuracy(model: Callable, state: State, data: Data) -> Float[Array, ""]:
    """The part of the images that the model classifies correctly, with its running statistics."""
    model = gx.Vmap(eqx.nn.inference_mode(model), axis_name="batch")
    logits, _ = model(data.images, state)
    return jnp.mean(jnp.argmax(logits, axis=1) == data.labels)


def loss(params: Any, rest: Any, state: State, batch: Data) -> tuple[Float[Array, ""], State]:
    """The mean cross-entropy, and the state after this batch."""
    model = gx.Vmap(eqx.combine(params, rest), axis_name="batch")
    logits, state = model(batch.images, state)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    return losses.mean(), state


def fit(
    selection: gx.Selection, state: State, data: Data, steps: int, track: Callable = range
) -> tuple[Any, State]:
    """The model, trained in what is selected, and its state."""
    params, rest = eqx.partition(selection.model, selection.mask())
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    opt_state = optimiser.init(params)

    @eqx.filter_jit
    def step(params, rest, state, opt_state, data, key):
        grads, state = eqx.filter_grad(loss, has_aux=True)(params, rest, state, draw(data, key))
        updates, opt_state = optimiser.update(grads, opt_state)
        return eqx.apply_updates(params, updates), state, opt_state

    for i in track(steps):
        key = jax.random.fold_in(jax.random.key(1), i)
        params, state, opt_state = step(params, rest, state, opt_state, data, key)
    return eqx.combine(params, rest), state


def main() -> None:
    console = Console(highlight=False)
    key, graft_key = jax.random.split(jax.random.key(0))
    train, test = load()
    rows = []

    def run(operation: str, model: Any, state: State, where: Any, steps: int) -> tuple[Any, State]:
        selection = gx.select(model, where, eqx.is_inexact_array)
        at_once = float(accuracy(model, state, test))
        track = partial(tracked, title=operation, console=console)
        model, state = fit(selection, state, train, steps, track)
        size = gx.select(model, eqx.is_inexact_array).size
        trained = float(accuracy(model, state, test))
        rows.append(Row(operation, at_once, trained, size, selection.size))
        return model, state

    model, state = eqx.nn.make_with_state(lambda key: with_batchnorm(build(key)))(key)
    model, state = run("ten digits", model, state, "**", 500)
    model, state = graft(model, state, graft_key)
    model, state = run("stage3 grafted", train_only(model, "stage3"), state, "stage3.**", 200)
    console.print(table(rows))


if __name__ == "__main__":
    main()
