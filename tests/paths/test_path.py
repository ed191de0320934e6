"""`walk`: every node once, under the path that Python would reach it by."""

import collections
import dataclasses
import enum
import operator
import re
import types
from collections import OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from hypothesis import given, settings

import graftax as gx
from common_trees import Box, Dot, Gain, Pair, Record, Row, places, trees


def linear() -> eqx.nn.Linear:
    return eqx.nn.Linear(2, 2, key=jax.random.key(0))


def paths(tree: Any) -> list[str]:
    return [path for path, _ in gx.walk(tree)]


def is_leaf(node: Any) -> bool:
    return jtu.all_leaves([node])


# --- The laws, on random trees ---


@settings(max_examples=150)
@given(trees)
def test_every_node_comes_once_and_parents_come_first(plan):
    tree = plan()
    wanted = [place.node for place in places(tree) if not place.wrapped]
    assert [id(node) for _, node in gx.walk(tree)] == [id(node) for node in wanted]


@settings(max_examples=150)
@given(trees)
def test_leaves_come_in_the_order_of_jax(plan):
    tree = plan()
    # A wrapper around a leaf is what is yielded at the leaf's path.
    walked = [unwrapped(node) for _, node in gx.walk(tree)]
    leaves = [node for node in walked if is_leaf(node)]
    assert list(map(id, leaves)) == list(map(id, jax.tree.leaves(tree)))


def unwrapped(node: Any) -> Any:
    return unwrapped(node.layer) if isinstance(node, gx.Wrapper) else node


@settings(max_examples=100)
@given(trees)
def test_the_first_is_the_root_and_all_paths_but_that_of_the_root_say_something(plan):
    tree = plan()
    (path, node), *rest = gx.walk(tree)
    assert path == "" and node is tree
    assert all(path for path, _ in rest)


@settings(max_examples=150)
@given(trees)
def test_a_path_is_the_keys_on_the_way_with_dots_between_them_or_brackets_around(plan):
    tree = plan()
    wanted = [written(place.trail) for place in places(tree) if not place.wrapped]
    assert paths(tree) == wanted


def written(trail: tuple) -> str:
    text = ""
    for key, *_ in trail:
        is_label = isinstance(key, str) and key.isidentifier()
        is_number = type(key) is int and key >= 0
        text += f".{key}" if is_label or is_number else f"[{key!r}]"
    return text.removeprefix(".")


@settings(max_examples=100)
@given(trees)
def test_paths_do_not_change_under_tree_map(plan):
    tree = plan()
    assert paths(jax.tree.map(lambda _: Dot(), tree)) == paths(tree)


@settings(max_examples=100)
@given(trees)
def test_wrapping_a_model_changes_no_path(plan):
    tree = plan()
    if callable(tree):
        assert paths(gx.Vmap(gx.Remat(tree))) == paths(tree)


@settings(max_examples=100)
@given(trees)
def test_a_path_is_the_python_expression_that_reaches_the_node(plan):
    tree = plan()
    # Where a wrapper hides a field of the wrapper inside, the outer one comes last and is reached.
    for path, node in dict(gx.walk(tree)).items():
        if "None" not in path:  # a keyword, which no expression has after a dot
            assert evaluated(tree, path) is node, path


class Reach:
    """A node whose dict keys are attributes too, as in paths."""

    def __init__(self, node: Any):
        self._node = node

    def __getattr__(self, name: str) -> "Reach":
        node = self._node
        return Reach(node[name] if isinstance(node, dict) else getattr(node, name))

    def __getitem__(self, key: Any) -> "Reach":
        node = self._node
        return Reach(node.items[key] if isinstance(node, Row) else node[key])


def evaluated(tree: Any, path: str) -> Any:
    numbered = re.sub(r"(?:^|\.)(\d+)(?=\.|\[|$)", r"[\1]", path)
    dot = "" if numbered[:1] in ("", "[") else "."
    return eval(f"model{dot}{numbered}", {"model": Reach(tree)})._node


# --- Every kind of node ---


class Attention(NamedTuple):
    query: Any
    key: Any


class Colour(str, enum.Enum):  # noqa: UP042 - format() of a StrEnum is another
    RED = "red"
    SPACED = "dark red"


class Level(enum.IntEnum):
    LOW = 1


class Frozen(eqx.Module):
    """Fields that are parameters, that are not, and one that nobody set."""

    weight: Any
    name: str = eqx.field(static=True)
    children: list
    nothing: Any = None


class Method(eqx.Module):
    scale: Any

    def run(self, x):
        return self.scale * x


@jtu.register_pytree_node_class
class Unkeyed:
    """Registered without keys: JAX numbers the children."""

    def __init__(self, *items: Any):
        self.items = items

    def tree_flatten(self):
        return self.items, None

    @classmethod
    def tree_unflatten(cls, _, items):
        return cls(*items)


@jtu.register_dataclass
@dataclasses.dataclass
class Point:
    x: Any
    y: Any
    unit: str = dataclasses.field(metadata={"static": True})


def attention_layer() -> Any:
    return eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))


class Plain:
    """No pytree: a leaf."""


KINDS: dict[str, tuple[Any, list[str]]] = {
    "a leaf": (1.0, [""]),
    "an array": (np.ones(2), [""]),
    "an object": (Plain(), [""]),
    "a deque, which is a leaf to JAX": (deque([1.0, 2.0]), [""]),
    "a simple namespace, likewise": (types.SimpleNamespace(a=1.0), [""]),
    "a function": (jax.nn.relu, [""]),
    "a list": ([1.0, [2.0]], ["", "0", "1", "1.0"]),
    "a tuple": ((1.0, (2.0,)), ["", "0", "1", "1.0"]),
    "empty ones": ([(), [], {}, None], ["", "0", "1", "2"]),
    "None among others": ([None, 1.0, {"a": None, "b": 2.0}], ["", "1", "2", "2.b"]),
    "a NamedTuple": (Attention(1.0, [2.0]), ["", "query", "key", "key.0"]),
    "a namedtuple": (collections.namedtuple("T", "b a")(1.0, 2.0), ["", "b", "a"]),
    "a dict, sorted": ({"b": 1.0, "a": {"d": 2.0, "c": 3.0}}, ["", "a", "a.c", "a.d", "b"]),
    "an OrderedDict, as it is": (OrderedDict(b=1.0, a=2.0), ["", "b", "a"]),
    "a defaultdict, sorted": (defaultdict(list, b=1.0, a=[2.0]), ["", "a", "a.0", "b"]),
    "integer keys": ({2: 1.0, 0: 2.0, -1: 3.0}, ["", "[-1]", "0", "2"]),
    "numbers of NumPy as keys": ({np.int64(1): 1.0, np.int64(0): [2.0]}, ["", "0", "0.0", "1"]),
    "keys that only brackets spell": (
        OrderedDict([("my key", 1.0), ("0", 2.0), ((1, 2), [3.0]), (b"a", 4.0), (True, 5.0)]),
        ["", "['my key']", "['0']", "[(1, 2)]", "[(1, 2)].0", "[b'a']", "[True]"],
    ),
    "keys of an enumeration": (
        {Colour.RED: [1.0], Colour.SPACED: 2.0},
        ["", "['dark red']", "red", "red.0"],
    ),
    "integer keys of an enumeration": ({Level.LOW: 1.0}, ["", "1"]),
    "a module": (
        Frozen(1.0, "name", [2.0, {"a": 3.0}]),
        ["", "weight", "children", "children.0", "children.1", "children.1.a"],
    ),
    "a bound method of a module": (Method(2.0).run, ["", "__self__", "__self__.scale"]),
    "a registered dataclass": (Point(1.0, [2.0], "m"), ["", "x", "y", "y.0"]),
    "a registered sequence": (Row(1.0, [2.0], None, 4.0), ["", "0", "1", "1.0", "3"]),
    "a class registered without keys": (Unkeyed(1.0, None, [2.0]), ["", "0", "2", "2.0"]),
    "jtu.Partial": (jtu.Partial(jnp.add, 1.0, b=2.0), ["", "0", "0.0", "1", "1.b"]),
    "eqx.Partial": (
        eqx.Partial(jnp.add, 1.0, b=2.0),
        ["", "func", "args", "args.0", "keywords", "keywords.b"],
    ),
    "eqx.nn.Linear": (linear(), ["", "weight", "bias"]),
    "eqx.nn.Linear without bias": (
        eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0)),
        ["", "weight"],
    ),
    "eqx.nn.MLP": (
        eqx.nn.MLP(2, 2, 4, depth=1, activation=jax.nn.relu, key=jax.random.key(0)),
        [
            "",
            "layers",
            *(f"layers.{i}{rest}" for i in (0, 1) for rest in ("", ".weight", ".bias")),
            "activation",
            "final_activation",
        ],
    ),
    "eqx.nn.MultiheadAttention": (
        attention_layer(),
        [
            "",
            *(f"{p}_proj{rest}" for p in ("query", "key", "value") for rest in ("", ".weight")),
            "output_proj",
            "output_proj.weight",
            "dropout",
            "dropout.p",
            "dropout.inference",
        ],
    ),
    "eqx.nn.Sequential": (
        eqx.nn.Sequential([linear(), eqx.nn.Lambda(jax.nn.relu)]),
        ["", "layers", "layers.0", "layers.0.weight", "layers.0.bias", "layers.1", "layers.1.fn"],
    ),
    "an optimiser state": (
        optax.adam(1e-3).init({"w": jnp.ones(2)}),
        ["", "0", "0.count", "0.mu", "0.mu.w", "0.nu", "0.nu.w", "1"],
    ),
    "an optimiser state of a labelled model": (
        optax.sgd(1e-3, momentum=0.9).init(eqx.filter(gx.Chain(stem=linear()), eqx.is_array)),
        ["", "0", "0.trace", "0.trace.stem", "0.trace.stem.weight", "0.trace.stem.bias", "1"],
    ),
    "a labelled container": (
        gx.Chain(stem=linear(), head=jax.nn.relu),
        ["", "stem", "stem.weight", "stem.bias", "head"],
    ),
    "a positional container": (
        gx.Chain(gx.Chain(jax.nn.relu), linear()),
        ["", "0", "0.0", "1", "1.weight", "1.bias"],
    ),
    "an empty container": (gx.Chain(), [""]),
    "a Parallel": (
        gx.Parallel(a=abs, b=abs, op=operator.add, init=0),
        ["", "a", "b", "op", "init"],
    ),
    "a SkipConnection": (
        gx.SkipConnection(abs, shortcut=gx.Chain(abs)),
        ["", "0", "op", "shortcut", "shortcut.0"],
    ),
    "a Repeat": (gx.Repeat(linear(), times=3), ["", "0", "0.weight", "0.bias"]),
    "a container in a module": (
        Box(a=gx.Chain(b=abs), layers=[gx.Chain(abs)]),
        ["", "a", "a.b", "layers", "layers.0", "layers.0.0"],
    ),
    "a wrapper": (gx.Vmap(linear()), ["", "weight", "bias"]),
    "a wrapper of a leaf": (gx.Vmap(abs), [""]),
    "wrappers of wrappers": (
        gx.Remat(gx.Vmap(gx.Chain(a=gx.Cast(gx.Vmap(linear()), jnp.bfloat16)))),
        ["", "a", "a.weight", "a.bias"],
    ),
    "a wrapper with a field of its own": (
        gx.Chain(a=Gain(linear(), gain=2.0)),
        ["", "a", "a.weight", "a.bias", "a.gain"],
    ),
    "an adapter": (
        gx.LoRA(linear(), rank=1, key=jax.random.key(0)),
        ["", "weight", "bias", "lora_a", "lora_b"],
    ),
    "records in pairs": (Pair(Record(1.0, [2.0]), None), ["", "a", "a.a", "a.norm1", "a.norm1.0"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_node(kind):
    tree, wanted = KINDS[kind]
    assert paths(tree) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_the_leaves_of_every_kind_are_those_of_jax(kind):
    tree, _ = KINDS[kind]
    leaves = [node for _, node in gx.walk(tree) if is_leaf(node)]
    if not isinstance(tree, gx.Wrapper) or not is_leaf(tree.layer):
        assert list(map(id, leaves)) == list(map(id, jax.tree.leaves(tree)))


def test_the_state_of_a_model():
    make = eqx.nn.make_with_state(lambda: gx.Chain(norm=eqx.nn.BatchNorm(3, "b", mode="batch")))
    model, state = make()
    assert [node.shape for _, node in gx.walk(state) if eqx.is_array(node)] == [
        leaf.shape for leaf in jax.tree.leaves(state)
    ]
    assert {"norm", "norm.weight", "norm.bias"} < set(paths(model))


def test_a_wrapper_stands_for_what_it_holds():
    wrapped = gx.Vmap(gx.Remat(linear()))
    model = gx.Chain(stem=wrapped, head=abs)
    walked = dict(gx.walk(model))
    assert walked["stem"] is wrapped
    assert walked["stem.weight"] is wrapped.weight
    assert all(not isinstance(node, gx.Remat) for node in walked.values())


def test_layers_of_a_container_are_elided_and_those_of_a_module_are_not():
    model = gx.Chain(gx.Chain(a=eqx.nn.MLP(2, 2, 2, depth=1, key=jax.random.key(0))))
    assert "0.a.layers.0.weight" in paths(model)
    assert paths(model)[:3] == ["", "0", "0.a"]


def test_a_subclass_is_walked_as_its_base():
    class Bottleneck(gx.SkipConnection):
        """A block with a name."""

    block = Bottleneck(a=linear(), shortcut=abs)
    assert paths(block) == paths(gx.SkipConnection(a=block.a, shortcut=abs))


def test_fields_that_a_subclass_adds_are_walked():
    class Scaled(gx.Chain):
        """A chain with a parameter of its own."""

        scale: Any

        def __init__(self, scale: Any, **labelled: Any):
            super().__init__(**labelled)
            self.scale = scale

    assert paths(Scaled([1.0], a=abs)) == ["", "a", "scale", "scale.0"]


def test_what_partition_takes_out_is_not_walked():
    model = gx.Chain(stem=gx.Vmap(linear()), act=abs)
    arrays, rest = eqx.partition(model, eqx.is_array)
    assert paths(arrays) == ["", "stem", "stem.weight", "stem.bias"]
    assert paths(rest) == ["", "stem", "act"]


def test_under_jit_vmap_and_grad_the_paths_are_the_same():
    model = gx.Chain(stem=linear(), body=gx.Vmap(linear()))
    seen = []

    def loss(model, x):
        seen.append(paths(model))
        return sum(jnp.sum(node) for _, node in gx.walk(model) if eqx.is_array(node)) * x

    wanted = sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(model)) * 2.0
    assert jnp.allclose(eqx.filter_jit(loss)(model, 2.0), wanted)
    gradient = eqx.filter_grad(loss)(model, 2.0)
    assert all(jnp.all(leaf == 2.0) for leaf in jax.tree.leaves(gradient))
    assert paths(gradient) == paths(model)
    summed = eqx.filter_vmap(loss, in_axes=(None, 0))(model, jnp.array([1.0, 2.0]))
    assert jnp.allclose(summed, jnp.array([wanted / 2, wanted]), atol=1e-5)
    assert seen == [paths(model)] * len(seen) != []


def test_a_deep_tree_is_walked_and_searched():
    depth = 2000
    tree: Any = 1.0
    for _ in range(depth):
        tree = [tree]
    *_, (path, leaf) = gx.walk(tree)
    assert leaf == 1.0
    assert path == ".".join(["0"] * depth)
    assert gx.select(tree, float).paths == (path,)
    assert gx.select(tree, path).nodes == (1.0,)


def test_a_walk_is_lazy():
    walked = gx.walk([1.0, {"a": 2.0}])
    assert next(walked)[0] == ""
    assert next(walked) == ("0", 1.0)
