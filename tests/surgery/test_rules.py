"""`dispatch`: a function over all layers, chosen for each by its path, label or type."""

import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_containers import same_arrays
from common_rules import Base, Leaf, Middle, Tag, nested, tagging
from common_surgery import Bottleneck, arrays, attention, labelled_model, linear, mixer, mlp

# --- How rules are called ---


def test_rules_run_deepest_first_and_containers_are_rebuilt_around_the_results():
    seen = []

    @gx.dispatch
    def mark(layer, path):
        seen.append(path)
        return layer

    @mark.register(gx.Chain)
    def _(layer, path):
        seen.append(path)
        assert all(type(child) is Tag for child in gx.select(layer, Tag)) and len(layer)
        return layer

    mark.register("query", lambda layer: Tag("query"))
    model = mark(nested())
    assert seen == [
        "stem",
        "encoder.0.value",
        "encoder.0",
        "encoder.1.value",
        "encoder.1",
        "encoder",
        "",
    ]
    assert model.encoder[0].query.rule == "query"
    assert [path for path, _ in gx.walk(model)] == [path for path, _ in gx.walk(nested())]


def test_a_dispatch_shares_what_no_rule_changed():
    model = labelled_model()
    edited = tagging("body.0.up")(model)
    assert edited.stem is model.stem and edited.body[1] is model.body[1]
    assert edited.body[0].down is model.body[0].down
    assert type(edited.body[0]) is Bottleneck
    assert tagging()(model) is model


def test_a_rule_is_given_its_path_if_it_declares_it():
    @gx.dispatch
    def name(layer):
        return layer

    name.register(Leaf, lambda layer, path: Tag(path))
    name.register("value", lambda layer, *, path=None: Tag(f"value at {path}"))
    model = name(nested())
    assert model.stem.rule == "stem" and model.encoder[1].query.rule == "encoder.1.query"
    assert model.encoder[0].value.rule == "value at encoder.0.value"


def test_a_rule_is_given_a_key_of_its_own_if_it_declares_it():
    @gx.dispatch
    def fresh(layer):
        return layer

    @fresh.register(eqx.nn.Linear)
    def _(layer, key):
        return eqx.nn.Linear(layer.in_features, layer.out_features, key=key)

    model, key = labelled_model(), jax.random.key(0)
    new = fresh(model, key=key)
    assert not bool((new.body[0].up.weight == new.body[1].up.weight).any())
    assert same_arrays(new, fresh(model, key=key))
    assert not same_arrays(new, fresh(model, key=jax.random.key(1)))
    # As `apply` gives it.
    by_hand = gx.select(model, eqx.nn.Linear).apply(
        lambda layer, key: eqx.nn.Linear(layer.in_features, layer.out_features, key=key), key=key
    )
    assert same_arrays(new, by_hand)


def test_extra_keywords_go_to_the_rules_that_declare_them():
    @gx.dispatch
    def tag(layer, suffix=""):
        return Tag(f"default{suffix}") if type(layer) is Base else layer

    tag.register(Leaf, lambda layer, prefix, suffix="": Tag(f"{prefix}leaf{suffix}"))
    tag.register("b", lambda layer: Tag("b"))
    tag.register("d", lambda layer, **options: Tag(",".join(sorted(options))))
    model = gx.Chain(a=Leaf(), b=Leaf(), c=Base(), d=Leaf())
    tagged = tag(model, prefix="<", suffix=">")
    assert [layer.rule for layer in tagged] == ["<leaf>", "b", "default>", "prefix,suffix"]


def test_a_keyword_that_no_rule_declares_is_an_error_that_names_the_nearest():
    tag = tagging()
    tag.register(Leaf, lambda layer, rate=1, path="": layer)
    message = r"^No rule of tag takes 'rat'\. Declared are: path, rate\. Did you mean 'rate'\?$"
    with pytest.raises(TypeError, match=message):
        tag(nested(), rat=2)
    with pytest.raises(TypeError, match=r"^No rule of tag takes 'key'\."):
        tag(nested(), key=jax.random.key(0))


def test_a_keyword_that_a_rule_needs_and_is_not_given_is_an_error():
    tag = tagging()
    tag.register(eqx.nn.Linear, lambda layer, key: layer)
    with pytest.raises(TypeError, match=r"^The rule Linear of tag needs key=\.\.\.\.$"):
        tag(nested())
    tag = tagging()
    tag.register("stem", lambda layer, rate: layer)
    with pytest.raises(TypeError, match=r"^The rule 'stem' of tag needs rate=\.\.\.\.$"):
        tag(nested())


def test_partials_and_classes_are_rules():
    @gx.dispatch
    def rewrite(layer):
        return layer

    rewrite.register("up", functools.partial(gx.LoRA, rank=1))
    rewrite.register("down", gx.Remat)
    model = rewrite(labelled_model(), key=jax.random.key(0))
    assert type(model.body[0].up) is gx.LoRA and type(model.body[1].down) is gx.Remat


def test_arrays_lists_and_dicts_are_no_layers_unless_a_rule_is_for_them():
    @gx.dispatch
    def fail(layer):
        assert callable(layer)
        return layer

    model = mixer()
    assert fail(model) is model and fail(arrays())["decoder"] is not None
    fail.register(jax.Array, lambda leaf: leaf + 1)
    fail.register(list, lambda items: [*items, jnp.tanh])
    changed = fail(model)
    assert bool((changed.scale == model.scale + 1).all())
    assert bool((changed.layers[0].weight == model.layers[0].weight + 1).all())
    assert changed.layers[3] is jnp.tanh


def test_a_layer_that_is_put_in_takes_on_the_mode_of_the_model():
    @gx.dispatch
    def drop(layer):
        return layer

    drop.register(eqx.nn.Linear, lambda layer: gx.Chain(layer, eqx.nn.Dropout(0.5)))
    model = eqx.nn.inference_mode(gx.Chain(a=linear(2, 2, 0), b=eqx.nn.Dropout(0.1)))
    assert drop(model).a[1].inference is True


# --- Wrappers ---


def test_labels_take_the_wrapper_and_types_what_it_holds():
    model = gx.Chain(a=gx.Remat(gx.Vmap(Leaf())), b=Leaf())
    by_label = tagging("a")(model)
    assert by_label.a.rule == "0"
    by_type = tagging(Leaf)(model)
    assert type(by_type.a) is gx.Remat and type(by_type.a.layer) is gx.Vmap
    assert by_type.a.layer.layer.rule == by_type.b.rule == "0"
    assert tagging(gx.Vmap)(model).a.layer.rule == "0"


def test_where_a_label_takes_the_wrapper_the_type_inside_is_not_asked():
    seen = []

    @gx.dispatch
    def look(layer):
        return layer

    look.register(Leaf, lambda layer, path: seen.append(("type", path)) or layer)
    look.register("a", lambda layer, path: seen.append(("label", path)) or layer)
    look(gx.Chain(a=gx.Remat(Leaf()), b=gx.Remat(Leaf())))
    assert seen == [("label", "a"), ("type", "b")]


def test_a_rule_for_a_base_class_takes_a_path_once():
    model = gx.Chain(a=gx.Remat(gx.Vmap(Leaf())))
    wrap = tagging()
    wrap.register(
        eqx.Module, lambda layer, path: layer if not path else gx.Cast(layer, jnp.float16)
    )
    assert [type(n) for n in _inwards(wrap(model).a)] == [gx.Cast, gx.Remat, gx.Vmap, Leaf]


def test_the_default_is_for_paths_that_no_rule_takes():
    seen = []

    @gx.dispatch
    def look(layer, path):
        seen.append((path, type(layer)))
        return layer

    look.register(Leaf, lambda layer: layer)
    look(gx.Chain(a=gx.Remat(Leaf()), b=gx.Remat(Base()), c=Leaf()))
    assert seen == [("b", gx.Remat), ("", gx.Chain)]


def _inwards(layer):
    while True:
        yield layer
        if not isinstance(layer, gx.Wrapper):
            return
        layer = layer.layer


def test_rules_reach_the_layers_inside_of_wrapped_containers():
    model = gx.Remat(gx.Chain(body=gx.Vmap(gx.Chain(a=Leaf(), b=Leaf()))))
    tagged = tagging("a", "body.b")(model)
    assert type(tagged) is gx.Remat and type(tagged.layer[0]) is gx.Vmap
    assert tagged.body.a.rule == "0" and tagged.body.b.rule == "1"


# --- explain ---


def test_explain_prints_which_rule_takes_which_path(capsys):
    tag = tagging("encoder.0.query", "encoder.*.value", re.compile(r".*\.1"), "stem", Middle)
    tag.explain(nested())
    assert capsys.readouterr().out.splitlines() == [
        "(root)           default",
        "stem             'stem'",
        "encoder          default",
        "encoder.0        default",
        "encoder.0.query  'encoder.0.query'",
        "encoder.0.value  'encoder.*.value'",
        "encoder.1        re.compile('.*\\\\.1')",
        "encoder.1.query  Middle",
        "encoder.1.value  'encoder.*.value'",
    ]


def test_explain_says_what_a_call_does(capsys):
    model = labelled_model()
    tag = tagging("up", eqx.nn.Linear, "body.0.*", Bottleneck)
    tag.explain(model)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["body.0.up"] == "'body.0.*'" and lines["body.1.up"] == "'up'"
    assert lines["mix"] == "Linear" and lines["sides.right"] == "default"
    tagged = tag(model)
    assert type(tagged.mix) is gx.Remat and tagged.mix.layer.rule == "1"
    assert tagged.body[1].rule == "3" and tagged.sides.right is jnp.tanh


def test_explain_of_a_foreign_module_and_of_what_has_no_layers(capsys):
    tagging(eqx.nn.Linear).explain(mlp())
    assert capsys.readouterr().out.splitlines() == [
        "(root)            default",
        "layers.0          Linear",
        "layers.1          Linear",
        "layers.2          Linear",
        "activation        default",
        "final_activation  default",
    ]
    tagging().explain({"a": jnp.ones(2)})
    assert capsys.readouterr().out == ""


# --- Pure Equinox models ---


def test_dispatch_on_pure_equinox_models():
    @gx.dispatch
    def narrow(layer):
        return layer

    @narrow.register(eqx.nn.Linear)
    def _(layer):
        return gx.update(layer, weight=layer.weight / 2)

    @narrow.register("output_proj")
    def _(layer):
        return layer

    model = attention()
    halved = narrow(model)
    assert type(halved) is eqx.nn.MultiheadAttention
    assert bool((halved.query_proj.weight == model.query_proj.weight / 2).all())
    assert halved.output_proj is model.output_proj

    @narrow.register("layers[-1]")
    def _(layer):
        return layer

    net = mlp()
    x = jnp.ones(3)
    y = eqx.filter_jit(narrow(net))(x)
    h = x
    for layer in net.layers[:-1]:
        h = jax.nn.relu(layer.weight @ h / 2 + layer.bias)
    assert bool(jnp.allclose(y, net.layers[-1](h), atol=1e-6))
    both = narrow(mixer())
    assert bool((both.heads["odd"].weight == mixer().heads["odd"].weight / 2).all())


# --- The example of the debate ---


class Custom(eqx.Module):
    """A block of somebody's own: it knows nothing of graftax, nor graftax of it."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    extra: list
    name: str = eqx.field(static=True, default="custom")

    def __call__(self, x):
        return self.extra[0](self.norm(self.conv(x)))


def conv(n_in, n_out, seed):
    return eqx.nn.Conv2d(n_in, n_out, 3, padding=1, key=jax.random.key(seed))


class ConvBlock(gx.Chain):
    """A convolution and its activation."""


def debated(bottleneck=None):
    return gx.Chain(
        stem=conv(1, 4, 0),
        sides=gx.Parallel(
            left=gx.Chain(conv=conv(4, 4, 1)), right=gx.Chain(jnp.cos, conv(4, 4, 2)), op=sum
        ),
        skip=gx.SkipConnection(conv(4, 4, 3)),
        custom=Custom(conv(4, 4, 4), eqx.nn.GroupNorm(1, 4), [conv(4, 2, 5), jnp.sin]),
        bottleneck=bottleneck or conv(2, 2, 6),
    )


def use_tanh_of_the_design():
    @gx.dispatch
    def use_tanh(layer):
        return layer

    @use_tanh.register(eqx.nn.Conv2d)
    def _(layer):
        return gx.Chain(conv=layer, act=jnp.tanh)

    @use_tanh.register("bottleneck")
    def _(layer, path):
        return gx.Chain(named=layer, act=jnp.cos, why=Tag(path))

    return use_tanh


def test_the_example_of_the_design_works_as_written():
    model = debated()
    edited = use_tanh_of_the_design()(model)
    found = gx.select(edited, eqx.nn.Conv2d)
    assert found.paths == (
        "stem.conv",
        "sides.left.conv.conv",
        "sides.right.1.conv",
        "skip.0.conv",
        "custom.conv.conv",
        "custom.extra.0.conv",
        "bottleneck.named",
    )
    assert found.nodes == gx.select(model, eqx.nn.Conv2d).nodes
    assert edited.bottleneck.why.rule == "bottleneck"
    assert [type(layer) for layer in edited] == [
        gx.Chain,
        gx.Parallel,
        gx.SkipConnection,
        Custom,
        gx.Chain,
    ]
    assert edited.custom.norm is model.custom.norm and edited.custom.extra[1] is jnp.sin

    x = jnp.linspace(-1.0, 1.0, 16).reshape(1, 4, 4)
    h = jnp.tanh(model.stem(x))
    h = jnp.tanh(model.sides.left.conv(h)) + jnp.tanh(model.sides.right[1](jnp.cos(h)))
    h = jnp.tanh(model.skip[0](h)) + h
    h = jnp.tanh(model.custom.extra[0](model.custom.norm(jnp.tanh(model.custom.conv(h)))))
    expected = jnp.cos(model.bottleneck(h))
    assert bool(jnp.allclose(eqx.filter_jit(edited)(x), expected, atol=1e-5))


def test_the_activations_that_belong_to_convolutions_become_tanh_and_no_others():
    """The debate's own question, where an activation belongs to the Conv that stands before it."""

    @gx.dispatch
    def use_tanh(layer):
        return layer

    @use_tanh.register(ConvBlock)
    def _(layer):
        return gx.update(layer, act=jnp.tanh)

    def block(seed):
        return ConvBlock(conv=conv(4, 4, seed), act=jax.nn.relu)

    class Own(eqx.Module):
        first: ConvBlock
        others: dict

        def __call__(self, x):
            return self.others["act"](self.others["block"](self.first(x)))

    model = gx.Chain(
        stem=block(0),
        sides=gx.Parallel(a=block(1), b=gx.SkipConnection(block(2), jax.nn.relu), op=sum),
        own=Own(block(3), {"block": block(4), "act": jax.nn.relu}),
        act=jax.nn.relu,
    )
    edited = use_tanh(model)
    relus = gx.select(edited, lambda node: node is jax.nn.relu).paths
    tanhs = gx.select(edited, lambda node: node is jnp.tanh).paths
    assert relus == ("sides.b.1", "own.others.act", "act")
    assert tanhs == (
        "stem.act",
        "sides.a.act",
        "sides.b.0.act",
        "own.first.act",
        "own.others.block.act",
    )
    assert type(edited.own) is Own and type(edited.sides) is gx.Parallel
    x = jnp.ones((4, 3, 3))
    assert edited(x).shape == model(x).shape
    weights = gx.select(edited, "weight").nodes
    assert all(a is b for a, b in zip(weights, gx.select(model, "weight").nodes, strict=True))


def test_a_rewritten_model_trains():
    model = use_tanh_of_the_design()(debated())
    x = jnp.ones((1, 4, 4))
    grads = eqx.filter_jit(eqx.filter_grad(lambda model: jnp.sum(model(x) ** 2)))(model)
    assert all(bool(jnp.abs(node).sum() > 0) for node in gx.select(grads, "conv.weight"))
