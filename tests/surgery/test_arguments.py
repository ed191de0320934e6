"""What a function of a node is given, and what it may give back: for edits, `each` and rules alike."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import without_annotation_checks
from common_surgery import labelled_model, mlp


async def tanh_later(x):
    return jnp.tanh(x)


class LaterTanh(eqx.Module):
    async def __call__(self, x):
        return jnp.tanh(x)


def by_apply(model, where, fn):
    return gx.select(model, where).apply(fn)


def by_replace_where(model, where, fn):
    return model.replace_where(where, fn)


def by_rule(model, where, fn):
    rules = gx.dispatch(lambda layer: layer)
    rules.register(where, fn)
    return rules(model)


EDITS = pytest.mark.parametrize("edit", [by_apply, by_replace_where, by_rule])


@EDITS
def test_what_a_function_raises_carries_the_path(edit):
    def fail(layer):
        raise KeyError("mine")

    with pytest.raises(KeyError, match=r"mine") as caught:
        edit(labelled_model(), "up", fail)
    assert caught.value.__notes__ == ["fail was given the Linear at 'body.0.up'."]


def test_what_is_raised_at_the_root_says_so():
    with pytest.raises(ZeroDivisionError) as caught:
        gx.select(labelled_model(), "").apply(lambda model: 1 / 0)
    assert caught.value.__notes__ == ["<lambda> was given the root, a Chain."]


@EDITS
def test_a_function_without_a_return_is_refused_with_the_path(edit):
    def forgets(layer):
        gx.Remat(layer)

    message = (
        r"^forgets was given the Linear at 'body\.0\.up', and gave None, which is no layer\. Is a `return` "
        r"missing\?"
    )
    with pytest.raises(TypeError, match=message):
        edit(labelled_model(), "up", forgets)


def test_a_layer_of_a_foreign_module_and_the_root_do_not_become_none_either():
    with pytest.raises(TypeError, match=r"the Linear at 'layers\.0', and gave None"):
        gx.select(mlp(), eqx.nn.Linear).apply(lambda layer: None)
    with pytest.raises(TypeError, match=r"^<lambda> was given the root, a Chain, and gave None"):
        gx.select(labelled_model(), "").apply(lambda model: None)


def test_what_is_no_layer_may_become_none():
    model = gx.select(labelled_model(), "bias").apply(lambda bias: None)
    assert model.head.bias is None and model.body[0].up.bias is None


@EDITS
def test_an_async_function_is_no_edit(edit):
    async def later(layer):
        return layer

    with pytest.raises(
        TypeError, match=r"'body\.0\.up', and gave a coroutine: .* no async function"
    ):
        edit(labelled_model(), "up", later)


@EDITS
def test_a_generator_is_no_edit(edit):
    def yields(layer):
        yield layer

    with pytest.raises(TypeError, match=r"'body\.0\.up', and gave a generator"):
        edit(labelled_model(), "up", yields)


@EDITS
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (5, r"callable.*; got 5 of type int"),
        (jnp.ones(2), r"callable.*; got Array.* of type ArrayImpl"),
        ([jnp.tanh], r"callable.*; got \[.*\] of type list"),
        (tanh_later, r"cannot be an async function: tanh_later"),
        (functools.partial(tanh_later), r"cannot be an async function: partial\(tanh_later\)"),
        (LaterTanh(), r"cannot be an async function: LaterTanh"),
    ],
)
@pytest.mark.parametrize(
    ("where", "path"),
    [("body.1.act", r"body\.1\.act"), ("mix", "mix"), ("sides.right", r"sides\.right")],
)
def test_what_an_edit_leaves_in_a_container_is_a_layer(edit, given, shown, where, path):
    with pytest.raises(TypeError, match=rf"^At '{path}': .*{shown}"):
        edit(labelled_model(), where, lambda layer: given)


@pytest.mark.parametrize("given", [5, None, jnp.ones(2), "tanh", tanh_later])
def test_a_value_that_is_set_or_updated_is_a_layer(given):
    model = labelled_model()
    act = gx.select(model, "act")
    for edit in (
        lambda: act.set(given),
        lambda: act.set_each([jnp.tanh, given]),
        lambda: gx.select(model, "body.*").update(act=given),
        lambda: gx.select(model, "").update(head=given),
        lambda: gx.update(model.mix, layer=given),
        lambda: gx.select(model, "head").insert_after(new=given),
        lambda: gx.select(model, "head").then(new=given),
        lambda: gx.select(model, "head").insert_after(new=gx.each(lambda layer: given)),
    ):
        with pytest.raises(TypeError):
            edit()
    with pytest.raises(TypeError, match=r"^At 'body\.0\.act': Layer 'act' of Bottleneck"):
        act.set(given)
    with pytest.raises(TypeError, match=r"^At 'body\.1\.act': Layer 'act' of Bottleneck"):
        act.set_each([jnp.tanh, given])
    with pytest.raises(TypeError, match=r"^In Bottleneck at 'body\.0': Layer 'act' of Bottleneck"):
        gx.select(model, "body.*").update(act=given)


def test_what_a_wrapper_holds_is_a_layer_too():
    with pytest.raises(TypeError, match=r"^At 'mix': A layer of Remat must be callable.*; got 5"):
        gx.select(labelled_model(), "mix", eqx.nn.Linear).set(5)
    wrapped = gx.Remat(labelled_model())
    with pytest.raises(TypeError, match=r"^At the root: A layer of Remat must be callable"):
        gx.select(wrapped, gx.Chain)[0].set(5)


@pytest.mark.parametrize("name", ["op", "shortcut"])
def test_op_and_shortcut_are_layers(name):
    model = gx.Chain(block=gx.SkipConnection(a=jnp.sin, shortcut=jnp.cos))
    for edit in (
        lambda: gx.select(model, name).set(5),
        lambda: gx.select(model, "block").update(**{name: 5}),
        lambda: gx.select(model, name).set(tanh_later),
    ):
        with pytest.raises(TypeError, match=r"block.*must be callable|block.*async"):
            edit()
    with pytest.raises(TypeError, match=rf"block\.{name}.*and gave None"):
        gx.select(model, name).apply(lambda layer: None)
    assert gx.select(model, "shortcut").set(None).block.shortcut is None


def test_holes_of_a_mask_or_partition_are_no_layers_to_keep():
    mask = gx.select(labelled_model(), "head").mask()
    assert gx.select(mask, "act").set(True).body[0].act is True


def test_what_a_predicate_raises_carries_the_path():
    with pytest.raises(AttributeError) as caught:
        gx.select(labelled_model(), "up", lambda layer: layer.nothing)
    (note,) = caught.value.__notes__
    assert "Linear" in note and "'body.0.up'" in note


def test_each_takes_a_function():
    with (
        without_annotation_checks(),
        pytest.raises(TypeError, match=r"^each takes a function .* got 3"),
    ):
        gx.each(3)


def test_a_note_is_given_once_whatever_is_nested():
    def outer(layer):
        return gx.select(layer, "weight").apply(lambda w: w.nothing)

    with pytest.raises(AttributeError) as caught:
        gx.select(labelled_model(), "up").apply(outer)
    assert caught.value.__notes__ == [
        "<lambda> was given the ArrayImpl at 'weight'.",
        "outer was given the Linear at 'body.0.up'.",
    ]


def test_a_key_is_asked_for_before_anything_is_edited():
    seen = []

    def fn(layer, key):
        seen.append(key)
        return layer

    with pytest.raises(TypeError, match=r"needs a random key"):
        gx.select(labelled_model(), "up").apply(fn)
    assert not seen
    gx.select(labelled_model(), "up").apply(fn, key=jax.random.key(0))
    assert len(seen) == 2 and not bool(seen[0] == seen[1])
