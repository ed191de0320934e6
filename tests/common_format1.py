"""The model in `tests/data/format1.safetensors`, which every later version must load.

Written once, by `gx.save("tests/data/format1.safetensors", *format1())`, with graftax 0.1.0.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp

import graftax as gx


def format1():
    """(model, state): every kind of entry that format 1 has, with numbers that need no generator."""
    key = jax.random.key(0)
    model = gx.Chain(
        embed=gx.Vmap(eqx.nn.Embedding(4, 2, key=key)),
        body=gx.SkipConnection(
            heads=gx.Parallel(a=eqx.nn.Linear(2, 2, key=key), b=jnp.tanh, op=sum),
            act=functools.partial(jax.nn.gelu, approximate=False),
            shortcut=gx.Remat(gx.Cast(eqx.nn.Identity(), jnp.bfloat16)),
        ),
        norm=eqx.nn.BatchNorm(2, axis_name="batch", mode="batch"),
        pairs=gx.PairwiseFusion(gx.Repeat(eqx.nn.Dropout(0.5), 2), op=jnp.multiply),
        lora=gx.LoRA(eqx.nn.Linear(2, 2, key=key), rank=1, key=key),
        small=gx.quantize(eqx.nn.Linear(2, 2, key=key)),
        head=gx.Vmap(eqx.nn.Linear(2, 4, key=key)),
        other=eqx.nn.Lambda(jnp.sin),
    )
    numbers = iter(range(1_000_000))
    model = jax.tree.map(
        lambda leaf: (
            (jnp.arange(leaf.size).reshape(leaf.shape) + next(numbers)).astype(leaf.dtype)
            if eqx.is_array(leaf)
            else leaf
        ),
        model,
    )
    model = gx.tie(model, "embed.weight", "head.weight")
    return eqx.nn.make_with_state(lambda: model)()


def leaves_of_every_kind():
    """Leaves that no layer has: dtypes, keys, special numbers, containers of Python."""
    return {
        "float8": jnp.arange(3).astype(jnp.float8_e4m3fn),
        "int4": jnp.arange(3).astype(jnp.int4),
        "key": jax.random.key(7),
        "empty": jnp.zeros((0, 2)),
        "scalar": jnp.float32(2.5),
        "numbers": [1, 2.5, float("inf"), 1 + 2j, True, None, "text"],
        "tuple": (jnp.ones(1, jnp.complex64), ()),
    }
