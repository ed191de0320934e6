"""`label_fn`: names for parameters by pattern, as optax asks for them; `partition`: parts by rules."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import graftax as gx
from common_containers import same_arrays, without_annotation_checks
from common_surgery import Bottleneck, arrays, labelled_model, mixer, untouched

KEY = jax.random.key(0)


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


def test_statistics_have_no_label():
    model = gx.Chain(
        norm=eqx.nn.BatchNorm(3, axis_name="batch", mode="batch"), head=eqx.nn.Linear(3, 1, key=KEY)
    )
    labels = gx.label_fn({"norm": "slow", "**": "train"})(parameters(model))
    assert labels.norm.batch_state_index.init == (None, None)
    assert (labels.norm.weight, labels.norm.bias, labels.head.weight) == ("slow", "slow", "train")
    # What trains, as partition gives it, has no statistics: optax takes the labels as they are.
    params, _ = gx.select(model, "").partition()
    optimiser = optax.partition(
        {"slow": optax.sgd(0.1), "train": optax.sgd(1.0)},
        gx.label_fn({"norm": "slow", "**": "train"}),
    )
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    assert bool(jnp.allclose(updates.norm.weight, -0.1)) and bool(
        (updates.head.weight == -params.head.weight).all()
    )


# --- partition ---


def stateful_model():
    return gx.Chain(
        stem=eqx.nn.Linear(3, 4, key=KEY),
        norm=eqx.nn.BatchNorm(4, axis_name="batch", mode="batch"),
        act=jax.nn.relu,
        table=gx.QuantizedLinear(jnp.ones((2, 4), jnp.int8), jnp.ones(2), None),
        head=eqx.nn.Linear(2, 1, key=KEY),
    )


def places(part):
    return {path for path, node in gx.walk(part) if eqx.is_inexact_array(node)}


def test_the_example_of_the_design_works_as_written():
    blocks = (eqx.nn.Linear(4, 4, key=k) for k in jax.random.split(KEY, 3))
    model = gx.Chain(encoder=gx.Chain(*blocks), head=eqx.nn.Linear(4, 1, key=KEY))
    parts = gx.partition(model, {"train": "head", "slow": "encoder[-2:]", "frozen": "**"})
    assert list(parts) == ["train", "slow", "frozen"]
    assert places(parts["train"]) == {"head.weight", "head.bias"}
    assert places(parts["slow"]) == {f"encoder.{i}.{n}" for i in (1, 2) for n in ("weight", "bias")}
    assert places(parts["frozen"]) == {"encoder.0.weight", "encoder.0.bias"}
    assert same_arrays(eqx.combine(*parts.values()), model)


@pytest.mark.parametrize("make", [labelled_model, mixer, arrays, stateful_model])
def test_the_parts_together_are_the_model(make):
    model = make()
    parts = gx.partition(model, {"first": "{head,heads,decoder}", "rest": "**"})
    assert untouched(model, eqx.combine(*parts.values()))
    assert jax.tree.structure(eqx.combine(*parts.values())) == jax.tree.structure(model)
    leaves = [{id(leaf) for leaf in jax.tree.leaves(part)} for part in parts.values()]
    assert not leaves[0] & leaves[1]


@pytest.mark.parametrize("make", [labelled_model, mixer, stateful_model])
def test_two_parts_are_those_of_the_partition_of_a_selection(make):
    model = make()
    parts = gx.partition(model, {"train": eqx.nn.Linear, "frozen": "**"})
    selected, rest = gx.select(model, eqx.nn.Linear).partition()
    assert same_arrays(parts["train"], selected) and same_arrays(parts["frozen"], rest)


def test_what_does_not_train_is_in_the_last_part():
    model = stateful_model()
    parts = gx.partition(model, {"norm": "norm", "table": "table", "rest": "**"})
    assert parts["norm"].norm.batch_state_index.init == (None, None)
    assert parts["table"].table.weight is None and parts["rest"].table.weight is model.table.weight
    assert parts["rest"].act is jax.nn.relu and parts["norm"].act is None
    for part in (parts["norm"], parts["table"]):
        optax.adam(1e-3).init(part)


def test_the_first_rule_wins_and_names_may_be_anything():
    model = labelled_model()
    parts = gx.partition(model, {0: "head.bias", None: ["head", "stem"], "": eqx.is_array})
    assert places(parts[0]) == {"head.bias"}
    assert places(parts[None]) == {"head.weight", "stem.weight", "stem.bias"}
    assert same_arrays(eqx.combine(*parts.values()), model)


def test_a_tied_array_is_in_one_part():
    tied = gx.tie(
        gx.Chain(a=eqx.nn.Linear(3, 3, key=KEY), b=eqx.nn.Linear(3, 3, key=KEY)),
        "a.weight",
        "b.weight",
    )
    parts = gx.partition(tied, {"b": "b", "rest": "**"})
    assert [part.size for part in jax.tree.leaves(parts["b"])] == [9, 3]
    assert len(jax.tree.leaves(parts["rest"])) == 1
    assert same_arrays(eqx.combine(*parts.values()), tied)


def test_training_parts_at_rates_of_their_own():
    model, x = labelled_model(), jnp.ones(3)
    parts = gx.partition(model, {"train": "head", "slow": "body[-1]", "frozen": "**"})
    rates = {"train": 1.0, "slow": 0.1}
    trained = {name: parts[name] for name in rates}

    def loss(trained):
        return jnp.sum(eqx.combine(*trained.values(), parts["frozen"])(x) ** 2)

    grads = eqx.filter_grad(loss)(trained)
    whole = eqx.filter_grad(lambda m: jnp.sum(m(x) ** 2))(model)
    for name, rate in rates.items():
        updates, _ = optax.sgd(rate).update(grads[name], optax.sgd(rate).init(trained[name]))
        trained[name] = eqx.apply_updates(trained[name], updates)
    new = eqx.combine(*trained.values(), parts["frozen"])
    assert untouched(model, new, "head", "body.1")
    assert bool(jnp.allclose(new.head.weight, model.head.weight - whole.head.weight))
    change = model.body[1].up.weight - 0.1 * whole.body[1].up.weight
    assert bool(jnp.allclose(new.body[1].up.weight, change))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"train": "haed", "rest": "**"},
            r"^The rule 'train': 'haed' holds nowhere\. .* mean 'head'",
        ),
        (
            {"train": "act", "rest": "**"},
            r"^The rule 'train': 'act' holds for body\.0\.act, body\.1\.act, and no parameter is in there",
        ),
        (
            {"train": "head", "rest": "body"},
            r"^No rule holds for stem\.weight, stem\.bias, .* '\*\*' holds",
        ),
        ({"train": ["head", "nothing"], "rest": "**"}, r"nothing"),
    ],
)
def test_a_rule_that_holds_for_nothing_and_an_array_without_a_rule_are_errors(rules, message):
    with pytest.raises(gx.NoMatchError, match=message):
        gx.partition(labelled_model(), rules)


def test_a_rule_for_statistics_alone_holds_for_no_parameter():
    with pytest.raises(gx.NoMatchError, match=r"no parameter is in there"):
        gx.partition(stateful_model(), {"stats": "batch_state_index", "rest": "**"})


def test_no_rules_give_no_parts():
    with pytest.raises(ValueError, match=r"^partition needs at least one rule, as in"):
        gx.partition(labelled_model(), {})
    with (
        without_annotation_checks(),
        pytest.raises(TypeError, match=r"^partition takes a dict of rules, .* got 'head'\.$"),
    ):
        gx.partition(labelled_model(), "head")
