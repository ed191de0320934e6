"""The edits of a selection: each gives a new model and leaves the old one as it was."""

import functools
from collections import OrderedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import graftax as gx
from common_containers import same_arrays, without_annotation_checks
from common_surgery import (
    FOREIGN,
    Bottleneck,
    Point,
    arrays,
    attention,
    labelled_model,
    linear,
    mixer,
    mlp,
    untouched,
)


class Norm(eqx.Module):
    """A layer with a mode, and nothing else."""

    inference: bool = False

    def __call__(self, x):
        return x


# --- apply ---


def test_apply_gives_each_node_to_the_function():
    model = labelled_model()
    edited = gx.select(model, "up").apply(lambda layer: gx.Chain(up=layer, act=jnp.tanh))
    for old, new in zip(model.body, edited.body, strict=True):
        assert new.up.up is old.up and new.up.act is jnp.tanh
    x = jnp.ones(4)
    assert bool((edited.body[0](x) == jnp.tanh(model.body[0].up(_hidden(model, x))) + x).all())


def _hidden(model, x):
    return jax.nn.relu(model.body[0].down(x))


def test_an_edit_leaves_the_old_model_alone():
    model = labelled_model()
    before = jax.tree.leaves(model), jax.tree.structure(model)
    gx.select(model, "weight").apply(lambda w: 0 * w)
    gx.select(model, "head").remove()
    after = jax.tree.leaves(model), jax.tree.structure(model)
    assert before[1] == after[1] and all(a is b for a, b in zip(before[0], after[0], strict=True))


def test_an_edit_shares_every_array_it_did_not_touch_and_every_node_off_the_spine():
    model = labelled_model()
    edited = gx.select(model, "body.0.up.weight").apply(lambda w: 2 * w)
    assert untouched(model, edited, "body.0.up.weight")
    assert edited.stem is model.stem and edited.body[1] is model.body[1]
    assert edited.body[0].down is model.body[0].down
    assert edited.body[0].up.bias is model.body[0].up.bias
    assert edited.body[0].up is not model.body[0].up


def test_an_edit_that_changes_nothing_gives_the_model_itself():
    model = labelled_model()
    assert gx.select(model, "**").apply(lambda node: node) is model


def test_nested_matches_are_edited_from_the_bottom_up():
    model = gx.Chain(a=gx.Chain(b=gx.Chain(c=jnp.sin)))
    seen = []

    def mark(node, path):
        seen.append(path)
        return gx.Chain(marked=node)

    edited = gx.select(model, gx.Chain).apply(mark)
    assert seen == ["a.b", "a", ""]
    assert edited.marked.a.marked.b.marked.c is jnp.sin


def test_all_matches_are_edited_in_one_pass():
    rebuilt = []

    class Spied(gx.Chain):
        def tree_replace(self, new):
            rebuilt.append(sorted(new))
            return super().tree_replace(new)

    model = gx.Chain(Spied(*(Spied(jnp.sin, jnp.cos) for _ in range(3))), Spied(jnp.sin))
    gx.select(model, "0.**", lambda node: node is jnp.sin).set(jnp.tanh)
    # The inner ones each once with their first child, the outer one once with all three.
    assert rebuilt == [[0], [0], [0], [0, 1, 2]]


def test_a_function_is_given_a_key_of_its_own_for_each_match():
    model = labelled_model()
    key = jax.random.key(0)

    def fresh(layer, key):
        return eqx.nn.Linear(layer.in_features, layer.out_features, key=key)

    edited = gx.select(model, "up").apply(fresh, key=key)
    first, second = edited.body[0].up.weight, edited.body[1].up.weight
    assert not bool((first == second).any())
    again = gx.select(model, "up").apply(fresh, key=key)
    assert same_arrays(edited, again)
    other = gx.select(model, "up").apply(fresh, key=jax.random.key(1))
    assert not bool((other.body[0].up.weight == first).any())


def test_the_key_of_a_match_depends_on_its_path_alone():
    model, key = labelled_model(), jax.random.key(0)

    def fresh(layer, key):
        return eqx.nn.Linear(4, 4, key=key)

    one = gx.select(model, "body.1.up").apply(fresh, key=key)
    all_of_them = gx.select(model, ["up", "head"]).apply(fresh, key=key)
    assert same_arrays(one.body[1].up, all_of_them.body[1].up)


def test_a_function_is_given_its_path_if_it_declares_it():
    model = labelled_model()
    seen = []
    gx.select(model, "up").apply(lambda layer, path: seen.append(path) or layer)
    gx.select(model, "").apply(lambda layer, *, path="no": seen.append(path) or layer)
    assert seen == ["body.0.up", "body.1.up", ""]


def test_partials_classes_and_functions_with_any_keyword_take_a_key():
    model, key = labelled_model(), jax.random.key(0)
    partial = gx.select(model, "up").apply(functools.partial(gx.LoRA, rank=1), key=key)
    spread = gx.select(model, "up").apply(lambda layer, **kw: gx.LoRA(layer, 1, **kw), key=key)
    assert same_arrays(partial, spread)
    assert type(gx.select(model, "up").apply(gx.Remat).body[0].up) is gx.Remat


def test_a_key_that_is_needed_and_not_given_is_an_error():
    with pytest.raises(TypeError, match=r"^<lambda> needs a random key: give key=jax\.random\.key"):
        gx.select(labelled_model(), "up").apply(lambda layer, key: layer)
    with pytest.raises(TypeError, match=r"^partial\(LoRA\) needs a random key"):
        gx.select(labelled_model(), "up").apply(functools.partial(gx.LoRA, rank=1))


def test_a_key_that_is_given_and_not_taken_is_an_error():
    with pytest.raises(
        TypeError, match=r"^A key was given, but <lambda> declares no parameter `key`"
    ):
        gx.select(labelled_model(), "up").apply(lambda layer: layer, key=jax.random.key(0))


def test_what_is_no_function_is_refused():
    with (
        without_annotation_checks(),
        pytest.raises(TypeError, match=r"^A function of the node is needed; got 3 of type int.$"),
    ):
        gx.select(labelled_model(), "up").apply(3)


def test_the_lora_line_of_the_design_works_as_written():
    m = gx.Chain(
        encoder=gx.Chain(
            *(
                gx.Chain(
                    attention=gx.Parallel(
                        query=linear(4, 4, i), key=linear(4, 4, i + 10), value=linear(4, 4, i + 20)
                    )
                )
                for i in range(3)
            )
        )
    )
    key = jax.random.key(0)
    adapted = gx.select(m, "encoder[-2:].attention.{query,value}", eqx.nn.Linear).apply(
        lambda layer, key: gx.LoRA(layer, rank=8, key=key), key=key
    )
    assert gx.select(adapted, gx.LoRA).paths == (
        "encoder.1.attention.query",
        "encoder.1.attention.value",
        "encoder.2.attention.query",
        "encoder.2.attention.value",
    )


# --- set, set_each ---


def test_set_puts_one_value_in_the_place_of_each():
    edited = gx.select(labelled_model(), "act").set(jnp.tanh)
    assert all(block.act is jnp.tanh for block in edited.body)


def test_set_of_the_root_is_the_value():
    value = gx.Chain(a=jnp.sin)
    assert gx.select(labelled_model(), "").set(value) is value


def test_set_of_a_node_and_of_its_parent_leaves_the_parent():
    edited = gx.select({"a": {"b": 1}, "c": 2}, ["a", "a.b"]).set(5)
    assert edited == {"a": 5, "c": 2}


def test_set_each_puts_the_values_in_order():
    model = labelled_model()
    weights = [jnp.zeros((4, 2)), jnp.ones((4, 2))]
    found = gx.select(model, "body.*.up.weight")
    edited = found.set_each(weights)
    assert edited.body[0].up.weight is weights[0] and edited.body[1].up.weight is weights[1]
    backwards = found[::-1].set_each(weights)
    assert backwards.body[1].up.weight is weights[0] and backwards.body[0].up.weight is weights[1]
    from_iterator = found.set_each(tuple(weights))
    assert same_arrays(edited, from_iterator)


def test_set_each_of_the_nodes_read_is_the_model():
    model = labelled_model()
    found = gx.select(model, eqx.nn.Linear)
    assert found.set_each(found.nodes) is model


def test_set_each_needs_as_many_values_as_nodes():
    with pytest.raises(gx.MatchError, match=r"^2 nodes are selected; 3 values were given\.$"):
        gx.select(labelled_model(), "up").set_each([1, 2, 3])


# --- update ---


def test_update_changes_fields_static_ones_too():
    model = gx.Chain(a=eqx.nn.Conv1d(1, 1, 3, key=jax.random.key(0)))
    edited = gx.select(model, eqx.nn.Conv1d).update(stride=(2,), padding=((1, 1),))
    assert edited.a.stride == (2,) and edited.a.weight is model.a.weight
    assert edited(jnp.ones((1, 9))).shape == (1, 5)


def test_update_with_an_unknown_field_names_the_nearest():
    message = (
        r"^Linear has no field 'biass'. Its fields are: weight, bias, .* Did you mean 'bias'\?\n"
        r"In Linear at 'body\.0\.up'\.$"
    )
    with pytest.raises(AttributeError, match=message):
        gx.select(labelled_model(), "up").update(biass=None)


def test_update_of_a_label_such_as_self():
    model = gx.Chain({"self": jnp.sin, "node": jnp.cos})
    assert gx.select(model, "").update(self=jnp.tanh, node=jnp.exp)["self"] is jnp.tanh
    assert gx.update(model, node=jnp.tanh).node is jnp.tanh


# --- remove ---


def test_remove_leaves_the_matches_out():
    model = labelled_model()
    edited = gx.select(model, ["stem", "body.0", "act"]).remove()
    assert edited.labels == ("body", "sides", "mix", "head")
    assert len(edited.body) == 1 and edited.body[0].labels == ("down", "up")
    assert edited.body[0].down is model.body[1].down
    assert type(edited.body[0]) is Bottleneck


def test_remove_keeps_the_class_op_and_shortcut_of_the_container():
    block = Bottleneck(a=jnp.sin, b=jnp.cos, op=jnp.multiply, shortcut=jnp.tanh)
    edited = gx.select(gx.Chain(block), "b").remove()[0]
    assert edited.op is jnp.multiply and edited.shortcut is jnp.tanh and edited.labels == ("a",)


def test_remove_of_a_shortcut_leaves_the_identity():
    block = Bottleneck(a=jnp.sin, shortcut=jnp.tanh)
    edited = gx.select(block, "shortcut").remove()
    assert edited.shortcut is None and edited.labels == ("a",)
    assert float(edited(1.0)) == pytest.approx(float(jnp.sin(1.0) + 1.0))


def test_remove_from_lists_tuples_and_dicts():
    tree = {"a": [1, 2, 3], "b": (4, 5), "c": OrderedDict(z=6, y=7), "d": 8}
    assert gx.select(tree, ["a[1]", "b[0]", "c.z", ".d"]).remove() == {
        "a": [1, 3],
        "b": (5,),
        "c": OrderedDict(y=7),
    }


def test_remove_of_a_wrapped_layer_takes_the_wrapper_along():
    assert gx.select(labelled_model(), "mix", eqx.nn.Linear).remove().labels == (
        "stem",
        "body",
        "sides",
        "head",
    )


def test_the_root_cannot_be_removed():
    message = "^The root cannot be removed: it stands in no container.$"
    for model, criterion in (
        (labelled_model(), ""),
        (gx.Remat(jnp.sin), "**"),
        (mlp(), eqx.nn.MLP),
    ):
        with pytest.raises(ValueError, match=message):
            gx.select(model, criterion)[0].remove()


@pytest.mark.parametrize(
    ("model", "path", "message"),
    [
        (
            mlp(),
            "layers.0.bias",
            r"^'bias' of Linear at 'layers.0' cannot be removed: it is a field",
        ),
        (arrays(), "point.x", "^'x' of Point at 'point' cannot be removed: it is a field"),
        (
            mlp(),
            ".activation",
            "^'activation' of the root, a MLP, cannot be removed: it is a field",
        ),
        (
            gx.Parallel(a=jnp.sin),
            ".op",
            "^'op' of the root, a Parallel, cannot be removed: it is no layer in an order.$",
        ),
    ],
)
def test_a_field_of_a_class_cannot_be_removed(model, path, message):
    with pytest.raises(ValueError, match=message):
        gx.select(model, path).remove()


def test_the_last_branch_of_a_parallel_cannot_be_removed():
    with pytest.raises(ValueError, match=r"Parallel needs at least one branch; it got none"):
        gx.select(gx.Chain(p=gx.Parallel(a=jnp.sin)), "a").remove()


# --- insert_before, insert_after ---


def test_insert_before_and_after_by_label():
    model = labelled_model()
    before = gx.select(model, "head").insert_before(norm=jnp.sin, act=jnp.cos)
    assert before.labels == ("stem", "body", "sides", "mix", "norm", "act", "head")
    after = gx.select(model, "head").insert_after(norm=jnp.sin, act=jnp.cos)
    assert after.labels == ("stem", "body", "sides", "mix", "head", "norm", "act")
    assert after.norm is jnp.sin and after.head is model.head
    x = jnp.ones(3)
    assert bool(jnp.allclose(after(x), jnp.cos(jnp.sin(model(x)))))


def test_insert_by_position():
    model = labelled_model()
    edited = gx.select(model, "body[1]").insert_before(jnp.sin, jnp.cos)
    assert list(edited.body) == [model.body[0], jnp.sin, jnp.cos, model.body[1]]
    edited = gx.select(model, "body.*", Bottleneck).insert_after(jnp.sin)
    assert list(edited.body) == [model.body[0], jnp.sin, model.body[1], jnp.sin]


def test_insert_at_each_match():
    edited = gx.select(labelled_model(), "down").insert_after(drop=eqx.nn.Dropout(0.5))
    assert [block.labels for block in edited.body] == [("down", "drop", "act", "up")] * 2
    assert type(edited.body[0]) is Bottleneck


def test_insert_beside_a_wrapped_layer_is_beside_the_wrapper():
    model = labelled_model()
    edited = gx.select(model, "mix", eqx.nn.Linear).insert_after(act=jnp.tanh)
    assert edited.labels == ("stem", "body", "sides", "mix", "act", "head")
    assert edited.mix is model.mix


def test_insert_inside_what_a_wrapper_holds_keeps_the_wrapper():
    model = gx.Chain(block=gx.Remat(gx.Chain(a=jnp.sin)))
    edited = gx.select(model, "block.a").insert_after(b=jnp.cos)
    assert type(edited.block) is gx.Remat and edited.block.labels == ("a", "b")


def test_insert_into_foreign_lists_tuples_and_dicts():
    model = mlp()
    edited = gx.select(model, "layers[1]").insert_before(linear(4, 4, 9))
    assert len(edited.layers) == 4 and edited.layers[2] is model.layers[1]
    assert edited(jnp.ones(3)).shape == (2,)
    assert gx.select(arrays(), "decoder.scale").insert_after(new=1)["decoder"].keys() == {
        "scale",
        "shift",
        "new",
    }
    assert gx.select([1, 2], "[0]").insert_after(5, 6) == [1, 5, 6, 2]


def test_labels_such_as_self_can_be_inserted():
    edited = gx.select(gx.Chain(a=jnp.sin), "a").insert_after(self=jnp.cos, layers_=jnp.tanh)
    assert edited.labels == ("a", "self", "layers_")


def test_nothing_can_be_inserted_beside_the_root():
    message = (
        r"^The root cannot be given a neighbour: it stands in no container\. "
        r"`\.then\(label=layer\)` puts a layer behind it\.$"
    )
    with pytest.raises(ValueError, match=message):
        gx.select(labelled_model(), "").insert_before(norm=jnp.sin)
    with pytest.raises(ValueError, match=message):
        gx.select(mlp(), eqx.nn.MLP).insert_after(jnp.sin)


def test_a_duplicate_label_is_refused():
    message = "^In Chain at 'body': 'b' cannot be a label in Chain: it is used twice"
    model = gx.Chain(body=gx.Chain(a=jnp.sin, b=jnp.cos))
    with pytest.raises(ValueError, match=message):
        gx.select(model, "a").insert_after(b=jnp.tanh)
    with pytest.raises(ValueError, match=r"^In the root, a Chain: 'new' cannot be .* used twice"):
        gx.select(gx.Chain(a=jnp.sin, b=jnp.cos), "*").insert_after(new=jnp.tanh)


def test_a_label_that_is_no_label_is_refused():
    with pytest.raises(ValueError, match=r"^In the root, a Chain: 'op' cannot be a label in Chain"):
        gx.select(gx.Chain(a=jnp.sin), "a").insert_after(op=jnp.tanh)


def test_labels_and_positions_do_not_mix():
    with pytest.raises(
        ValueError, match=r"by position or by label, not both: new would be labelled"
    ):
        gx.select(labelled_model(), "body[0]").insert_after(new=jnp.tanh)
    with pytest.raises(ValueError, match=r"by position or by label, not both: stem, body, "):
        gx.select(labelled_model(), "head").insert_after(jnp.tanh)


def test_a_label_in_a_list_is_refused():
    with pytest.raises(
        ValueError, match=r"A tuple has positions, not labels: 'new' cannot stand in it"
    ):
        gx.select(mlp(), "layers[0]").insert_after(new=linear(4, 4, 0))


def test_a_value_without_a_key_in_a_dict_is_refused():
    with pytest.raises(ValueError, match=r"The keys of a dict must be given and must differ"):
        gx.select(arrays(), "decoder.scale").insert_after(jnp.ones(3))


def test_what_is_no_layer_cannot_be_inserted_into_a_container():
    with pytest.raises(
        TypeError, match=r"^In the root, a Chain: Layer 'new' of Chain must be callable.*; got 3 of"
    ):
        gx.select(labelled_model(), "head").insert_after(new=3)
    with pytest.raises(
        TypeError, match=r"A layer of Chain must be callable.*; got 'x' of type str"
    ):
        gx.select(labelled_model(), "body[0]").insert_before("x")


def test_there_must_be_something_to_insert():
    with pytest.raises(TypeError, match=r"^There is nothing to insert"):
        gx.select(labelled_model(), "head").insert_after()


@pytest.mark.parametrize("path", ["op", "shortcut"])
def test_nothing_can_be_inserted_beside_a_field_of_a_container(path):
    block = Bottleneck(a=jnp.sin, shortcut=jnp.tanh)
    with pytest.raises(
        ValueError, match=rf"^'{path}' of the root, a Bottleneck, cannot be given a nei"
    ):
        gx.select(block, path).insert_after(b=jnp.cos)


# --- rename ---


def test_rename_changes_the_label_and_nothing_else():
    model = labelled_model()
    edited = gx.select(model, "down").rename("reduce")
    assert [block.labels for block in edited.body] == [("reduce", "act", "up")] * 2
    assert edited.body[0].reduce is model.body[0].down
    assert type(edited.body[0]) is Bottleneck
    x = jnp.ones(3)
    assert bool((edited(x) == model(x)).all())


def test_rename_and_rename_back_is_the_model():
    model = labelled_model()
    there = gx.select(model, "down").rename("reduce")
    assert same_arrays(gx.select(there, "reduce").rename("down"), model)
    assert same_arrays(gx.select(model, "down").rename("down"), model)


def test_rename_of_a_wrapped_layer():
    edited = gx.select(labelled_model(), "mix", eqx.nn.Linear).rename("blend")
    assert edited.labels[3] == "blend" and type(edited.blend) is gx.Remat


def test_rename_of_a_key_of_a_dict():
    tree = arrays()
    edited = gx.select(tree, "decoder").rename("generator")
    assert edited.keys() == {"generator", "encoder", "point"}
    assert edited["generator"] is tree["decoder"]


def test_rename_of_nested_matches():
    model = gx.Chain(a=gx.Chain(a=gx.Chain(a=jnp.sin)))
    edited = gx.select(model, "a").rename("b")
    assert [path for path, _ in gx.walk(edited)] == ["", "b", "b.b", "b.b.b"]


def test_a_taken_label_is_refused():
    with pytest.raises(
        ValueError,
        match=r"^In the root, a Chain: 'head' cannot be a label in Chain: it is used twice.$",
    ):
        gx.select(labelled_model(), "stem").rename("head")
    with pytest.raises(ValueError, match=r"^In Bottleneck at 'body.0': 'new' .* it is used twice"):
        gx.select(labelled_model(), "body.0.{up,down}").rename("new")
    with pytest.raises(
        ValueError, match=r"In dict at 'decoder': The keys of a dict .* must differ"
    ):
        gx.select(arrays(), "decoder.scale").rename("shift")


def test_rename_refuses_positions_fields_the_root_and_what_is_no_label():
    with pytest.raises(ValueError, match=r"^The node at position 0 has no label to change.$"):
        gx.select(labelled_model(), "body[0]").rename("first")
    with pytest.raises(ValueError, match=r"^'bias' of Linear at 'stem' cannot be renamed"):
        gx.select(labelled_model(), "stem.bias").rename("shift")
    with pytest.raises(ValueError, match=r"^The root cannot be renamed"):
        gx.select(labelled_model(), "").rename("model")
    with pytest.raises(
        ValueError, match=r"'two words' cannot be a label in Chain: it is not a Python"
    ):
        gx.select(labelled_model(), "stem").rename("two words")
    with (
        without_annotation_checks(),
        pytest.raises(TypeError, match=r"^A label is a string; got 3.$"),
    ):
        gx.select(labelled_model(), "stem").rename(3)


# --- mask, partition ---


# --- Empty selections ---

EDITS = {
    "apply": lambda found: found.apply(lambda node: node),
    "set": lambda found: found.set(None),
    "set_each": lambda found: found.set_each([]),
    "update": lambda found: found.update(a=1),
    "remove": lambda found: found.remove(),
    "insert_before": lambda found: found.insert_before(a=jnp.sin),
    "insert_after": lambda found: found.insert_after(jnp.sin),
    "rename": lambda found: found.rename("a"),
    "mask": lambda found: found.mask(),
    "partition": lambda found: found.partition(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_or_mask_of_an_empty_selection_is_an_error_with_the_nearest_path(edit):
    with pytest.raises(
        gx.NoMatchError, match=r"No label matches 'haed'\. Did you mean 'head' \(head\)"
    ):
        EDITS[edit](gx.select(labelled_model(), "haed"))


# --- Foreign trees, and what edits give to JAX ---


@pytest.mark.parametrize("name", FOREIGN)
def test_apply_and_set_on_foreign_trees(name):
    tree = FOREIGN[name]()
    found = gx.select(tree, eqx.is_inexact_array)
    doubled = found.apply(lambda leaf: leaf + 1)
    assert jax.tree.structure(doubled) == jax.tree.structure(tree)
    assert untouched(tree, doubled, *found.paths)
    for old, new in zip(found.nodes, gx.select(doubled, eqx.is_inexact_array).nodes, strict=True):
        assert bool((new == old + 1).all())
    assert untouched(tree, gx.select(doubled, eqx.is_inexact_array).set_each(found.nodes))


def test_replacing_a_projection_of_foreign_attention():
    model = attention()
    edited = gx.select(model, "query_proj").update(weight=jnp.zeros((4, 4)))
    assert edited.key_proj is model.key_proj
    q = jnp.ones((3, 4))
    # With no query, attention is the mean over the values.
    expected = jax.vmap(model.output_proj)(jnp.broadcast_to(jax.vmap(model.value_proj)(q), (3, 4)))
    assert bool(jnp.allclose(edited(q, q, q), expected, atol=1e-6))


def test_editing_an_optimiser_state():
    optimiser = optax.adam(1e-3)
    state = optimiser.init(arrays())
    edited = gx.select(state, "0.{mu,nu}.decoder.scale").apply(lambda a: a + 1)
    assert type(edited[0]) is type(state[0])
    assert bool((edited[0].mu["decoder"]["scale"] == 1).all())
    assert edited[0].mu["encoder"] is state[0].mu["encoder"]
    assert gx.select(state, "count").set(jnp.array(5))[0].count == 5


def test_edits_of_named_tuples():
    tree = {"p": Point(1, Point(2, 3))}
    assert gx.select(tree, "x").apply(lambda x: 10 * x) == {"p": Point(10, Point(20, 3))}
    assert gx.select(tree, Point, lambda p: p.x == 2).update(y=None) == {
        "p": Point(1, Point(2, None))
    }


def test_an_edited_module_works_under_jit_vmap_and_grad():
    model = gx.select(mixer(), "layers[1]").set(jnp.tanh)
    xs = jnp.linspace(0.0, 1.0, 12).reshape(4, 3)
    expected = jnp.stack([model(x)["odd"] for x in xs])
    assert bool(
        jnp.allclose(eqx.filter_jit(eqx.filter_vmap(model))(xs)["odd"], expected, atol=1e-6)
    )
    grads = eqx.filter_grad(lambda m: m(xs[0])["even"].sum())(model)
    assert float(jnp.abs(grads.layers[0].weight).sum()) > 0


def test_an_edit_inside_jit_and_vmap_is_the_edit_outside():
    model = labelled_model()

    def scaled(scale):
        return gx.select(model, "weight").apply(lambda w: scale * w)

    outside = scaled(3.0)
    assert same_arrays(eqx.filter_jit(scaled)(3.0), outside)
    many = eqx.filter_vmap(scaled)(jnp.arange(3.0))
    assert bool((many.head.weight[2] == 2 * model.head.weight).all())


def test_every_edit_on_a_module_of_a_users_own():
    model = mixer()
    edits = {
        "remove": gx.select(model, "layers[1]").remove(),
        "insert": gx.select(model, "layers[0]").insert_after(jnp.sin),
        "rename": gx.select(model, "odd").rename("prime"),
        "insert_key": gx.select(model, "heads.odd").insert_before(prime=linear(4, 1, 7)),
        "remove_key": gx.select(model, "heads.odd").remove(),
        "update": gx.select(model, "").update(name="other", scale=2 * model.scale),
    }
    assert [len(edited.layers) for edited in edits.values()] == [2, 4, 3, 3, 3, 3]
    assert edits["rename"].heads.keys() == {"even", "prime"}
    assert edits["insert_key"].heads.keys() == {"even", "odd", "prime"}
    assert edits["remove_key"].heads.keys() == {"even"}
    assert edits["update"].name == "other"
    x = jnp.ones(3)
    for edited in edits.values():
        assert type(edited) is type(model) and edited.layers[0] is model.layers[0]
        assert edited(x).keys() == edited.heads.keys()
    assert bool((edits["update"](x)["even"] == 2 * model(x)["even"]).all())


def test_a_selection_can_be_used_again():
    model = labelled_model()
    found = gx.select(model, "up")
    assert same_arrays(found.remove(), found.remove())
    assert found.set(jnp.sin).body[0].up is jnp.sin and found.nodes[0] is model.body[0].up


# --- replace_where ---


def test_replace_where_is_select_and_apply():
    model, key = labelled_model(), jax.random.key(0)

    def fresh(layer, key, path):
        return eqx.nn.Linear(len(path), 1, key=key)

    expected = gx.select(model, "up").apply(fresh, key=key)
    assert same_arrays(model.replace_where("up", fresh, key), expected)
    assert same_arrays(gx.replace_where(model, "up", fresh, key=key), expected)
    assert gx.replace_where(mlp(), eqx.nn.Linear, lambda _: jnp.sin).layers == (jnp.sin,) * 3


def test_replace_where_passes_through_wrappers():
    wrapped = gx.Remat(labelled_model())
    edited = wrapped.replace_where("act", lambda _: jnp.tanh)
    assert type(edited) is gx.Remat and edited.body[0].act is jnp.tanh


def test_replace_where_of_nothing_is_an_error():
    with pytest.raises(gx.NoMatchError, match=r"Did you mean 'stem'"):
        labelled_model().replace_where("stemm", lambda layer: layer)


# --- Inference mode ---


@pytest.mark.parametrize("mode", [True, False])
def test_what_is_put_in_takes_on_the_mode_that_the_layers_agree_on(mode):
    model = eqx.nn.inference_mode(gx.Chain(a=Norm(), b=gx.Chain(c=Norm(), d=jnp.sin)), mode)
    new = gx.Chain(x=eqx.nn.Dropout(0.5, inference=not mode), y=[Norm(not mode)][0])
    edits = [
        gx.select(model, "d").set(new).b.d,
        gx.select(model, "d").set_each([new]).b.d,
        gx.select(model, "d").apply(lambda _: new).b.d,
        gx.select(model, "b").update(d=new).b.d,
        gx.select(model, "d").insert_before(new=new).b.new,
        gx.select(model, "d").insert_after(new=new).b.new,
        model.replace_where("d", lambda _: new).b.d,
    ]
    for put_in in edits:
        assert put_in.x.inference is mode and put_in.y.inference is mode
    assert new.x.inference is (not mode)


def test_where_the_layers_disagree_or_have_no_mode_what_is_put_in_keeps_its_own():
    new = Norm(True)
    divided = gx.Chain(a=Norm(True), b=Norm(False), c=jnp.sin)
    assert gx.select(divided, "c").set(new).c is new
    assert gx.select(gx.Chain(c=jnp.sin), "c").set(Norm(False)).c.inference is False
    assert gx.select(gx.Chain(c=jnp.sin), "c").insert_after(d=new).d is new


def test_a_mode_that_was_changed_on_purpose_stays():
    model = gx.Chain(a=Norm(), b=Norm())
    assert gx.select(model, "a").update(inference=True).a.inference is True
    assert gx.select(model, "a").apply(eqx.nn.inference_mode).a.inference is True
    assert gx.select(model, "a.inference").set(True).a.inference is True
    assert gx.select(model, "").update(a=Norm(True)).a.inference is True
    dropout = gx.Chain(a=eqx.nn.Dropout(0.5), b=Norm())
    changed = gx.select(dropout, "a").update(inference=True, p=0.1).a
    assert changed.inference is True and changed.p == 0.1


def test_mode_reaches_what_wrappers_and_foreign_modules_hold():
    model = eqx.nn.inference_mode(gx.Chain(a=gx.Remat(Norm()), b=jnp.sin))
    attention = eqx.nn.MultiheadAttention(1, 2, dropout_p=0.5, key=jax.random.key(0))
    edited = gx.select(model, "b").set(gx.Remat(attention))
    assert edited.b.dropout.inference is True
    foreign = {"layers": [Norm(True)], "head": jnp.sin}
    assert gx.select(foreign, "head").set(Norm(False))["head"].inference is True


def test_mode_adoption_shares_the_arrays_of_what_is_put_in():
    model = eqx.nn.inference_mode(gx.Chain(a=Norm(), b=jnp.sin))
    new = gx.Chain(l=linear(2, 2, 0), drop=eqx.nn.Dropout(0.5))
    edited = gx.select(model, "b").set(new)
    assert edited.b.l is new.l and edited.b.drop.inference is True


# --- Messages point at the place ---


def test_messages_name_the_container_by_path():
    tree = {"body": {"items": [1]}}
    with pytest.raises(
        ValueError, match=r"^In list at 'body\.items': A list has positions, not labels"
    ):
        gx.select(tree, "body.items[0]").insert_after(a=2)
    with pytest.raises(ValueError, match=r"^'bias' of Linear at 'body\.0\.up' cannot be removed"):
        gx.select(labelled_model(), "body[0].up.bias").remove()
