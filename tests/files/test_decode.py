"""What `save` could not have written is refused; reading costs what the file weighs; names are whole."""

import functools
import json
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

import common_named as named
import graftax as gx
from common_entries import RELU, container, write
from common_files import linear, same_bits
from graftax.files.checks import MOST_LABELS, MOST_LEVELS, MOST_TIES
from graftax.files.saving import _HEADER

ADD, W = {"function": "operator.add"}, {"array": "w"}
LINEAR = {"in_features": 1, "out_features": 1, "use_bias": False, "bias": None}


def layer(name, **fields):
    return {"module": name, "fields": fields}


IMPOSSIBLE = {
    "times below 0": (container("Repeat", times=-1), "negative"),
    "times no integer": (container("Repeat", times=1.5), "must be an int"),
    "two layers to repeat": (container("Repeat", [RELU, RELU], times=1), "takes one layer"),
    "no branches": (container("Parallel", [], op=ADD), "at least one branch"),
    "no layers to fuse": (container("PairwiseFusion", [], op=ADD), "at least one layer"),
    "op no callable": (container("Parallel", op=3), "op of Parallel must be callable"),
    "op an array": (container("SkipConnection", op=W, shortcut=None), "must be callable"),
    "op text": (container("PairwiseFusion", op="sum"), "must be callable"),
    "init without a fold": (container("Parallel", op=RELU, init=3), "init of Parallel"),
    "shortcut no callable": (container("SkipConnection", op=ADD, shortcut=3), "shortcut"),
    "execution unknown": (container("Parallel", op=ADD, execution="typo"), "execution"),
    "layer a number": (container("Chain", [1]), "must be callable"),
    "layer a text": (container("Chain", ["x"], labels=["a"]), "'a' of Chain must be callable"),
    "layer an array": (container("Chain", [W]), "must be callable"),
    "layer a list": (container("Chain", [{"list": []}]), "must be callable"),
    "wrapper of a number": (layer("graftax.Remat", layer=3), "callable"),
    "wrapper of an array": (layer("graftax.Vmap", layer=W, axis_name=None), "callable"),
    "cast to integers": (
        layer("graftax.Cast", layer=RELU, dtype={"dtype": "int8"}),
        "floating-point",
    ),
    "cast to text": (layer("graftax.Cast", layer=RELU, dtype="float32"), "floating-point"),
    "beside no layers": (layer("graftax.Then", layer=RELU, after=3), "after of Then"),
    "beside without labels": (
        layer("graftax.Then", layer=RELU, after={"tuple": [RELU]}),
        "by label",
    ),
    "beside a number": (
        layer("graftax.Then", layer=RELU, after={"labelled": ["a"], "items": [3]}),
        "'a' of Then must be callable",
    ),
    "beside under a word": (
        layer("graftax.Then", layer=RELU, after={"labelled": ["forward"], "items": [RELU]}),
        "'forward' cannot be a label",
    ),
    "beside its namesake": (
        layer(
            "graftax.Then",
            layer=container("Chain", labels=["a"]),
            after={"labelled": ["a"], "items": [RELU]},
        ),
        "would hide 'a'",
    ),
    "heads that do not divide": (
        layer(
            "graftax.DotProductAttention",
            **{"heads": 3, "kv_heads": 2, "head_size": None, "causal": False, "scale": None},
            **{"rotary": None, "dropout": None},
        ),
        "kv_heads must divide heads",
    ),
    "weight not set": (
        {"module": "equinox.nn.Linear", "fields": dict(LINEAR), "unset": ["weight"]},
        "'weight' of Linear is missing",
    ),
    "weight a text": (layer("equinox.nn.Linear", weight="text", **LINEAR), "is the text 'text'"),
    "features a text": (
        layer("equinox.nn.Embedding", weight=W, num_embeddings="x", embedding_size=1),
        "num_embeddings of Embedding is the text",
    ),
    "eps a text": (
        layer("equinox.nn.LayerNorm", eps="x", shape=1, weight=None, bias=None),
        "eps of LayerNorm is the text",
    ),
    "partial of a number": (
        {"partial": 3, "args": [], "keywords": {}, "pytree": False},
        "not callable",
    ),
    "labels twice": (container("Chain", [RELU, RELU], labels=["a", "a"]), "twice"),
    "labels too few": (container("Chain", [RELU, RELU], labels=["a"]), "2 layers and 1 label"),
    "a key twice": ({"dict": [["a", 1], ["a", 2]]}, "twice"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_constructor_makes_is_refused(tmp_path, name):
    entry, message = IMPOSSIBLE[name]
    with pytest.raises(gx.FormatError, match=message):
        gx.load(write(tmp_path / "f", {"list": [entry]}))


TIED = {"list": [W, None, 3, {"function": "jax.nn.relu"}]}


@pytest.mark.parametrize(
    "links",
    [
        [[[0], [1, 0]]],
        [[[0, 0], [1]]],
        [[[2], [1]]],
        [[[3], [1]]],
        [[[1], [1]]],
        [[[0], [2]]],
        [[[0], [0]]],
        [[[0], [9]]],
        [[[0], [1]], [[0], [1]]],
        [[["0"], [1]]],
        [[[True], [1]]],
    ],
)
def test_a_tie_leads_from_an_array_to_an_empty_place(tmp_path, links):
    with pytest.raises(gx.FormatError):
        gx.load(write(tmp_path / "f", {"tied": TIED, "links": links}))
    assert gx.load(write(tmp_path / "f", {"tied": TIED, "links": [[[0], [1]]]}))[1] == 1.0


BAD_NAMES = {
    "enum of no enum": {"enum": "equinox.nn.Linear", "member": "RED"},
    "no member": {"enum": "jax.lax.Precision", "member": "__class__"},
    "flags of no flags": {"enum": "jax.lax.Precision", "flags": 1},
    "method that is a property": {"method": "labels", "of": container("Chain")},
    "method that is none": {"method": "__class__", "of": container("Chain")},
    "method of no module": {"method": "append", "of": {"list": []}},
    "module that is a function": layer("jax.nn.relu"),
    "module that is a dtype": layer("numpy.float32"),
    "namedtuple that is a module": {"namedtuple": "graftax.Chain", "labels": [], "items": []},
    "dtype of objects": {"array": "w", "dtype": "O", "shape": [1]},
    "dtype alone, of objects": {"dtype": "O"},
    "dtype alone, of dates": {"dtype": "M8[s]"},
    "dtype alone, of several": {"dtype": "f4,i4"},
    "dtype of text": {"array": "w", "dtype": "U1", "shape": [1]},
    "no tensor": {"array": "nothing"},
    "shape of another size": {"array": "w", "dtype": "float32", "shape": [1 << 40]},
    "key of no implementation": {"array": "w", "random_key": "os.system"},
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_mean_something_else_are_refused(tmp_path, name):
    with pytest.raises(gx.FormatError):
        gx.load(write(tmp_path / "f", BAD_NAMES[name]))


def timed(file):
    start = time.process_time()
    with pytest.raises(gx.FormatError) as caught:
        gx.load(file)
    assert time.process_time() - start < 1
    return str(caught.value)


def test_ties_around_ties_take_no_time(tmp_path):
    entry = {"list": [W, None]}
    for _ in range(40):
        entry = {"tied": {"list": [entry, W, None]}, "links": [[[1], [2]]]}
    file = write(tmp_path / "f", entry)
    assert file.stat().st_size < 4000
    assert f"more than {MOST_TIES} ties" in timed(file)


def test_a_tensor_is_made_once_however_often_it_is_named(tmp_path):
    many = [{"array": "w", "numpy": "array", "dtype": "float32", "shape": [1 << 18]}] * 1000
    weight = {"w": np.ones(1 << 20, np.uint8)}
    loaded = gx.load(write(tmp_path / "f", {"list": many}, weight))
    assert len({id(array) for array in loaded}) == 1
    static = {"list": [layer("equinox.nn.RotaryPositionalEmbedding", dtype=e) for e in many]}
    for entry in static["list"]:
        entry["fields"] |= {"embedding_size": 2, "theta": 1.0}
    loaded = gx.load(write(tmp_path / "f", static, weight))
    assert len({id(layer.dtype) for layer in loaded}) == 1


@pytest.mark.parametrize("static", [False, True])
def test_a_tensor_is_read_in_one_way(tmp_path, static):
    shapes = [{"array": "w", "dtype": "float32", "shape": [1] * i} for i in range(1, 50)]
    entries = [layer("graftax.Vmap", layer=RELU, axis_name=s) if static else s for s in shapes]
    message = timed(write(tmp_path / "f", {"list": entries}, {"w": np.ones(4, np.uint8)}))
    assert "reads the tensor 'w' in two ways" in message


def test_sets_of_labels_are_bounded(tmp_path):
    sets = [{"labelled": [f"l{i}"], "items": [1]} for i in range(MOST_LABELS + 1)]
    assert "sets of labels" in timed(write(tmp_path / "f", {"list": sets}))


def test_depth_is_bounded_before_jax_is_asked(tmp_path):
    parts = [1]
    for i in range(1, MOST_LEVELS + 2):
        parts.append({"list": [{"part": i - 1}]})
    parts[0] = {"list": []}
    entry = {"deep": {"part": MOST_LEVELS + 1}, "parts": parts}
    assert "levels deep" in timed(write(tmp_path / "f", entry))
    # What JAX fails at, it would never get over.
    assert len(jax.tree.leaves([[1]])) == 1


@pytest.mark.parametrize(
    "parts", [[{"part": 0}], [{"list": []}], [], [{"part": 1}, {"part": 0}], None, [3, 4]]
)
def test_parts_are_put_in_once_and_not_into_themselves(tmp_path, parts):
    entry = {"deep": {"list": [{"part": 0}, {"part": 0}]}, "parts": parts}
    with pytest.raises(gx.FormatError):
        gx.load(write(tmp_path / "f", entry))


def rewritten(file, change):
    """The file with another structure around the same tensors."""
    arrays = load_file(file)
    with safetensors.safe_open(file, framework="np") as opened:
        header = json.loads(opened.metadata()[_HEADER])
    change(header["model"])
    return write(file, header["model"], arrays)


def test_a_field_that_was_unset_is_not_one_that_the_class_has_gained(tmp_path):
    file = tmp_path / "f"
    gx.save(file, named.Lazy(jnp.ones(1)))
    assert vars(gx.load(file, [named.Lazy])).keys() == {"weight"}
    loaded = gx.load(rewritten(file, lambda model: model.pop("unset")), [named.Lazy])
    assert loaded.scale == 2.0 and vars(loaded).keys() == {"weight", "scale", "name"}


def test_a_namesake_from_another_module_is_not_taken_without_a_word(tmp_path):
    block, square = named.other_module()
    file = tmp_path / "f"
    gx.save(file, named.Holder(named.square, 0))
    with pytest.raises(gx.FormatError, match=r"'common_named\.square'.*has 'elsewhere\.square'"):
        gx.load(file, [named.Holder, square])
    loaded = gx.load(file, {"common_named.Holder": named.Holder, "common_named.square": square})
    assert loaded.seen is square
    gx.save(file, named.Block(abs))
    with pytest.warns(UserWarning, match=r"Block.*graftax\.Chain.*has 'elsewhere\.Block'.*types="):
        assert type(gx.load(file, [block])) is gx.Chain
    assert type(gx.load(file, {"common_named.Block": named.Block})) is named.Block


def test_an_enumeration_and_a_named_tuple_are_asked_for_by_their_full_names(tmp_path):
    file = tmp_path / "f"
    for model, name in (
        ([named.Colour.BLUE], "common_named.Colour"),
        ([named.Both(1, 2)], "common_named.Both"),
        ([named.square], "common_named.square"),
        ([named.Outer.Inner()], "common_named.Outer.Inner"),
    ):
        gx.save(file, model)
        with pytest.raises(gx.FormatError, match=f"'{name}'.*types="):
            gx.load(file)
        assert same_bits(gx.load(file, gx.types_of(model)), model)


def test_a_named_tuple_of_other_fields_is_refused(tmp_path):
    file = tmp_path / "f"
    gx.save(file, named.Both(1, 2))
    rewritten(file, lambda model: model.update(labels=["mu", "x"]))
    with pytest.raises(gx.FormatError, match="no NamedTuple of"):
        gx.load(file, [named.Both])


def test_nothing_of_a_module_runs_while_it_is_read(tmp_path):
    file = tmp_path / "f"
    write(file, {"method": "prop", "of": layer("common_named.Holder", seen=1, unseen=2)})
    with pytest.raises(gx.FormatError, match="no method 'prop'"):
        gx.load(file, [named.Holder])


@pytest.mark.parametrize("lazy", [False, True])
def test_where_finds_what_stands_in_deep_static_and_bound_places(tmp_path, lazy):
    model = gx.Chain(
        a=named.Holder(jnp.ones(2), functools.partial(jnp.add, np.arange(3.0))),
        b=linear(2, 2),
        c=named.Holder(jnp.ones(2), 1).__call__,
        d=named.Holder(jnp.ones(2), 1).shifted,
    )
    file = tmp_path / "f"
    gx.save(file, model)
    for label in model.labels:
        types = gx.types_of(model)
        found = gx.load(file, types, where=label) if lazy else gx.load(file, types)[label]
        if label == "a":
            assert found.unseen(1).tolist() == [1.0, 2.0, 3.0] and same_bits(
                found.seen, model.a.seen
            )
        elif label == "b":
            assert same_bits(found, model.b)
        else:
            assert found(jnp.ones(2)).tolist() == model[label](jnp.ones(2)).tolist()


@pytest.mark.parametrize("where", ["entry", "a.weight.**.array", "*.*.entry", "**.array"])
def test_where_does_not_find_the_insides_of_the_file(tmp_path, where):
    gx.save(tmp_path / "f", gx.Chain(a=linear(2, 2)))
    with pytest.raises(gx.NoMatchError):
        gx.load(tmp_path / "f", where=where)


def test_a_weak_type_is_kept_and_so_is_the_dtype_of_what_it_meets(tmp_path):
    weak = [
        jnp.asarray(2.0),
        jnp.full((3,), jnp.nan),
        jnp.asarray(3),
        jnp.asarray(1j),
        jnp.arange(3),
    ]
    gx.save(tmp_path / "f", weak)
    loaded = gx.load(tmp_path / "f")
    half = jnp.ones((), jnp.bfloat16)
    assert [x.weak_type for x in loaded] == [x.weak_type for x in weak]
    assert [(x * half).dtype for x in loaded] == [(x * half).dtype for x in weak]
    assert same_bits(loaded, weak)


def test_a_field_of_a_class_with_a_default_factory_or_a_default_of_its_constructor(tmp_path):
    file = tmp_path / "f"
    gx.save(file, eqx.nn.Dropout(0.25))
    rewritten(file, lambda model: model["fields"].pop("inference"))
    assert same_bits(gx.load(file), eqx.nn.Dropout(0.25))
