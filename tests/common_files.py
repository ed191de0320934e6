"""Models to save, and equality bit for bit."""

import contextlib
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import graftax as gx
from graftax.files.shared import SharedNode


class Bottleneck(gx.SkipConnection):
    """A block of its own type."""


class Gate(eqx.Module):
    """A layer that graftax does not know."""

    weight: jax.Array
    name: str = eqx.field(static=True, default="gate")

    def __call__(self, x):
        return x * self.weight


def swish(x):
    """An activation of the user's own."""
    return x * jax.nn.sigmoid(x)


def same_bits(a, b) -> bool:
    """Whether two trees have equal structure, and leaves of equal type, dtype and bits."""
    a_leaves, a_def = jax.tree.flatten(a)
    b_leaves, b_def = jax.tree.flatten(b)
    return a_def == b_def and all(map(_same_leaf, a_leaves, b_leaves))


def _same_leaf(a, b) -> bool:
    if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return a.dtype == b.dtype and bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
    if isinstance(a, jax.Array | np.ndarray | np.generic):
        a_bytes, b_bytes = np.asarray(a), np.asarray(b)
        return (
            isinstance(b, jax.Array) == isinstance(a, jax.Array)
            and a_bytes.dtype == b_bytes.dtype
            and a_bytes.shape == b_bytes.shape
            and a_bytes.tobytes() == b_bytes.tobytes()
        )
    if isinstance(a, functools.partial):
        # A partial is equal to itself alone.
        return type(a) is type(b) and same_bits(*((p.func, p.args, p.keywords) for p in (a, b)))
    # What `eqx.nn.Shared` leaves has nothing but its type.
    return type(a) is type(b) and (a == b or a != a or type(a) is SharedNode)


def linear(into: int, out: int, seed: int = 0, **options) -> eqx.nn.Linear:
    """A linear layer."""
    return eqx.nn.Linear(into, out, key=jax.random.key(seed), **options)


def models() -> dict:
    """Models of every kind of layer and container, by name."""
    key = jax.random.key(0)
    norm = functools.partial(eqx.nn.BatchNorm, axis_name="batch", mode="batch")
    tied = gx.Chain(embed=eqx.nn.Embedding(5, 3, key=key), head=linear(3, 5))
    return {
        "chain": gx.Chain(up=linear(2, 3), act=jax.nn.relu, down=linear(3, 2, 1)),
        "positional": gx.Chain(linear(2, 3), jnp.tanh),
        "empty": gx.Chain(),
        "nested": gx.Chain(
            a=gx.Chain(b=gx.Parallel(c=linear(2, 2), d=abs, op=sum), e=gx.Repeat(linear(2, 2), 3))
        ),
        "skip": gx.SkipConnection(linear(2, 2), shortcut=gx.Vmap(jnp.sin), op=jnp.multiply),
        "fusion": gx.PairwiseFusion(linear(2, 2), linear(2, 2, 1), op=jax.nn.relu),
        "wrappers": gx.Remat(gx.Cast(gx.Vmap(linear(2, 2), axis_name="i"), jnp.bfloat16)),
        "partial": gx.Chain(act=functools.partial(jax.nn.gelu, approximate=False)),
        "lora": gx.LoRA(linear(4, 4), rank=2, key=key),
        "quantized": gx.quantize(linear(4, 4)),
        "tied": gx.tie(tied, "embed.weight", "head.weight"),
        "batch norm": gx.Chain(norm=norm(3)),
        "attention": eqx.nn.MultiheadAttention(2, 8, key=key),
        "mlp": eqx.nn.MLP(2, 2, 4, 2, key=key),
        "gru": eqx.nn.GRUCell(2, 3, key=key),
        "convolutions": eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(2, 3, 3, padding="SAME", key=key),
                eqx.nn.MaxPool2d(2, 2),
                eqx.nn.ConvTranspose2d(3, 2, 2, 2, key=key),
                eqx.nn.AdaptiveAvgPool2d(2),
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Dropout(0.5, inference=True),
                eqx.nn.PReLU(0.1),
            ]
        ),
        "norms": (eqx.nn.LayerNorm(4), eqx.nn.RMSNorm(4), eqx.nn.GroupNorm(2, 4)),
        "spectral": eqx.nn.SpectralNorm(linear(3, 3), "weight", key=key),
        "tree": {
            "list": [1, 2.5, True, "text", None, (), 3 + 4j],
            "none": None,
            "odd key, .": {"a.b": jnp.zeros(1), "": 1},
            "integers": {3: jnp.ones(2), -1: 0},
            "special": [float("inf"), float("nan"), -0.0],
        },
        "leaf": jnp.arange(3),
    }


def enable_x64() -> contextlib.AbstractContextManager:
    """Numbers of 64 bits, within a `with`. JAX gave it a public place in 0.8."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()
