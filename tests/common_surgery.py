"""What tests of surgery share: one labelled model, foreign trees, and the identity of arrays."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import graftax as gx


class Bottleneck(gx.SkipConnection):
    """A block with a type of its own."""


class Mixer(eqx.Module):
    """A user's module with lists and dicts in it, and a field that is no layer."""

    layers: list
    heads: dict[str, Any]
    scale: jax.Array
    name: str = eqx.field(static=True)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return {name: self.scale * head(x) for name, head in self.heads.items()}


class Point(NamedTuple):
    x: Any
    y: Any


def linear(n_in: int, n_out: int, seed: int) -> eqx.nn.Linear:
    return eqx.nn.Linear(n_in, n_out, key=jax.random.key(seed))


def labelled_model(blocks: int = 2) -> gx.Chain:
    """stem, a body of bottlenecks by position, a Parallel, a wrapped layer, head."""
    return gx.Chain(
        stem=linear(3, 4, 0),
        body=gx.Chain(
            *(
                Bottleneck(
                    down=linear(4, 2, 2 * i + 1), act=jax.nn.relu, up=linear(2, 4, 2 * i + 2)
                )
                for i in range(blocks)
            )
        ),
        sides=gx.Parallel(left=linear(4, 4, 90), right=jnp.tanh, op=sum),
        mix=gx.Remat(linear(4, 4, 91)),
        head=linear(4, 2, 92),
    )


def mlp() -> eqx.nn.MLP:
    return eqx.nn.MLP(3, 2, 4, depth=2, key=jax.random.key(0))


def attention() -> eqx.nn.MultiheadAttention:
    return eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))


def mixer() -> Mixer:
    return Mixer(
        layers=[linear(3, 4, 0), jax.nn.relu, linear(4, 4, 1)],
        heads={"odd": linear(4, 1, 2), "even": linear(4, 1, 3)},
        scale=jnp.ones(1),
        name="mixer",
    )


def arrays() -> dict[str, Any]:
    return {
        "decoder": {"scale": jnp.ones(3), "shift": jnp.zeros(3)},
        "encoder": [jnp.arange(2.0), jnp.arange(3.0)],
        "point": Point(jnp.ones(1), (jnp.zeros(2),)),
    }


def optimiser_state() -> Any:
    return optax.adam(1e-3).init(arrays())


FOREIGN = {
    "mlp": mlp,
    "attention": attention,
    "mixer": mixer,
    "arrays": arrays,
    "optimiser_state": optimiser_state,
}
"""Trees that know nothing of graftax."""

TREES = {"labelled": labelled_model} | FOREIGN


def leaf_ids(tree: Any) -> dict[str, int]:
    """From path to the identity of what stands there, of every leaf."""
    flat, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path): id(leaf) for path, leaf in flat}


def untouched(old: Any, new: Any, *but: str) -> bool:
    """Whether every leaf is the same object, except at these paths and inside of them."""
    before, after = dict(gx.walk(old)), dict(gx.walk(new))
    leaves = [path for path, node in before.items() if jax.tree_util.all_leaves([node])]
    outside = [
        path for path in leaves if not any(path == b or path.startswith(f"{b}.") for b in but)
    ]
    return all(after[path] is before[path] for path in outside)


LINEARS = (
    "stem",
    "body.0.down",
    "body.0.up",
    "body.1.down",
    "body.1.up",
    "sides.left",
    "mix",
    "head",
)
