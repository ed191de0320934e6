"""A copied or pickled model is the same model, also in another process."""

import copy
import functools
import os
import pathlib
import pickle
import subprocess
import sys

import cloudpickle
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import graftax as gx
from common_containers import (
    Affine,
    Bottleneck,
    Stem,
    build,
    containers,
    double,
    linear,
    same_arrays,
)
from common_pickled import MODELS, output
from graftax.structure import labels as labels_module

TESTS = pathlib.Path(__file__).parents[1]
# Python's own rule: names beyond ASCII need protocol 3. The default is 4.
COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {p}": lambda m, p=p: pickle.loads(pickle.dumps(m, p))
        for p in range(3, pickle.HIGHEST_PROTOCOL + 1)
    },
    "cloudpickle": lambda m: cloudpickle.loads(cloudpickle.dumps(m)),
}
each_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())


def run_fresh(*arguments):
    """A process that has imported nothing, with the tests' shared modules on its path."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@each_copy
@pytest.mark.parametrize("name", MODELS)
def test_a_copy_is_the_same_model(name, copied):
    model = MODELS[name]()
    other = copied(model)
    assert jax.tree.structure(other) == jax.tree.structure(model)
    assert hash(jax.tree.structure(other)) == hash(jax.tree.structure(model))
    assert same_arrays(other, model)
    assert repr(other) == repr(model)
    if isinstance(model, gx.StructuralLayer):
        assert type(other) is type(model) and type(other.layers) is type(model.layers)
        assert other.labels == model.labels


@pytest.mark.slow
def test_every_model_is_the_same_in_a_fresh_process_and_back(tmp_path):
    models = {name: make() for name, make in MODELS.items()}
    (tmp_path / "models").write_bytes(pickle.dumps(models))
    run_fresh(TESTS / "common_pickled.py", tmp_path / "models", tmp_path / "report")
    report = pickle.loads((tmp_path / "report").read_bytes())
    assert report.keys() == models.keys()
    for name, model in models.items():
        there = report[name]
        assert there["same structure"] and there["same hash"] and there["equal"], name
        assert same_arrays(there["model"], model), name
        assert jax.tree.structure(there["model"]) == jax.tree.structure(model), name
        for ours, theirs in zip(jax.tree.leaves(output(name, model)), there["output"], strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_cloudpickle_takes_lambdas_and_local_classes_to_a_fresh_process(tmp_path):
    writer = tmp_path / "write.py"
    writer.write_text(
        "import cloudpickle, sys, equinox as eqx, graftax as gx, jax\n"
        "class Block(gx.SkipConnection):\n"
        "    'A block that only this script knows.'\n"
        "class Scale(eqx.Module):\n"
        "    by: float\n"
        "    def __call__(self, x): return self.by * x\n"
        "@jax.jit\n"
        "def jitted(x): return x - 1\n"
        "m = gx.Chain(block=Block(scale=Scale(3.0), add=lambda x: x + 1), out=jitted)\n"
        "print(m(2.0), m.labels)\n"
        "open(sys.argv[1], 'wb').write(cloudpickle.dumps(m))\n"
    )
    reader = tmp_path / "read.py"
    reader.write_text(
        "import pickle, sys\n"
        "m = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(m(2.0), m.labels)\n"
        "import graftax as gx\n"
        "assert type(m.block).__name__ == 'Block' and isinstance(m.block, gx.SkipConnection)\n"
        "assert m.block.labels == ('scale', 'add') and m['block'][0].by == 3.0\n"
    )
    written = run_fresh(writer, tmp_path / "model")
    assert written.strip() == "8.0 ('block', 'out')"
    assert run_fresh(reader, tmp_path / "model") == written


# --- Identity ---


def test_a_shallow_copy_shares_its_layers():
    m = gx.Chain(up=linear(2, 2), act=jax.nn.relu, wrapped=gx.Vmap(jnp.tanh))
    other = copy.copy(m)
    assert other is not m and all(a is b for a, b in zip(other, m, strict=True))
    assert copy.copy(m.wrapped).layer is jnp.tanh


def test_a_deep_copy_shares_no_array_and_every_function():
    m = gx.Chain(up=linear(2, 2), act=jax.nn.relu, op_=gx.Parallel(jnp.tanh, op=jnp.add))
    other = copy.deepcopy(m)
    assert other.up.weight is not m.up.weight
    assert other.act is jax.nn.relu and other.op_.op is jnp.add and other.op_[0] is jnp.tanh


def test_an_array_that_two_layers_share_is_pickled_once():
    layer = linear(64, 64)
    once, twice = gx.Chain(layer), gx.Chain(a=layer, b=gx.SkipConnection(layer))
    assert len(pickle.dumps(twice)) < 1.2 * len(pickle.dumps(once))
    other = pickle.loads(pickle.dumps(twice))
    assert other.a.weight is other.b[0].weight
    assert copy.deepcopy(twice).a.weight is not layer.weight


@pytest.mark.parametrize(
    "function",
    [
        *(jax.nn.relu, jax.nn.silu, jax.nn.gelu, jax.nn.softplus, jax.nn.log_softmax),
        *(
            jnp.tanh,
            jnp.sin,
            jnp.add,
            jnp.maximum,
            jnp.concatenate,
            jax.lax.add,
            np.tanh,
            np.add,
            abs,
        ),
    ],
    ids=lambda f: f.__name__,
)
@each_copy
def test_a_function_of_jax_or_numpy_is_itself_after_a_copy(function, copied):
    for m in (
        gx.Chain(f=function),
        gx.Parallel(f=function, op=function),
        gx.SkipConnection(f=double, shortcut=function),
        gx.Vmap(function),
        gx.Chain(f=eqx.nn.Lambda(function)),
        gx.Chain(f=eqx.nn.Sequential([eqx.nn.Lambda(gx.Chain(function))])),
    ):
        leaves = jax.tree.leaves(copied(m))
        assert len(leaves) == len(jax.tree.leaves(m))
        assert all(a is b for a, b in zip(leaves, jax.tree.leaves(m), strict=True))


@each_copy
def test_a_partial_of_a_function_of_jax_survives(copied):
    m = gx.Chain(
        add=functools.partial(jnp.add, 1.0),
        slope=functools.partial(jax.nn.leaky_relu, negative_slope=0.5),
        as_tree=jax.tree_util.Partial(jnp.multiply, 2.0),
    )
    other, x = copied(m), jnp.array([-3.0, 3.0])
    assert (other(x) == m(x)).all() and m(x).tolist() == [-2.0, 8.0]
    assert other.add.func is jnp.add and type(other.as_tree) is jax.tree_util.Partial


# --- Behaviour ---


def test_an_unpickled_model_uses_what_was_compiled_for_the_old_one():
    m, x, traced = gx.Chain(up=linear(2, 3), act=jax.nn.relu), jnp.ones(2), []

    @eqx.filter_jit
    def run(m, x):
        traced.append(1)
        return m(x)

    expected = run(m, x)
    for copied in COPIES.values():
        assert (run(copied(m), x) == expected).all()
    assert len(traced) == 1


@each_copy
def test_a_copy_can_be_sliced_edited_trained_and_copied_again(copied):
    m = copied(gx.Chain(up=linear(2, 3), act=jnp.tanh, down=linear(3, 2)))
    assert m[:"down"].labels == ("up", "act") and m["up"] is m.up
    assert m.replace_where("act", lambda _: jax.nn.relu).act is jax.nn.relu
    gradient = eqx.filter_grad(lambda m: m(jnp.ones(2)).sum())(m)
    assert gradient.down.bias.tolist() == [1, 1]
    assert same_arrays(copied(copied(m)), m)


@each_copy
def test_holes_gradients_and_optimiser_like_trees_are_copied_too(copied):
    m = gx.Chain(up=linear(2, 3), act=jnp.tanh, inner=gx.SkipConnection(linear(3, 3)))
    arrays, rest = eqx.partition(m, eqx.is_array)
    assert same_arrays(copied(arrays), arrays) and same_arrays(copied(rest), rest)
    joined = eqx.combine(copied(arrays), copied(rest))
    assert same_arrays(joined, m)
    numbered = jax.tree.map(lambda leaf: None, m)
    assert jax.tree.structure(copied(numbered)) == jax.tree.structure(numbered)


@given(containers())
@settings(max_examples=60)
def test_law_of_copies(spec):
    m = build(spec)
    for copied in (copy.copy, copy.deepcopy, COPIES["pickle 4"], COPIES["cloudpickle"]):
        other = copied(m)
        assert other == m and jax.tree.structure(other) == jax.tree.structure(m)
        assert other(2) == m(2) and repr(other) == repr(m)


# --- The class of labels, found by its name ---


def test_a_class_of_labels_that_was_never_made_is_found_by_its_name():
    name = "Layers(never_made_before,not_this_one_either)"
    found = getattr(labels_module, name)
    assert found._fields == ("never_made_before", "not_this_one_either")
    m = gx.Chain(never_made_before=double, not_this_one_either=abs)
    assert type(m.layers) is found and found.__name__ == found.__qualname__ == name


@pytest.mark.parametrize(
    "name",
    [
        "Layers()",
        "Layers(class)",
        "Layers(_a)",
        "Layers(a b)",
        "Layers(a,)",
        "Layers(a)(b)",
        "Other",
    ],
)
def test_a_name_that_spells_no_labels_is_no_attribute(name):
    with pytest.raises(AttributeError, match="has no attribute"):
        getattr(labels_module, name)


def test_named_tuples_and_typed_blocks_are_found_where_they_are_defined():
    m = gx.Chain(Stem(Affine(2), Affine(3)))  # pyright: ignore[reportArgumentType]
    assert type(COPIES["deepcopy"](m).layers) is Stem
    assert type(COPIES["cloudpickle"](Bottleneck(double))) is Bottleneck
