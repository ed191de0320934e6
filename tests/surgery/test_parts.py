"""Leaves inside of nodes: how many, which train, and trees made of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import graftax as gx
from common_containers import same_arrays
from common_surgery import FOREIGN, labelled_model, linear, untouched


def test_size_counts_parameters_and_nbytes_counts_all_arrays():
    tree = {
        "real": jnp.ones((2, 3)),
        "complex": jnp.ones(2, jnp.complex64),
        "half": jnp.ones(4, jnp.bfloat16),
        "count": jnp.arange(5),
        "flag": True,
        "number": 2.5,
    }
    everything = gx.select(tree, "")
    assert everything.size == 6 + 2 + 4
    assert everything.nbytes == 6 * 4 + 2 * 8 + 4 * 2 + 5 * 4


def test_size_counts_what_trains_apart_and_nbytes_what_is_in_memory():
    shared = jnp.ones(3)
    found = gx.select({"a": shared, "b": [shared]}, "**")
    assert len(found) == 4  # the root, "a", "b", "b.0": matches inside matches, too
    assert (found.size, found.nbytes) == (6, 12)


def test_a_layer_that_stands_twice_trains_as_two_and_a_tied_one_as_one():
    layer = linear(3, 3, 0)
    twice = gx.Chain(a=layer, b=layer)
    assert gx.select(twice, "").size == 24 and gx.select(twice, "a").size == 12
    grads = eqx.filter_grad(lambda m: jnp.sum(m(jnp.ones(3)) ** 2))(twice)
    assert gx.select(grads, "").size == 24
    tied = gx.tie(gx.Chain(a=layer, b=linear(3, 3, 1)), "a.weight", "b.weight")
    assert gx.select(tied, "").size == gx.select(tied, ["a", "b"]).size == 9 + 3 + 3
    assert gx.select(tied, "b").size == 12


def test_size_counts_quantised_weights_and_no_other_integers():
    tree = {f"{dtype}": jnp.ones(2, dtype) for dtype in ("int4", "int8", "uint8", "int16", "int32")}
    assert gx.select(tree, "").size == 6
    assert gx.select({"flags": jnp.ones(2, bool)}, "").size == 0
    layer = linear(4, 3, 0)
    quantized = gx.quantize(layer)
    assert gx.select(quantized, "").size == gx.select(layer, "").size + 3  # a scale for each output


def test_size_of_a_model_that_was_only_described():
    described = eqx.filter_eval_shape(lambda: linear(4, 3, 0))
    assert gx.select(described, "").size == 15 and gx.select(described, "").nbytes == 60


def test_statistics_are_no_parameters():
    norm = eqx.nn.BatchNorm(5, axis_name="batch", mode="batch")
    found = gx.select(gx.Chain(norm=norm), "norm")
    assert found.size == 5 + 5
    assert found.nbytes == (5 + 5 + 5 + 5) * 4 + 4


def test_size_is_known_for_random_keys_and_shapes():
    found = gx.select({"key": jax.random.key(0), "w": jnp.ones(2)}, "")
    assert found.size == 2
    assert found.nbytes == 2 * 4 + 2 * 4


def test_mask_is_true_at_the_trainable_arrays_inside():
    model = labelled_model()
    mask = gx.select(model, ["head", "body.0.up.weight", "act"]).mask()
    assert jax.tree.structure(mask) == jax.tree.structure(model)
    true = {path for path, node in gx.walk(mask) if node is True}
    assert true == {"head.weight", "head.bias", "body.0.up.weight"}
    assert all(leaf in (True, False) for leaf in jax.tree.leaves(mask))


def test_mask_of_the_root_is_true_at_all_that_trains():
    model = labelled_model()
    assert same_arrays(gx.select(model, "").mask(), jax.tree.map(eqx.is_inexact_array, model))
    assert all(jax.tree.leaves(gx.select(model, "").mask(True)))
    assert not any(jax.tree.leaves(gx.select(model, "").mask(False)))


def test_another_filter_says_which_leaves_are_meant():
    model = gx.Chain(
        a=gx.QuantizedLinear(jnp.ones((2, 2), jnp.int8), jnp.ones(2), None), act=jax.nn.relu
    )
    found = gx.select(model, "a")
    masks = [found.mask(), found.mask(eqx.is_array)]
    assert [(m.a.weight, m.a.scale, m.act) for m in masks] == [
        (False, True, False),
        (True, True, False),
    ]
    selected, rest = found.partition(eqx.is_array)
    assert selected.a.weight is model.a.weight and rest.a.scale is None


def test_statistics_are_no_part_of_what_trains():
    norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="ema")
    model = gx.Chain(norm=norm, head=linear(3, 3, 0))
    selected, rest = gx.select(model, "**").partition()
    assert len(jax.tree.leaves(selected)) == 4 == sum(jax.tree.leaves(gx.select(model, "").mask()))
    assert selected.norm.ema_state_index.init == (None, None)
    assert rest.norm.ema_state_index.init == norm.ema_state_index.init
    everything, _ = gx.select(model, "norm").partition(eqx.is_array)
    assert everything.norm.ema_state_index.init == norm.ema_state_index.init
    assert same_arrays(eqx.combine(selected, rest), model)


def test_partition_and_combine_are_inverse():
    model = labelled_model()
    selected, rest = gx.select(model, "body.**").partition()
    assert selected.stem.weight is None and rest.stem.weight is model.stem.weight
    assert rest.body[0].up.weight is None
    assert selected.body[0].up.weight is model.body[0].up.weight
    combined = eqx.combine(selected, rest)
    assert jax.tree.structure(combined) == jax.tree.structure(model)
    assert untouched(model, combined)


@pytest.mark.parametrize("name", FOREIGN)
def test_mask_and_partition_on_foreign_trees(name):
    tree = FOREIGN[name]()
    found = gx.select(tree, eqx.is_array)[::2]
    mask = found.mask(eqx.is_array)
    assert {path for path, node in gx.walk(mask) if node is True} == set(found.paths)
    assert 0 < len(found) < len(jax.tree.leaves(tree))
    selected, rest = found.partition(eqx.is_array)
    assert len(jax.tree.leaves(selected)) == len(found)
    assert untouched(tree, eqx.combine(selected, rest))


def test_training_through_partition_moves_the_selected_part_only():
    model, x = labelled_model(), jnp.ones(3)
    head, rest = gx.select(model, "head").partition()
    optimiser = optax.sgd(0.1)

    @eqx.filter_jit
    def step(head, state):
        grads = eqx.filter_grad(lambda head: jnp.sum(eqx.combine(head, rest)(x) ** 2))(head)
        updates, state = optimiser.update(grads, state, head)
        return eqx.apply_updates(head, updates), state

    trained, _ = step(head, optimiser.init(head))
    trained = eqx.combine(trained, rest)
    assert untouched(model, trained, "head")
    assert not bool((trained.head.weight == model.head.weight).any())


def test_the_line_of_the_design_works_where_the_block_holds_a_function():
    m = gx.Chain(block=gx.Chain(up=linear(2, 2, 0), act=jax.nn.relu), head=linear(2, 1, 1))
    params, rest = gx.select(m, "block").partition()
    optimiser = optax.adam(1e-3)
    state = optimiser.init(params)
    grads = eqx.filter_grad(lambda p: jnp.sum(eqx.combine(p, rest)(jnp.ones(2))))(params)
    updates, _ = optimiser.update(grads, state, params)
    trained = eqx.combine(eqx.apply_updates(params, updates), rest)
    assert untouched(m, trained, "block.up") and trained.block.act is jax.nn.relu
    mask = gx.select(m, "block").mask()
    masked = optax.masked(optimiser, mask)
    masked.init(eqx.filter(m, eqx.is_inexact_array))
    assert same_arrays(eqx.filter(m, mask), params)


def test_mask_is_what_optax_masked_asks_for():
    params = eqx.filter(labelled_model(), eqx.is_inexact_array)
    mask = gx.select(params, "head").mask()
    optimiser = optax.chain(
        optax.masked(optax.sgd(1.0), mask),
        optax.masked(optax.set_to_zero(), jax.tree.map(lambda inside: not inside, mask)),
    )
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    assert bool((updates.head.weight == -params.head.weight).all())
    assert not bool(updates.stem.weight.any()) and not bool(updates.body[0].up.bias.any())
