"""`label_fn`: names for parameters by pattern, as optax asks for them."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import graftax as gx
from common_surgery import Bottleneck, arrays, labelled_model, mixer


def parameters(model=None):
    return eqx.filter(labelled_model() if model is None else model, eqx.is_inexact_array)


def labels_by_path(labels):
    return {path: node for path, node in gx.walk(labels) if isinstance(node, str)}


def test_the_first_pattern_that_matches_wins():
    labels = gx.label_fn({"head.bias": "a", "head.**": "b", "up": "c", "**": "d"})(parameters())
    found = labels_by_path(labels)
    assert found.pop("head.bias") == "a" and found.pop("head.weight") == "b"
    assert {path for path, label in found.items() if label == "c"} == {
        f"body.{i}.up.{name}" for i in (0, 1) for name in ("weight", "bias")
    }
    rest = [path for path, label in found.items() if label == "d"]
    assert "stem.weight" in rest and len(rest) == len(found) - 4


def test_a_pattern_holds_for_what_is_inside_of_what_it_matches():
    tree = {"a": {"b": 1.0, "c": 2.0}, "d": 3.0}
    assert gx.label_fn({"a": "in", "**": "out"})(tree) == {"a": {"b": "in", "c": "in"}, "d": "out"}
    assert gx.label_fn({"": "all"})(tree) == {"a": {"b": "all", "c": "all"}, "d": "all"}
    assert gx.label_fn({"a.**": "in", ".d": "out"})(tree)["a"] == {"b": "in", "c": "in"}


def test_the_labels_have_the_structure_of_the_parameters():
    params = parameters()
    labels = gx.label_fn({"**": "train"})(params)
    assert jax.tree.structure(labels) == jax.tree.structure(params)
    assert set(jax.tree.leaves(labels)) == {"train"}


def test_any_criterion_that_can_be_a_key_can_stand_for_a_pattern():
    rules = {
        Bottleneck: "blocks",
        re.compile(r"head\..*"): "head",
        ("stem", "mix"): "ends",
        "**": "x",
    }
    found = labels_by_path(gx.label_fn(rules)(parameters()))
    assert found["body.0.up.weight"] == "blocks" and found["head.bias"] == "head"
    assert found["stem.weight"] == found["mix.bias"] == "ends"
    assert found["sides.left.weight"] == "x"


def test_labels_may_be_any_values():
    labels = gx.label_fn({"decoder": 0, "**": None})(arrays())
    assert labels["decoder"] == {"scale": 0, "shift": 0} and labels["encoder"] == [None, None]


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest():
    labels = gx.label_fn({"haed.**": "train", "**": "frozen"})
    message = r"^The rule 'haed\.\*\*': 'train' holds nowhere\. .* Did you mean 'head'\?$"
    with pytest.raises(gx.NoMatchError, match=message):
        labels(parameters())


def test_a_leaf_that_no_pattern_matches_is_an_error():
    message = (
        r"^No rule holds for stem\.weight, stem\.bias, .*, and \d+ more\. A last rule '\*\*' holds"
    )
    with pytest.raises(gx.NoMatchError, match=message):
        gx.label_fn({"head": "train"})(parameters())
    with pytest.raises(gx.NoMatchError, match=r"^No rule holds for b\. "):
        gx.label_fn({"a": "train"})({"a": 1.0, "b": 2.0})


def test_no_rules_are_refused():
    with pytest.raises(
        ValueError, match=r"^label_fn needs at least one rule, as in \{'\*\*': 'train'\}\.$"
    ):
        gx.label_fn({})


@pytest.mark.parametrize("make", [labelled_model, mixer])
def test_optax_partition_trains_what_is_labelled_so(make):
    model = make()
    rules = {"head{s,}": "fast", "weight": "slow", "**": "frozen"}
    optimiser = optax.partition(
        {"fast": optax.sgd(1.0), "slow": optax.sgd(0.1), "frozen": optax.set_to_zero()},
        gx.label_fn(rules),
    )
    params = parameters(model)
    grads = jax.tree.map(jnp.ones_like, params)

    @eqx.filter_jit
    def step(params, state):
        updates, state = optimiser.update(grads, state, params)
        return eqx.apply_updates(params, updates), state

    new, _ = step(params, optimiser.init(params))
    for path, label in labels_by_path(gx.label_fn(rules)(params)).items():
        pattern = path if "." in path else f".{path}"
        change = gx.select(new, pattern).one() - gx.select(params, pattern).one()
        expected = {"fast": -1.0, "slow": -0.1, "frozen": 0.0}[label]
        assert bool(jnp.allclose(change, expected, atol=1e-6)), path
    if make is labelled_model:
        assert labels_by_path(gx.label_fn(rules)(params))["head.bias"] == "fast"


def test_layer_wise_learning_rates_are_one_rule_a_layer():
    params = parameters()
    rules = {f"body.{i}.**": f"block{i}" for i in range(2)} | {"**": "rest"}
    rates = {"block0": 0.5, "block1": 0.25, "rest": 1.0}
    optimiser = optax.partition({k: optax.sgd(v) for k, v in rates.items()}, gx.label_fn(rules))
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    for i, rate in enumerate((0.5, 0.25)):
        old, new = params.body[i].up.weight, updates.body[i].up.weight
        assert bool(jnp.allclose(new, -rate * old))
    assert bool((updates.head.weight == -params.head.weight).all())
