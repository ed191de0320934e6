"""The pattern language, row by row of its table: what matches, and what does not."""

import re
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
import pytest

import graftax as gx
from common_trees import Box, Gain, Row


class Stem(NamedTuple):
    conv: Any
    norm: Any


class Weights(eqx.Module):
    """The same field names as `Stem`, but no positions."""

    conv: Any
    norm: Any


def linear() -> eqx.nn.Linear:
    return eqx.nn.Linear(2, 2, key=jax.random.key(0))


def attention() -> gx.Parallel:
    return gx.Parallel(query=linear(), key=linear(), value=linear())


def block() -> gx.Chain:
    return gx.Chain(
        norm1=eqx.nn.LayerNorm(2),
        attention=attention(),
        norm2=eqx.nn.LayerNorm(2),
        mlp=gx.SkipConnection(up=linear(), act=jax.nn.relu, down=linear(), shortcut=linear()),
    )


LABELLED = gx.Chain(
    stem=gx.Chain(Stem(conv=linear(), norm=eqx.nn.LayerNorm(2))),
    encoder=gx.Chain(*[block() for _ in range(4)]),
    head=linear(),
)

TREES: dict[str, Any] = {
    "model": LABELLED,
    "positional": gx.Chain(linear(), gx.Chain(linear(), jax.nn.relu), linear()),
    "wrapped": gx.Remat(
        gx.Chain(stem=gx.Vmap(linear()), body=gx.Vmap(gx.Remat(gx.Chain(linear(), linear()))))
    ),
    "gain": gx.Chain(a=Gain(gx.Chain(b=linear()), gain=1.0)),
    "mlp": eqx.nn.MLP(2, 2, 4, depth=2, key=jax.random.key(0)),
    "heads": eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0)),
    "box": Box(a=[1.0, {"b": 2.0}], layers=(3.0, None, 5.0)),
    "odd": {
        "my key": 1.0,
        "a.b": {"c": 2.0},
        "0": 3.0,
        "12": 4.0,
        "": 5.0,
        "*": 6.0,
        "x-y": 7.0,
        "it's": 8.0,
        "a]": 9.0,
        "été": 10.0,
        "नाम": 11.0,
        "class": 12.0,
    },
    "integers": {-1: 1.0, 0: 2.0, 1: 3.0, 10: 4.0, 12: 5.0},
    "mixed": OrderedDict(
        [(True, 1.0), (2, 2.0), ("True", 3.0), (None, 4.0), ((1, 2), 5.0), (b"a", 6.0), (2.5, 7.0)]
    ),
    "ones": [{1: "int"}, {True: "bool"}, {1.0: "float"}, {"1": "str"}],
    "pairs": {"a": Stem(1.0, 2.0), "b": Weights(3.0, 4.0), "c": {"conv": 5.0}},
    "nested": {"a": {"b": 1.0, "a": {"b": 2.0, "x": {"a": {"b": 3.0}}}}},
    "default": defaultdict(list, {"a": [1.0, 2.0]}),
    "row": Row(1.0, [2.0], 3.0),
    "partial": jtu.Partial(jnp.add, 1.0, b=2.0),
    "adam": optax.adam(1e-3).init({"w": jnp.ones(2), "b": {"c": jnp.ones(1)}}),
    "leaf": 1.0,
    "repeat": gx.Repeat(linear(), times=2),
}

PATHS = {name: [path for path, _ in gx.walk(tree)] for name, tree in TREES.items()}

# (pattern, tree, paths that match, paths that do not). `...` for the last: all other paths.
CASES: list[tuple[str, str, list[str], Any]] = [
    # --- `query`: one component is a label, and matches wherever it stands ---
    ("query", "model", [f"encoder.{i}.attention.query" for i in range(4)], ...),
    ("stem", "model", ["stem"], ...),
    ("norm1", "model", [f"encoder.{i}.norm1" for i in range(4)], ...),
    ("shortcut", "model", [f"encoder.{i}.mlp.shortcut" for i in range(4)], ...),
    ("op", "model", [f"encoder.{i}.{p}.op" for i in range(4) for p in ("attention", "mlp")], ...),
    ("layers", "model", [], ...),
    ("layers", "mlp", ["layers"], ...),
    ("layers", "box", ["layers"], ...),
    ("quer", "model", [], ...),
    ("Query", "model", [], ...),
    ("b", "nested", ["a.b", "a.a.b", "a.a.x.a.b"], ...),
    ("a", "nested", ["a", "a.a", "a.a.x.a"], ...),
    ("weight", "heads", [f"{p}_proj.weight" for p in ("query", "key", "value", "output")], ...),
    ("w", "adam", ["0.mu.w", "0.nu.w"], ...),
    ("conv", "pairs", ["a.conv", "b.conv", "c.conv"], ...),
    ("stem", "wrapped", ["stem"], ...),
    ("gain", "gain", ["a.gain"], ...),
    ("class", "odd", ["class"], ...),
    ("été", "odd", ["été"], ...),
    ("नाम", "odd", ["नाम"], ...),
    ("x-y", "odd", ["['x-y']"], ...),
    ("True", "mixed", ["True"], ...),
    ("None", "mixed", [], ...),
    # A position or integer key of its own is a label too.
    ("1", "positional", ["1", "1.1"], ...),
    ("[1]", "positional", ["1", "1.1"], ...),
    ("0", "model", ["stem", "stem.conv", "encoder.0"], ["encoder", "head"]),
    ("[-1]", "positional", ["2", "1.1"], ...),
    ("0", "adam", ["0", "0.count"], ...),
    ("anything", "leaf", [], ...),
    # --- `encoder.3.norm1`: several components are a path from the root ---
    ("encoder.3.norm1", "model", ["encoder.3.norm1"], ...),
    ("encoder[3].norm1", "model", ["encoder.3.norm1"], ...),
    ("encoder.3.attention.query.weight", "model", ["encoder.3.attention.query.weight"], ...),
    ("attention.query", "model", [], ...),
    ("encoder.norm1", "model", [], ...),
    ("encoder.4", "model", [], ...),
    ("encoder.03", "model", [], ...),
    ("stem.conv.bias", "model", ["stem.conv.bias"], ...),
    ("layers.1.weight", "mlp", ["layers.1.weight"], ...),
    ("layers[1].weight", "mlp", ["layers.1.weight"], ...),
    ("query_proj.weight", "heads", ["query_proj.weight"], ...),
    ("0.mu.b.c", "adam", ["0.mu.b.c"], ...),
    ("[0].mu.b.c", "adam", ["0.mu.b.c"], ...),
    ("a.1.b", "box", ["a.1.b"], ...),
    ("a[1]['b']", "box", ["a.1.b"], ...),
    ("layers.1", "box", [], ...),
    ("layers.2", "box", ["layers.2"], ...),
    ("body.0.weight", "wrapped", ["body.0.weight"], ...),
    ("body.layer", "wrapped", [], ...),
    ("a.b.weight", "gain", ["a.b.weight"], ...),
    ("a[1]", "default", ["a.1"], ...),
    ("0.0", "partial", ["0.0"], ...),
    ("1.b", "partial", ["1.b"], ...),
    # --- `.stem`: a leading dot pins a single component to the root ---
    (".stem", "model", ["stem"], ...),
    (".conv", "model", [], ...),
    (".a", "nested", ["a"], ...),
    (".b", "nested", [], ...),
    (".1", "positional", ["1"], ...),
    (".[1]", "positional", ["1"], ...),
    (".[-1]", "positional", ["2"], ...),
    (".['my key']", "odd", ["['my key']"], ...),
    (".encoder.0.norm1", "model", ["encoder.0.norm1"], ...),
    (".op", "model", [], ...),
    # --- The root ---
    ("", "model", [""], ...),
    ("", "leaf", [""], ...),
    ("", "wrapped", [""], ...),
    # --- `*`, `?`, `{a,b}`: within one component ---
    ("encoder.*.norm1", "model", [f"encoder.{i}.norm1" for i in range(4)], ...),
    ("encoder.*", "model", [f"encoder.{i}" for i in range(4)], ...),
    ("encoder.?", "model", [f"encoder.{i}" for i in range(4)], ...),
    ("norm?", "model", [f"encoder.{i}.norm{j}" for i in range(4) for j in (1, 2)], ...),
    ("norm*", "model", ["stem.norm", "encoder.0.norm1", "encoder.3.norm2"], ["encoder.0"]),
    ("*orm", "model", ["stem.norm"], ...),
    ("n*m*1", "model", [f"encoder.{i}.norm1" for i in range(4)], ...),
    ("?", "positional", ["0", "1", "2", "1.0", "1.1"], ...),
    ("??", "integers", ["[-1]", "10", "12"], ...),
    ("1*", "integers", ["1", "10", "12"], ...),
    (".*", "model", ["stem", "encoder", "head"], ...),
    ("*", "model", PATHS["model"][1:], ...),
    ("*", "leaf", [], ...),
    ("*.*", "nested", ["a.b", "a.a"], ...),
    ("{stem,head}", "model", ["stem", "head"], ...),
    ("encoder.0.attention.{query,value}", "model",
     ["encoder.0.attention.query", "encoder.0.attention.value"], ...),
    ("encoder.{0,2}", "model", ["encoder.0", "encoder.2"], ...),
    ("encoder.{0,2}.norm{1,2}", "model",
     [f"encoder.{i}.norm{j}" for i in (0, 2) for j in (1, 2)], ...),
    ("norm{,1}", "model", ["stem.norm", *[f"encoder.{i}.norm1" for i in range(4)]], ...),
    ("{q*,{va,no}l*}", "model",
     [f"encoder.{i}.attention.{p}" for i in range(4) for p in ("query", "value")], ...),
    ("{query,key}_proj", "heads", ["query_proj", "key_proj"], ...),
    (".{0,2}", "model", ["stem", "head"], ...),
    (".{e*,0}", "model", ["stem", "encoder"], ...),
    (".{*0,2}", "model", ["head"], ...),
    (".{1,1?}", "integers", ["1", "10", "12"], ...),
    (".{0,a}", "pairs", ["a"], ...),
    ("a.{0,conv}", "pairs", ["a.conv"], ...),
    # Wildcards are for the text of a key; a labelled position has the text of its label.
    (".?", "model", [], ...),
    ("my*", "odd", ["['my key']"], ...),
    ("?-?", "odd", ["['x-y']"], ...),
    ("a*", "odd", ["['a.b']", "['a]']"], ...),
    (".*", "mixed", ["[True]", "2", "True", "[None]", "[(1, 2)]", "[b'a']", "[2.5]"], ...),
    (".T*", "mixed", ["True"], ...),
    # --- `**`: any number of components, none included; a trailing `.**` is everything inside ---
    ("**", "model", PATHS["model"], ...),
    ("**", "leaf", [""], ...),
    (".**", "nested", PATHS["nested"][1:], ...),
    (".**", "leaf", [], ...),
    ("stem.**", "model", [p for p in PATHS["model"] if p.startswith("stem.")], ...),
    ("a.**", "nested", PATHS["nested"][2:], ...),
    ("a.**.b", "nested", ["a.b", "a.a.b", "a.a.x.a.b"], ...),
    ("**.b", "nested", ["a.b", "a.a.b", "a.a.x.a.b"], ...),
    ("a.a.**.b", "nested", ["a.a.b", "a.a.x.a.b"], ...),
    ("**.x.**", "nested", ["a.a.x.a", "a.a.x.a.b"], ...),
    ("**.a.**.a", "nested", ["a.a", "a.a.x.a"], ...),
    ("**.a.a.**.a.b", "nested", ["a.a.x.a.b"], ...),
    ("a.**.**.b", "nested", ["a.b", "a.a.b", "a.a.x.a.b"], ...),
    ("a.**.**", "nested", PATHS["nested"][2:], ...),
    ("**.attention.query", "model", [f"encoder.{i}.attention.query" for i in range(4)], ...),
    ("encoder.**.weight", "model", ["encoder.0.norm1.weight", "encoder.3.mlp.up.weight"],
     ["stem.conv.weight", "head.weight"]),
    ("**[0]", "positional", ["0", "1.0"], ...),
    ("**.stem.**", "wrapped", ["stem.weight", "stem.bias"], ...),
    ("**.*.x", "nested", ["a.a.x"], ...),
    # --- Positions, as Python slices ---
    ("encoder[0]", "model", ["encoder.0"], ...),
    ("encoder[-1]", "model", ["encoder.3"], ...),
    ("encoder[-2:]", "model", ["encoder.2", "encoder.3"], ...),
    ("encoder[::2]", "model", ["encoder.0", "encoder.2"], ...),
    ("encoder[::-2]", "model", ["encoder.1", "encoder.3"], ...),
    ("encoder[1:3].norm1", "model", ["encoder.1.norm1", "encoder.2.norm1"], ...),
    ("encoder[ 1 : 3 ]", "model", ["encoder.1", "encoder.2"], ...),
    ("encoder[5:]", "model", [], ...),
    ("encoder[-9]", "model", [], ...),
    ("encoder[:]", "model", [f"encoder.{i}" for i in range(4)], ...),
    (".[0]", "model", ["stem"], ...),
    (".0", "model", ["stem"], ...),
    (".[1:]", "model", ["encoder", "head"], ...),
    (".[-1].weight", "model", ["head.weight"], ...),
    ("encoder[0][-1][0]", "model", ["encoder.0.mlp.up"], ...),
    ("encoder.0.mlp[3]", "model", [], ...),
    ("encoder.0.mlp[-1]", "model", ["encoder.0.mlp.down"], ...),
    ("encoder[-2:].attention.{query,value}", "model",
     [f"encoder.{i}.attention.{p}" for i in (2, 3) for p in ("query", "value")], ...),
    ("*[0]", "model", ["stem.conv", "encoder.0"], ...),
    ("layers[-1].bias", "mlp", ["layers.2.bias"], ...),
    ("layers[:]", "box", ["layers.0", "layers.2"], ...),
    ("layers[-1]", "box", ["layers.2"], ...),
    ("a[1]", "pairs", ["a.norm"], ...),
    ("b[1]", "pairs", [], ...),
    ("*[1]", "pairs", ["a.norm"], ...),
    ("*.1", "pairs", ["a.norm"], ...),
    ("body[1:]", "wrapped", ["body.1"], ...),
    ("[-1]", "row", ["2", "1.0"], ...),
    (".[1:][0]", "row", ["1.0"], ...),
    (".[0]", "repeat", ["0"], ...),
    (".[:]", "mlp", [], ...),
    # --- Integer keys of a dict: numbers, but not positions ---
    (".0", "integers", ["0"], ...),
    (".[0]", "integers", ["0"], ...),
    (".[-1]", "integers", ["[-1]"], ...),
    (".[4]", "integers", [], ...),
    (".[:]", "integers", [], ...),
    (".{0,1}", "integers", ["0", "1"], ...),
    (".0", "odd", ["['0']"], ...),
    (".[0]", "odd", ["['0']"], ...),
    (".12", "odd", ["['12']"], ...),
    # --- Other keys, in brackets ---
    ("['my key']", "odd", ["['my key']"], ...),
    ('["my key"]', "odd", ["['my key']"], ...),
    ("['a.b'].c", "odd", ["['a.b'].c"], ...),
    ("['a.b']['c']", "odd", ["['a.b'].c"], ...),
    ("a.b.c", "odd", [], ...),
    ("['']", "odd", ["['']"], ...),
    ("['*']", "odd", ["['*']"], ...),
    ('["it\'s"]', "odd", ['["it\'s"]'], ...),
    ("['a]']", "odd", ["['a]']"], ...),
    ("['0']", "odd", ["['0']"], ...),
    ("['0']", "integers", [], ...),
    ("['stem'].conv", "model", ["stem.conv"], ...),
    ("[True]", "mixed", ["[True]"], ...),
    ("[None]", "mixed", ["[None]"], ...),
    ("[(1, 2)]", "mixed", ["[(1, 2)]"], ...),
    ("[b'a']", "mixed", ["[b'a']"], ...),
    ("[2.5]", "mixed", ["[2.5]"], ...),
    # 1, True and 1.0 are equal, and yet three keys.
    ("*.*", "ones", ["0.1", "1[True]", "2[1.0]", "3['1']"], ...),
    ("*[1]", "ones", ["0.1", "3['1']"], ...),
    ("*[True]", "ones", ["1[True]"], ...),
    ("*[1.0]", "ones", ["2[1.0]"], ...),
    ("*['1']", "ones", ["3['1']"], ...),
    ("*.?", "ones", ["0.1", "3['1']"], ...),
    ("**.?", "ones", ["0", "1", "2", "3", "0.1", "3['1']"], ...),
    ("**[True]", "ones", ["1[True]"], ...),
]  # fmt: skip


@pytest.mark.parametrize(
    "pattern, tree, yes, no", CASES, ids=[f"{tree}:{pattern}" for pattern, tree, _, _ in CASES]
)
def test_a_pattern_matches_these_paths_and_not_those(pattern, tree, yes, no):
    every = PATHS[tree]
    assert set(yes) <= set(every)
    found = gx.select(TREES[tree], pattern).paths
    if no is ...:
        assert list(found) == [path for path in every if path in yes]
    else:
        assert set(no) <= set(every)
        assert set(yes) <= set(found)
        assert not set(no) & set(found)


def test_the_table_is_of_cases_on_both_sides():
    assert len(CASES) >= 80
    assert sum(not yes for _, _, yes, _ in CASES) >= 20


@pytest.mark.parametrize("name", TREES)
def test_a_label_is_two_stars_and_the_label(name):
    labels = {path.rpartition(".")[2] for path in PATHS[name]}
    for label in labels:
        if label.isidentifier():
            tree = TREES[name]
            assert gx.select(tree, label).paths == gx.select(tree, f"**.{label}").paths != ()


@pytest.mark.parametrize("name", TREES)
def test_a_number_after_a_dot_is_the_number_in_brackets(name):
    for number in (0, 1, 2, 12):
        for dotted, bracketed in ((f".{number}", f".[{number}]"), (f"*.{number}", f"*[{number}]")):
            assert gx.select(TREES[name], dotted).paths == gx.select(TREES[name], bracketed).paths


def test_a_regular_expression_is_matched_with_the_whole_path_and_never_guessed_from_a_string():
    paths = gx.select(LABELLED, re.compile(r"encoder\.[02]\.norm\d")).paths
    assert paths == ("encoder.0.norm1", "encoder.0.norm2", "encoder.2.norm1", "encoder.2.norm2")
    assert gx.select(LABELLED, re.compile("norm1")).paths == ()
    assert gx.select(LABELLED, re.compile("")).paths == ("",)
    with pytest.raises(gx.PatternError, match=r"re\.compile"):
        gx.select(LABELLED, r"encoder\.[02]")


def test_a_pattern_finds_the_same_in_a_tree_of_other_leaves():
    doubled = jax.tree.map(lambda x: 2 * x if eqx.is_array(x) else x, LABELLED)
    for pattern in ("query", "encoder[-2:].**.weight", "**.{norm1,norm2}", ".0"):
        assert gx.select(doubled, pattern).paths == gx.select(LABELLED, pattern).paths


def test_a_pattern_skips_what_partition_takes_out():
    arrays, rest = eqx.partition(LABELLED, eqx.is_array)
    assert gx.select(arrays, "act").paths == ()
    assert gx.select(rest, "act").paths == gx.select(LABELLED, "act").paths
    assert gx.select(arrays, "weight").paths == gx.select(LABELLED, "weight").paths


@jtu.register_pytree_with_keys_class
class Trap:
    """A node that must not be looked into."""

    def tree_flatten_with_keys(self):
        raise AssertionError("nothing below can match")

    @classmethod
    def tree_unflatten(cls, _, children):
        raise AssertionError


def test_what_a_pattern_cannot_reach_is_not_looked_at():
    model = {"trap": Trap(), "way": {"to": 1.0, "trap": Trap()}, "ways": [2.0, Trap()]}
    assert gx.select(model, "way.to").nodes == (1.0,)
    assert gx.select(model, ".{way,ways}").paths == ("way", "ways")
    assert gx.select(model, "w*[0]").paths == ("ways.0",)
    with pytest.raises(AssertionError):
        gx.select(model, "**.to")
