"""Models that are pickled, and the script that reads them back in a process of its own."""

import operator
import pickle
import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import graftax as gx
from common_containers import AWKWARD_LABELS, Affine, Bottleneck, Stem, linear


def _stem() -> gx.Chain:
    return gx.Chain(Stem(eqx.nn.Conv2d(1, 4, 3, key=jax.random.key(0)), eqx.nn.GroupNorm(2, 4)))


def _nested() -> gx.Chain:
    attention = gx.Parallel(
        query=linear(2, 3), key=linear(2, 3, 1), value=linear(2, 3, 2), op=jnp.add
    )
    block = Bottleneck(up=linear(3, 4), act=jax.nn.relu, down=linear(4, 3), shortcut=gx.Chain())
    return gx.Chain(
        embed=linear(2, 2),
        attention=attention,
        block=block,
        again=gx.Repeat(inner=linear(3, 3), times=2),
        act=jnp.tanh,
    )


def _batch_norm() -> tuple[gx.Chain, eqx.nn.State]:
    make = eqx.nn.make_with_state(gx.Chain)
    return make(norm=eqx.nn.BatchNorm(2, "batch", mode="batch"), head=linear(2, 2))


MODELS: dict[str, Callable[[], Any]] = {
    "empty": gx.Chain,
    "positional": lambda: gx.Chain(linear(2, 3), jnp.tanh, linear(3, 2)),
    "labelled": lambda: gx.Chain(up=linear(2, 3), act=jax.nn.relu, down=linear(3, 2)),
    "labels out of order": lambda: gx.Chain(z=linear(2, 2), a=linear(2, 2, 1), m=operator.neg),
    "awkward labels": lambda: gx.Chain(
        {label: Affine(1, i) for i, label in enumerate(AWKWARD_LABELS)}
    ),
    "named tuple": _stem,
    "typed block": lambda: Bottleneck(a=linear(2, 2), shortcut=jnp.sin, op=operator.sub),
    "parallel": lambda: gx.Parallel(
        a=linear(2, 2), b=linear(2, 2, 1), op=jnp.multiply, init=jnp.ones(2)
    ),
    "branch": lambda: gx.branch(sum, a=linear(2, 2), b=linear(2, 2, 1), execution="vmap"),
    "fusion": lambda: gx.PairwiseFusion(a=linear(2, 2), b=linear(2, 2, 1), op=jnp.maximum),
    "repeat": lambda: gx.Repeat(a=linear(2, 2), times=3),
    "wrappers": lambda: gx.Chain(
        a=gx.Vmap(gx.Remat(linear(2, 2)), axis_name="i"), b=gx.Cast(jnp.tanh, jnp.bfloat16)
    ),
    "nested": _nested,
    "state": _batch_norm,
    "low precision": lambda: gx.Chain(a=linear(2, 2, dtype=jnp.bfloat16), b=jax.nn.silu),
    "partial": lambda: gx.Chain(a=linear(2, 2), b=jax.tree_util.Partial(jnp.add, jnp.ones(2))),
    "inside foreign modules": lambda: gx.Chain(
        a=eqx.nn.Sequential([gx.Chain(b=linear(2, 2)), eqx.nn.Lambda(jax.nn.silu)])
    ),
    "in a dict": lambda: {"model": gx.Chain(a=linear(2, 2), act=jnp.tanh), "step": 3},
}


def output(name: str, model: Any) -> Any:
    """What a model computes, to compare across processes; for few models, as it is compiled anew."""
    if name == "state":
        model, state = model
        run = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return run(jnp.arange(6.0).reshape(3, 2), state)
    if name == "awkward labels":
        return model(3)
    return model(jnp.arange(2.0)) if name in ("labelled", "nested") else ()


def _main(source: str, target: str) -> None:
    with open(source, "rb") as file:
        # Read before anything else is built, so that no class of labels is there already.
        read = pickle.load(file)
    report = {}
    for name, model in read.items():
        built = MODELS[name]()
        report[name] = {
            "same structure": jax.tree.structure(model) == jax.tree.structure(built),
            "same hash": hash(jax.tree.structure(model)) == hash(jax.tree.structure(built)),
            "equal": bool(eqx.tree_equal(model, built, typematch=True)),
            "output": jax.tree.leaves(output(name, model)),
            "model": model,
        }
    with open(target, "wb") as file:
        pickle.dump(report, file)


if __name__ == "__main__":
    _main(*sys.argv[1:])
