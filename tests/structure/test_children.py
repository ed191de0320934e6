"""What can be a child, and what is refused by its label."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import Affine, Stem, double, each_maker, linear, square


class Callable:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x

    def method(self, x):
        return self.factor * x


CALLABLES = {
    "lambda": lambda x: 2 * x,
    "function": double,
    "partial": functools.partial(lambda factor, x: factor * x, 2),
    "bound method": Callable(2).method,
    "instance with __call__": Callable(2),
    "equinox layer": Affine(2),
    "container": gx.Chain(twice=double),
    "wrapper": gx.Vmap(double),
    "jax.jit": jax.jit(double),
    "eqx.filter_jit": eqx.filter_jit(double),
    "jax.vmap": jax.vmap(double),
    "jax.tree_util.Partial": jax.tree_util.Partial(double),
    "eqx.nn.Lambda": eqx.nn.Lambda(double),
    "eqx.nn.Sequential": eqx.nn.Sequential([eqx.nn.Lambda(double)]),
}


@each_maker
@pytest.mark.parametrize("child", CALLABLES.values(), ids=CALLABLES.keys())
def test_a_child_is_any_callable_as_it_is(make, child):
    m = make(twice=child)
    assert m.twice is m[0] is child
    x = jnp.arange(3.0)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), m(x), make(double)(x)))


@pytest.mark.parametrize("act", [jax.nn.relu, jax.nn.gelu, jnp.tanh, jax.nn.silu, abs])
def test_an_activation_is_a_child_without_a_wrapper(act):
    x = jnp.linspace(-1, 1, 5)
    assert (gx.Chain(act=act)(x) == act(x)).all()


def test_a_class_is_a_callable_and_so_a_child():
    assert gx.Chain(make=list)((1, 2)) == [1, 2]


@each_maker
@pytest.mark.parametrize(
    ("child", "printed"),
    [(3, "3 of type int"), (None, "None of type NoneType"), ("relu", "'relu' of type str")],
)
def test_a_child_that_is_no_callable_is_refused_by_its_label(make, child, printed):
    owner = "Parallel" if isinstance(make, functools.partial) else make.__name__
    with pytest.raises(TypeError) as caught:
        make(stem=child)
    assert str(caught.value) == (
        f"Layer 'stem' of {owner} must be callable, as every Equinox layer and function is; got "
        f"{printed}."
    )
    with pytest.raises(TypeError, match=f"^Layer 0 of {owner} must be callable"):
        make([child])


@pytest.mark.parametrize(
    "make",
    [
        lambda bad: gx.Chain(double, bad),
        lambda bad: gx.Chain([double, bad]),
        lambda bad: gx.Chain((double, bad)),
    ],
)
def test_a_child_that_is_no_callable_is_refused_by_its_position(make):
    with pytest.raises(
        TypeError, match=r"^Layer 1 of Chain must be callable, .* of type ArrayImpl"
    ):
        make(jnp.ones(2))


def test_a_child_that_is_no_callable_is_refused_in_a_named_tuple_and_a_mapping():
    for given_as in (Stem(double, 4), {"conv": double, "norm": 4}):  # pyright: ignore
        with pytest.raises(TypeError, match=r"^Layer 'norm' of Chain must be callable"):
            gx.Chain(given_as)


def test_a_generator_two_lists_or_two_mappings_are_no_children():
    for bad in ((double for _ in range(2)), {double}, range(2)):
        with pytest.raises(TypeError, match=r"^Layer 0 of Chain must be callable"):
            gx.Chain(bad)
    for pair in (([double], [square]), ({"a": double}, {"b": square})):
        with pytest.raises(TypeError, match=r"^Layer 0 of Chain must be callable"):
            gx.Chain(*pair)


def test_a_subclass_is_named_in_the_message():
    class Bottleneck(gx.SkipConnection):
        """A block."""

    with pytest.raises(TypeError, match=r"^Layer 'conv' of Bottleneck must be callable"):
        Bottleneck(conv=3)
    with pytest.raises(ValueError, match="cannot be a label in Bottleneck"):
        Bottleneck({"in": double})


def test_children_are_shared_never_copied():
    layer = linear(2, 2)
    assert gx.Chain(layer, layer)[0] is gx.Chain(a=layer).a is layer
