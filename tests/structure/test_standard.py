"""desugar: typed blocks as the standard parts they are made of."""

import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_containers import (
    Affine,
    Bottleneck,
    build,
    containers,
    double,
    increment,
    linear,
    same_arrays,
    square,
)

STANDARD = (gx.Chain, gx.Parallel, gx.SkipConnection, gx.PairwiseFusion, gx.Repeat)


class Encoder(gx.Chain):
    """A chain with a name."""


class DeepEncoder(Encoder):
    """A class below that."""


class Heads(gx.Parallel):
    """A parallel with a name."""


class Fusion(gx.PairwiseFusion):
    """A fusion with a name."""


class Tied(gx.Repeat):
    """A repeat with a name."""


class OwnInit(gx.Chain):
    """Builds its own layers, and keeps a field that its forward pass does not use."""

    width: int = eqx.field(static=True)

    def __init__(self, width, *, key):
        k1, k2 = jax.random.split(key)
        super().__init__(up=eqx.nn.Linear(2, width, key=k1), down=eqx.nn.Linear(width, 2, key=k2))
        self.width = width


class OwnCall(gx.Chain):
    """Writes its own `__call__`: a layer of its own."""

    def __call__(self, x, **keywords):
        return 10 * super().__call__(x, **keywords)


class BelowOwnCall(OwnCall):
    """Inherits that call."""


def types(model):
    return {type(node) for _, node in gx.walk(model) if isinstance(node, gx.StructuralLayer)}


@pytest.mark.parametrize(
    ("block", "base"),
    [
        (Encoder(a=double, b=square), gx.Chain),
        (DeepEncoder(a=double, b=square), gx.Chain),
        (Bottleneck(a=double, op=operator.sub, shortcut=square), gx.SkipConnection),
        (Heads(a=double, b=square, op=operator.sub, init=7), gx.Parallel),
        (Fusion(a=double, b=square, op=operator.sub), gx.PairwiseFusion),
        (Tied(a=double, times=3), gx.Repeat),
    ],
)
def test_a_subclass_becomes_its_standard_base_with_all_its_fields(block, base):
    plain = gx.desugar(block)
    assert type(plain) is base
    assert plain.items() == block.items() and plain.layers is block.layers
    for field in ("op", "shortcut", "init", "times", "execution"):
        assert getattr(plain, field, None) is getattr(block, field, None)
    assert plain(3) == block(3)
    keywords = {k: v for k, v in vars(block).items() if k not in ("layers", "execution")}
    same = base(dict(block.items()), **keywords)
    assert plain == same and jax.tree.structure(plain) == jax.tree.structure(same)
    assert type(block) is not base


def test_desugar_reaches_everywhere():
    class Foreign(eqx.Module):
        blocks: list
        table: dict
        pair: tuple

        def __call__(self, x):
            return self.pair[1](self.table["a"](self.blocks[0](x)))

    model = gx.Chain(
        a=gx.Vmap(Bottleneck(inner=Encoder(d=double))),
        b=gx.Parallel(x=Encoder(square), op=Encoder(sum)),
        c=Bottleneck(double, shortcut=Encoder(square)),
        d=Foreign([Encoder(double)], {"a": Tied(double, 2)}, (1, Heads(double, op=sum))),
        e=eqx.nn.Sequential([eqx.nn.Lambda(Encoder(double))]),
    )
    plain = gx.desugar(model)
    assert types(model) - set(STANDARD) == {Bottleneck, Encoder, Tied, Heads}
    assert types(plain) <= set(STANDARD)
    assert [path for path, _ in gx.walk(plain)] == [path for path, _ in gx.walk(model)]
    assert isinstance(plain.a, gx.Vmap) and type(plain.d) is Foreign
    assert type(plain.d.pair) is tuple and type(plain.d.pair[1]) is gx.Parallel
    assert (plain(jnp.arange(3)) == model(jnp.arange(3))).all()
    assert jax.tree.leaves(plain) == jax.tree.leaves(model)


def test_any_pytree_may_hold_the_blocks():
    blocks = {"a": [Encoder(double)], "b": (Bottleneck(square), None, 3, jnp.ones(2))}
    plain = gx.desugar(blocks)
    assert type(plain["a"][0]) is gx.Chain and type(plain["b"][0]) is gx.SkipConnection
    assert plain["b"][1:3] == (None, 3) and plain["b"][3] is blocks["b"][3]
    assert gx.desugar(double) is double and gx.desugar(None) is None


def test_arrays_are_shared_and_the_model_stays_as_it_is():
    model = gx.Chain(a=Bottleneck(linear=linear(2, 2)), b=linear(2, 2))
    plain = gx.desugar(model)
    assert plain.a["linear"] is model.a["linear"] and plain.b is model.b
    assert type(model.a) is Bottleneck


def test_a_model_of_standard_parts_is_returned_itself():
    model = gx.Chain(
        a=gx.SkipConnection(double), b=gx.Vmap(gx.Parallel(square, op=sum)), c=linear(2, 2)
    )
    assert gx.desugar(model) is model
    mixed = gx.Chain(a=model, b=Encoder(double))
    assert gx.desugar(mixed).a is model


def test_a_class_with_its_own_init_becomes_the_chain_it_built():
    block = OwnInit(5, key=jax.random.key(0))
    plain = gx.desugar(block)
    assert type(plain) is gx.Chain and plain.labels == ("up", "down")
    assert not hasattr(plain, "width")
    x = jnp.ones(2)
    assert (plain(x) == block(x)).all()
    assert same_arrays(plain, gx.Chain(up=block.up, down=block.down))


@pytest.mark.parametrize("cls", [OwnCall, BelowOwnCall])
def test_a_class_with_its_own_call_stays_and_its_children_do_not(cls):
    model = gx.Chain(block=cls(inner=Encoder(double)))
    plain = gx.desugar(model)
    assert type(plain.block) is cls and type(plain.block.inner) is gx.Chain
    assert plain(3) == model(3) == 60


def test_a_class_of_its_own_forward_pass_stays():
    class Backwards(gx.StructuralLayer):
        """Its children in the other order."""

        def forward(self, call, x):
            for i in reversed(range(len(self))):
                x = call(self[i], x, label=i)
            return x

    class OwnForward(gx.Chain):
        """A chain of another forward pass."""

        def forward(self, call, x):
            return -super().forward(call, x)

    model = gx.Chain(a=Backwards(double, increment), b=OwnForward(double))
    plain = gx.desugar(model)
    assert plain is model and plain(3) == -16


def test_desugar_of_a_desugared_model_is_itself():
    model = gx.Chain(a=Bottleneck(Encoder(Tied(double, 2))))
    plain = gx.desugar(model)
    assert gx.desugar(plain) is plain


def test_gradients_go_through_desugar():
    model, x = gx.Chain(a=Bottleneck(linear=linear(2, 2))), jnp.ones(2)
    gradient = eqx.filter_grad(lambda m: gx.desugar(m)(x).sum())(model)
    assert type(gradient.a) is Bottleneck
    expected = eqx.filter_grad(lambda m: m(x).sum())(model)
    assert same_arrays(gradient, expected)


def typed(layer: Any) -> Any:
    """The same model, each container as a subclass of its class."""
    if isinstance(layer, Affine):
        return layer
    names = {gx.Chain: Encoder, gx.Parallel: Heads, gx.Repeat: Tied, gx.SkipConnection: Bottleneck}
    children = [typed(child) for child in layer]
    fields = {k: v for k, v in vars(layer).items() if k not in ("layers", "execution")}
    cls = names.get(type(layer), type(layer))
    layers = dict(zip(layer.labels, children, strict=True)) if layer.labels else children
    return cls(layers, **fields)


@given(containers(), st.integers(-3, 3))
@settings(max_examples=100)
def test_law_of_desugar(spec, x):
    model = build(spec)
    plain = gx.desugar(model)
    assert types(plain) <= set(STANDARD)
    assert plain(x) == model(x) and jax.tree.leaves(plain) == jax.tree.leaves(model)
    assert gx.desugar(typed(model)) == plain
