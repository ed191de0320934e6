"""How long graftax takes next to its peers: `make bench`.

Every ratio is of two medians, taken by turns in one process. The tree is the same for all peers.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from models import WIDTH, as_parts, by_hand, encoder, linear
from penzai import pz
from timing import Case, print_table

import graftax as gx

SIZES = (100, 1_000, 10_000)


def edits(size: int, model: gx.Chain) -> Iterator[Case]:
    """Finding and replacing, in a model of so many leaves."""
    leaves = f"{size:,} leaves"
    new = linear()

    def another(_: Any) -> eqx.nn.Linear:
        return new

    yield Case(
        'replace one node: "encoder.3.mlp.up"',
        leaves,
        lambda: gx.select(model, "encoder.3.mlp.up").set(new),
        lambda: eqx.tree_at(lambda m: m.encoder[3].mlp.up, model, new),
        "eqx.tree_at",
        goal=0.01 if size == max(SIZES) else None,
    )
    yield Case(
        "replace all Linear layers, by type",
        leaves,
        lambda: gx.select(model, eqx.nn.Linear).apply(another),
        lambda: pz.select(model).at_instances_of(eqx.nn.Linear).apply(another),
        "Penzai",
        goal=0.7,
    )
    yield Case(
        'replace all weights: "encoder.**.weight"',
        leaves,
        lambda: gx.select(model, "encoder.**.weight").apply(lambda _: new.weight),
        lambda: (
            pz.select(model.encoder)
            .at_subtrees_where(lambda path, _: _is_weight(path), with_keypath=True)
            .apply(lambda _: new.weight)
        ),
        "Penzai",
    )
    yield Case(
        "walk: every node and its path",
        leaves,
        lambda: list(gx.walk(model)),
        lambda: [
            (jax.tree_util.keystr(path), leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(model)
        ],
        "JAX, leaves only",
    )
    yield Case(
        "build the containers around given layers",
        leaves,
        lambda: as_parts(model),
        lambda: by_hand(model),
        "by hand",
    )


def _is_weight(path: Any) -> bool:
    return bool(path) and getattr(path[-1], "name", None) == "weight"


def flatness(small: gx.Chain, large: gx.Chain) -> Case:
    """The cost of a full path in a large model over its cost in a small one."""
    new = linear()
    return Case(
        'replace one node: "encoder.3.mlp.up"',
        f"{max(SIZES):,} leaves",
        lambda: gx.select(large, "encoder.3.mlp.up").set(new),
        lambda: gx.select(small, "encoder.3.mlp.up").set(new),
        f"itself, {min(SIZES):,} leaves",
        goal=2,
    )


def flattening() -> Iterator[Case]:
    """One container through JAX and back, as in every call of a jitted function."""
    layers = dict.fromkeys(("stem", "stage1", "stage2", "stage3", "norm", "head"), jax.nn.relu)
    sequential = eqx.nn.Sequential(list(layers.values()))
    for kind, chain in (("labels", gx.Chain(layers)), ("positions", gx.Chain(*layers.values()))):
        yield Case(
            "flatten and unflatten one container",
            f"6 {kind}",
            lambda chain=chain: _there_and_back(chain),
            lambda: _there_and_back(sequential),
            "eqx.nn.Sequential",
            goal=1,
        )


def _there_and_back(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, leaves)


def tracing() -> Case:
    """What a first call of a jitted function pays for the containers, before XLA compiles it."""
    model = encoder(64 * 20)
    hand, x = by_hand(model), jnp.ones(WIDTH)
    return Case(
        "trace a model",
        "64 blocks",
        lambda: jax.make_jaxpr(lambda x: model(x))(x),
        lambda: jax.make_jaxpr(lambda x: hand(x))(x),
        "by hand, a loop",
        goal=1.3,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row (default: 2)")
    seconds = parser.parse_args().seconds
    models = {size: encoder(size) for size in SIZES}
    by_size = [edits(size, model) for size, model in models.items()]
    cases = [case for same_task in zip(*by_size, strict=True) for case in same_task]
    cases += [flatness(models[min(SIZES)], models[max(SIZES)]), *flattening(), tracing()]
    print_table("Medians, measured by turns; ratio = graftax / peer", cases, seconds)


if __name__ == "__main__":
    main()
