"""Layers put in at matches: one for each, behind what has no order, none at the path of another."""

import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import same_arrays, without_annotation_checks
from common_surgery import labelled_model, linear, mlp

KEY = jax.random.key(0)


def fresh(layer, key):
    return eqx.nn.Linear(4, 4, key=key)


# --- each ---


@pytest.mark.parametrize("method", ["insert_before", "insert_after", "then"])
def test_each_makes_a_layer_for_each_match(method):
    found = gx.select(labelled_model(), "up")
    model = getattr(found, method)(se=gx.each(fresh), key=KEY)
    first, second = gx.select(model, "se").nodes
    assert not bool((first.weight == second.weight).any())
    assert same_arrays(model, getattr(found, method)(se=gx.each(fresh), key=KEY))
    other = getattr(found, method)(se=gx.each(fresh), key=jax.random.key(1))
    assert not bool((gx.select(other, "se").nodes[0].weight == first.weight).any())


def test_each_is_given_the_layer_and_its_path():
    model = labelled_model()
    seen = []

    def make(layer, *, path, key):
        seen.append((layer, path))
        return eqx.nn.Linear(layer.out_features, 1, key=key)

    edited = gx.select(model, ["up", "head"]).insert_after(more=gx.each(make), key=KEY)
    assert [path for _, path in seen] == ["body.0.up", "body.1.up", "head"]
    assert [id(layer) for layer, _ in seen] == [id(n) for n in gx.select(model, ["up", "head"])]
    assert edited.more.in_features == 2 and edited.body[0].more.in_features == 4


def test_two_layers_at_one_match_have_keys_of_their_own():
    model = gx.select(labelled_model(), "head").insert_before(
        a=gx.each(fresh), b=gx.each(fresh), key=KEY
    )
    assert not bool((model.a.weight == model.b.weight).any())
    model = gx.select(labelled_model(), "body[0]").insert_before(
        gx.each(fresh), gx.each(fresh), key=KEY
    )
    assert not bool((model.body[0].weight == model.body[1].weight).any())


def test_each_without_a_key_and_layers_as_they_are_may_stand_beside_each_other():
    model = gx.select(labelled_model(), "act").insert_after(
        norm=gx.each(lambda layer: eqx.nn.LayerNorm(2)), drop=eqx.nn.Dropout(0.5)
    )
    assert [block.labels for block in model.body] == [("down", "act", "norm", "drop", "up")] * 2


def test_a_layer_given_as_it_is_stands_at_every_match_with_the_same_weights():
    layer = linear(4, 4, 7)
    model = gx.select(labelled_model(), "up").insert_after(more=layer)
    assert model.body[0].more is layer and model.body[1].more is layer
    assert gx.select(model, "more").size == 2 * 20  # they train apart


def test_key_is_a_label_where_it_is_a_layer():
    model = gx.Chain(a=jnp.sin)
    edited = gx.select(model, "a").insert_after(query=jnp.cos, key=jnp.tanh, value=jnp.exp)
    assert edited.labels == ("a", "query", "key", "value")
    made = gx.select(model, "a").insert_after({"key": gx.each(fresh)}, key=KEY)
    assert made.labels == ("a", "key") and made["key"].weight.shape == (4, 4)


def test_keys_are_asked_for_and_refused():
    found = gx.select(labelled_model(), "up")
    for method in (found.insert_before, found.insert_after, found.then):
        with pytest.raises(TypeError, match=r"^fresh needs a random key: give key="):
            method(se=gx.each(fresh))
        with pytest.raises(
            TypeError, match=r"^A key was given, but nothing that is put in declares"
        ):
            method(se=jnp.sin, key=KEY)
        with pytest.raises(TypeError, match=r"^A key was given, but <lambda> declares no"):
            method(se=gx.each(lambda layer: jnp.sin), key=KEY)


def test_what_each_raises_carries_the_path():
    def fail(layer, path):
        raise RuntimeError("mine")

    for method in ("insert_after", "then"):
        with pytest.raises(RuntimeError) as caught:
            getattr(gx.select(labelled_model(), "up"), method)(new=gx.each(fail))
        assert "fail was given the Linear at 'body.0.up'." in caught.value.__notes__


def test_what_each_makes_takes_on_the_mode_of_the_model():
    model = eqx.nn.inference_mode(gx.Chain(a=eqx.nn.Dropout(0.5), b=jnp.sin))
    made = gx.each(lambda layer: eqx.nn.Dropout(0.1))
    assert gx.select(model, "b").insert_after(c=made).c.inference is True
    assert gx.select(model, "b").then(c=made).b.c.inference is True


def test_layers_with_state_get_one_each():
    norm = gx.each(lambda layer: eqx.nn.BatchNorm(2, axis_name="batch", mode="batch"))
    model, state = eqx.nn.make_with_state(labelled_model)()
    for edited in (
        gx.select(model, "act").insert_after(norm=norm),
        gx.select(model, "act").then(norm=norm),
    ):
        extended = gx.extend_state(state, edited)
        run = jax.vmap(edited, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        _, new = run(jnp.arange(12.0).reshape(4, 3), extended)
        first, second = (new.get(n.batch_state_index)[0] for n in gx.select(edited, "norm"))
        assert not bool((first == second).all())


# --- then ---


def test_then_is_the_layer_and_what_is_behind_it():
    model, x = labelled_model(), jnp.ones(3)
    edited = gx.select(model, "head").then(act=jnp.tanh, scale=lambda y: 2 * y)
    assert bool((edited(x) == 2 * jnp.tanh(model(x))).all())
    assert edited.labels == model.labels and edited.head.act is jnp.tanh
    assert edited.head.weight is model.head.weight


def test_then_changes_no_path():
    model = labelled_model()
    for pattern in ("up", "sides.left", "mix", "body", "body.0", "", "op", "sides", "body.0.act"):
        edited = gx.select(model, pattern).then(behind=jnp.tanh)
        before, after = dict(gx.walk(model)), dict(gx.walk(edited))
        added = [path for path in after if path not in before]
        assert [path for path in after if path in before] == list(before)
        assert added and all(path.rpartition(".")[2] == "behind" for path in added)


def test_then_stands_behind_one_branch_and_adds_none():
    model = gx.Parallel(left=lambda x: 2 * x, right=lambda x: 3 * x)
    edited = gx.select(model, "left").then(square=lambda x: x * x)
    assert edited(3.0) == (36.0, 9.0) and edited.labels == ("left", "right")
    assert gx.select(edited, "left.square").set(lambda x: -x)(3.0) == (-6.0, 9.0)


def test_then_stands_behind_an_op_and_a_shortcut():
    block = gx.SkipConnection(a=lambda x: 2 * x, shortcut=lambda x: 10 * x)
    assert gx.select(block, "op").then(neg=operator.neg)(1.0) == -12.0
    assert gx.select(block, "shortcut").then(neg=operator.neg)(1.0) == -8.0
    summed = gx.Parallel(lambda x: x, lambda x: 2 * x, lambda x: 3 * x, op=sum)
    assert gx.select(summed, "op").then(neg=operator.neg)(1.0) == -6.0
    two = gx.Parallel(lambda x: x, lambda x: 2 * x, op=operator.add)
    assert gx.select(two, "op").then(neg=operator.neg)(1.0) == -3.0


def test_then_stands_behind_a_layer_of_a_foreign_module():
    model = mlp()
    edited = gx.select(model, "layers[0]").then(scale=lambda x: 0 * x)
    expected = model.layers[2](jax.nn.relu(model.layers[1](jax.nn.relu(jnp.zeros(4)))))
    assert bool(jnp.allclose(edited(jnp.ones(3)), expected))


def test_then_behind_what_a_wrapper_holds_is_inside_of_the_wrapper():
    model = gx.Chain(a=gx.Vmap(gx.Chain(b=linear(3, 3, 0))))
    inside = gx.select(model, "a", eqx.nn.Linear | gx.Chain).then(act=jnp.sum)
    assert type(inside.a) is gx.Vmap and inside(jnp.ones((2, 3))).shape == (2,)
    outside = gx.select(model, "a").then(act=jnp.sum)
    assert outside(jnp.ones((2, 3))).shape == ()


def test_then_twice_stands_in_order():
    model = gx.select(gx.Chain(a=lambda x: x + 1), "a").then(b=lambda x: 2 * x)
    assert gx.select(model, "a").then(c=lambda x: x - 3)(1) == 1
    with pytest.raises(ValueError, match=r"^At 'a': Then would hide 'b'"):
        gx.select(model, "a").then(b=jnp.sin)


def test_then_needs_layers_with_labels_behind_a_layer():
    found = gx.select(labelled_model(), "up")
    with pytest.raises(TypeError, match=r"^There is nothing to insert"):
        found.then()
    with pytest.raises(TypeError, match=r"positional"):
        found.then(jnp.sin)
    message = r"^At 'body.0.up.weight': Then wraps a callable"
    with without_annotation_checks(), pytest.raises(TypeError, match=message):
        found.select("weight").then(act=jnp.sin)


# --- No order ---


# --- Two layers at one path ---


def residual():
    inner = gx.Chain(up=linear(2, 2, 0), act=jnp.tanh)
    return gx.Chain(mlp=gx.zoo.Residual(inner, norm2=eqx.nn.LayerNorm(2)))


def adapted():
    return gx.Chain(mlp=gx.LoRA(linear(2, 2, 0), rank=1, key=KEY))


TWO_AT_ONE_PATH = {
    "insert_before": lambda: gx.select(residual(), "mlp.up").insert_before(norm2=jnp.sin),
    "insert_after": lambda: gx.select(residual(), "mlp.up").insert_after(norm2=jnp.sin),
    "rename": lambda: gx.select(residual(), "mlp.up").rename("norm2"),
    "rename the wrapper's": lambda: gx.select(residual(), "mlp.norm2").rename("up"),
    "set what it holds": lambda: gx.select(residual(), "mlp", gx.Chain).set(
        gx.Chain(norm2=jnp.sin)
    ),
    "apply": lambda: gx.select(residual(), "mlp", gx.Chain).apply(lambda c: gx.Chain(norm2=c)),
    "update": lambda: gx.update(residual().mlp, layer=gx.Chain(norm2=jnp.sin)),
    "update layers": lambda: gx.update(residual().mlp, layers={"norm2": jnp.sin}),
    "rebuild": lambda: gx.rebuild(
        residual().mlp, {"up": jnp.sin, "act": jnp.cos, "norm2": jnp.sin, "norm2 ": jnp.sin}
    ),
    "then": lambda: gx.select(residual(), "mlp").then(norm2=jnp.sin),
    "then before": lambda: gx.select(residual(), "mlp.up").then(weight=jnp.sin),
    "then inside": lambda: gx.select(residual(), "mlp", gx.Chain).then(norm2=jnp.sin),
    "wrap": lambda: gx.select(residual(), "mlp").apply(
        lambda layer: gx.zoo.Residual(layer, norm2=jnp.sin)
    ),
    "lora on lora": lambda: gx.select(adapted(), "mlp").apply(
        lambda layer: gx.LoRA(layer, rank=1, key=KEY)
    ),
    "lora in lora": lambda: gx.select(adapted(), "mlp", eqx.nn.Linear).apply(
        lambda layer: gx.LoRA(layer, rank=1, key=KEY)
    ),
    "a rule": lambda: _with_rule(residual(), gx.Chain, lambda c: gx.Chain(norm2=c)),
}


def _with_rule(model, criterion, fn):
    rules = gx.dispatch(lambda layer: layer)
    rules.register(criterion, lambda layer, path: fn(layer) if path == "mlp" else layer)
    return rules(model)


@pytest.mark.parametrize("name", TWO_AT_ONE_PATH)
def test_an_edit_that_puts_two_layers_at_one_path_is_refused_by_name(name):
    with pytest.raises((ValueError, KeyError), match=r"norm2|lora_a|'up'|'weight'"):
        TWO_AT_ONE_PATH[name]()


def test_the_place_is_named():
    with pytest.raises(ValueError, match=r"^At 'mlp': Residual would hide 'norm2' of the Chain"):
        TWO_AT_ONE_PATH["insert_before"]()
