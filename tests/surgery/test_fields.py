"""`update`: other values in the fields of one node."""

import dataclasses
from collections import OrderedDict
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import same_arrays
from common_state import markers, statistics, trained
from common_surgery import Bottleneck, Point, labelled_model, linear


class Scaled(eqx.Module):
    """A module with a converter and a check, which run at its construction."""

    scale: jax.Array = eqx.field(converter=jnp.asarray)
    times: int = eqx.field(static=True, default=1)
    made: int = eqx.field(static=True, default=0)

    def __init__(self, scale: Any, times: int = 1):
        self.scale, self.times, self.made = scale, times, 1

    def __check_init__(self):
        if self.times < 0:
            raise ValueError("times cannot be negative")

    def __call__(self, x):
        return self.scale * self.times * x


class Checked(Scaled):
    """A subclass with a check of its own."""

    def __check_init__(self):
        if self.times > 9:
            raise ValueError("times cannot be more than 9")


@dataclasses.dataclass(frozen=True)
class Options:
    rate: float
    steps: int = 1


def test_a_dynamic_and_a_static_field_of_an_equinox_layer():
    conv = eqx.nn.Conv2d(1, 2, 3, key=jax.random.key(0))
    strided = gx.update(conv, stride=(2, 2), bias=jnp.ones((2, 1, 1)))
    assert strided.stride == (2, 2) and strided.weight is conv.weight
    x = jnp.ones((1, 5, 5))
    expected = conv(x)[:, ::2, ::2] - conv.bias + 1
    assert bool(jnp.allclose(strided(x), expected, atol=1e-6))
    assert conv.stride == (1, 1)


def test_the_type_stays_and_equal_values_give_an_equal_node():
    layer = linear(2, 3, 0)
    assert type(gx.update(layer, bias=None)) is eqx.nn.Linear
    again = gx.update(layer, weight=layer.weight, in_features=2)
    assert same_arrays(again, layer)
    assert gx.update(layer) is layer


def test_a_field_that_holds_none_can_be_set():
    layer = eqx.nn.Linear(2, 3, use_bias=False, key=jax.random.key(0))
    bias = jnp.arange(3.0)
    new = gx.update(layer, bias=bias, use_bias=True)
    x = jnp.ones(2)
    assert bool(jnp.allclose(new(x), layer(x) + bias))


def test_converters_and_checks_run_and_init_does_not():
    layer = Scaled(2.0)
    new = gx.update(layer, scale=3, times=4, made=7)
    assert isinstance(new.scale, jax.Array) and new.made == 7
    assert float(new(1.0)) == 12
    with pytest.raises(ValueError, match=r"times cannot be negative"):
        gx.update(layer, times=-1)


def test_the_checks_of_base_classes_run_too():
    with pytest.raises(ValueError, match=r"more than 9"):
        gx.update(Checked(1.0), times=10)
    with pytest.raises(ValueError, match=r"negative"):
        gx.update(Checked(1.0), times=-1)


def test_labels_are_fields_of_a_container():
    model = labelled_model()
    new = gx.update(model, head=jnp.tanh, stem=jnp.sin)
    assert (new.head, new.stem) == (jnp.tanh, jnp.sin)
    assert new.labels == model.labels and new.body is model.body
    block = gx.update(model.body[0], up=jnp.sin, op=jnp.multiply, shortcut=jnp.cos)
    assert type(block) is Bottleneck
    assert (block.up, block.op, block.shortcut) == (jnp.sin, jnp.multiply, jnp.cos)


def test_the_layers_of_a_container_are_checked_as_by_its_constructor():
    model = gx.Chain(a=jnp.sin)
    assert gx.update(model, layers=(jnp.cos, jnp.tanh)).layers == (jnp.cos, jnp.tanh)
    assert gx.update(model, layers={"b": jnp.cos}).labels == ("b",)
    with pytest.raises(TypeError, match=r"Layer 0 of Chain must be callable"):
        gx.update(model, layers=(3,))
    with pytest.raises(ValueError, match=r"'op' cannot be a label"):
        gx.update(model, layers={"op": jnp.cos})
    with pytest.raises(ValueError, match=r"at least one branch"):
        gx.update(gx.Parallel(jnp.sin), layers=())


def test_what_a_container_cannot_work_with_is_refused():
    with pytest.raises(TypeError, match=r"op of Parallel must be callable; got 3"):
        gx.update(gx.Parallel(a=jnp.sin), op=3)
    with pytest.raises(ValueError, match=r"times of Repeat cannot be negative: -1"):
        gx.update(gx.Repeat(jnp.sin, times=2), times=-1)
    with pytest.raises(
        TypeError, match=r"Layer 'shortcut' of SkipConnection must be callable or None"
    ):
        gx.update(gx.SkipConnection(jnp.sin), shortcut=3)


def test_a_wrapper_passes_on_what_is_not_its_own():
    wrapped = gx.Vmap(gx.Remat(linear(2, 3, 0)), axis_name="batch")
    new = gx.update(wrapped, bias=jnp.zeros(3), axis_name="rows")
    assert (type(new), new.axis_name, type(new.layer)) == (gx.Vmap, "rows", gx.Remat)
    assert not bool(new.bias.any()) and new.weight is wrapped.weight
    assert gx.update(gx.Remat(gx.Chain(a=jnp.sin)), a=jnp.cos).a is jnp.cos


def test_named_tuples_dataclasses_and_dicts():
    assert gx.update(Point(1, None), y=2) == Point(1, 2)
    assert gx.update(Options(0.1), steps=5) == Options(0.1, 5)
    assert gx.update({"a": 1, "b": None}, b=2) == {"a": 1, "b": 2}
    ordered = gx.update(OrderedDict(z=1, a=2), z=3)
    assert type(ordered) is OrderedDict and list(ordered.items()) == [("z", 3), ("a", 2)]


def test_the_node_that_is_updated_stays_as_it_was():
    tree = {"a": 1}
    assert gx.update(tree, a=2) == {"a": 2} and tree == {"a": 1}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            linear(2, 2, 0),
            r"^Linear has no field 'wieght'. Its fields are: weight, bias, in_features, out_features, "
            r"use_bias. Did you mean 'weight'\?$",
        ),
        (gx.Chain(stem=jnp.sin), r"^Chain has no field 'wieght'. Its fields are: layers, stem.$"),
        (gx.Vmap(linear(2, 2, 0)), r"^Linear has no field 'wieght'."),
        (Point(1, 2), r"^Point has no field 'wieght'. Its fields are: x, y.$"),
        (
            {"weight": 1},
            r"^dict has no field 'wieght'. Its fields are: weight. Did you mean 'weight'",
        ),
        ([1, 2], r"^list has no field 'wieght'. Its fields are: none.$"),
        (jnp.ones(2), r"^ArrayImpl has no field 'wieght'. Its fields are: none.$"),
    ],
)
def test_an_unknown_field_is_refused_with_the_fields_there_are(node, message):
    with pytest.raises(AttributeError, match=message):
        gx.update(node, wieght=1)


def test_an_update_under_jit_and_grad_is_that_outside():
    layer, x = linear(2, 2, 0), jnp.ones(2)

    def loss(bias):
        return jnp.sum(gx.update(layer, bias=bias)(x))

    assert bool((jax.jit(jax.grad(loss))(jnp.zeros(2)) == 1).all())
    assert bool(jnp.allclose(jax.jit(loss)(jnp.ones(2)), loss(jnp.ones(2))))


def test_an_updated_module_is_a_module_like_any_other():
    layer = gx.update(linear(2, 2, 0), bias=jnp.zeros(2))
    mapped = jax.tree.map(lambda x: x, layer)
    assert same_arrays(mapped, layer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.bias = None


# --- Layers with state ---


def test_a_layer_of_another_model_gets_a_name_of_its_own_in_the_state():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    for model in (a, gx.Remat(a)):
        updated = gx.update(model, norm=b.norm)
        assert set(markers(updated)).isdisjoint(markers(a))
        state = gx.extend_state(state_a, updated, donor=state_b)
        assert same_arrays(statistics(updated.norm, state), statistics(b.norm, state_b))
    assert markers(gx.update(a, norm=a.norm)) == markers(a)
    assert markers(gx.update(a.norm, momentum=0.5)) == markers(a.norm)


def test_a_value_of_a_layers_own_state_can_be_updated():
    held = gx.with_state(*trained(0))
    index = gx.update(held.norm.batch_counter, init=jnp.array(9))
    updated = gx.update(held.norm, batch_counter=index)
    assert markers(updated) == markers(held.norm) and int(updated.batch_counter.init) == 9


def test_an_update_within_an_edit_leaves_the_last_word_to_that():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    block = gx.select(a, "norm").apply(lambda layer: gx.Chain(old=layer, new=jnp.tanh))
    edited = gx.select(block, "norm").apply(lambda chain: gx.update(chain, new=b.norm))
    assert markers(edited.norm.old) == markers(a.norm)
    state = gx.extend_state(state_a, edited, donor=state_b)
    assert same_arrays(statistics(edited.norm.new, state), statistics(b.norm, state_b))
    assert markers(edited.norm.new)[0].startswith("norm.new.batch_counter#")
