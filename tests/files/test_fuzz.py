"""Hostile and damaged files: each gives `FormatError` or a correct load; nothing runs, nothing swells."""

import builtins
import json
import os
import subprocess
import sys
import warnings

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import graftax as gx
from common_files import linear, models
from graftax.files.saving import _HEADER

SAVED = ("chain", "nested", "tied", "lora", "partial", "convolutions", "wrappers", "batch norm")
HOSTILE = (
    "os.system",
    "builtins.eval",
    "builtins.__import__",
    "subprocess.Popen",
    "jax.nn.__loader__",
    "jax.numpy.load",
    "jax.numpy.save",
    "jax.numpy.__class__",
    "equinox.nn.__builtins__",
    "equinox.internal.error_if",
    "graftax.files.saving.open_source",
    "__reduce__",
    "__class__",
    "",
    "." * 50,
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The bytes, arrays and header of some saved models."""
    folder = tmp_path_factory.mktemp("fuzz")
    found = []
    for name in SAVED:
        file = folder / name.replace(" ", "_")
        gx.save(file, models()[name])
        data = file.read_bytes()
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        found.append((data, load_file(file), json.loads(metadata[_HEADER])))
    return folder, found


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    """Whatever a file could want to run raises an error that no `FormatError` hides."""

    def forbidden(*args, **kwargs):
        raise KeyboardInterrupt(f"a file ran something: {args}")

    for owner, name in (
        (os, "system"),
        (os, "popen"),
        (subprocess, "Popen"),
        (np, "load"),
        (jnp, "load"),
    ):
        monkeypatch.setattr(owner, name, forbidden)
    honest = builtins.eval

    def checked(code, *args):
        # How `collections.namedtuple` makes `__new__`, from labels that were checked to be identifiers.
        return honest(code, *args) if str(code).startswith("lambda _cls, ") else forbidden(code)

    monkeypatch.setattr(builtins, "eval", checked)


def outcome(file):
    """Load a file. Returns whether it loaded; anything but a load or a `FormatError` is raised."""
    before = set(sys.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            gx.load(file)
            loaded = True
        except gx.FormatError as error:
            assert str(file) in str(error)
            loaded = False
    named = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not named & {"subprocess", "webbrowser", "ctypes", "this", "antigravity"}
    return loaded


FUZZ = hypothesis.settings(
    max_examples=700, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)


@FUZZ
@hypothesis.given(data=st.data())
def test_flipped_bytes(originals, data):
    folder, found = originals
    content = bytearray(data.draw(st.sampled_from(found))[0])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = folder / "flipped"
    file.write_bytes(content)
    outcome(file)


@FUZZ
@hypothesis.given(data=st.data())
def test_cut_and_grown_files(originals, data):
    folder, found = originals
    content = data.draw(st.sampled_from(found))[0]
    cut = data.draw(st.integers(0, len(content) - 1))
    more = data.draw(st.binary(max_size=40))
    at = data.draw(st.integers(0, len(content)))
    file = folder / "cut"
    file.write_bytes(content[:cut])
    assert not outcome(file)
    file.write_bytes(content[:at] + more + content[at:])
    outcome(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(HOSTILE),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(HOSTILE), inner, max_size=3)
    ),
    max_leaves=6,
)


def spots(tree, way=()):
    """Every place in a JSON tree."""
    yield way
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in items:
        yield from spots(value, (*way, key))


@FUZZ
@hypothesis.given(data=st.data())
def test_structures_that_lie(originals, data):
    folder, found = originals
    _, arrays, header = data.draw(st.sampled_from(found))
    header = json.loads(json.dumps(header))
    for _ in range(data.draw(st.integers(1, 3))):
        ways = [way for way in spots(header) if way]
        *way, last = data.draw(st.sampled_from(ways))
        holder = header
        for key in way:
            holder = holder[key]
        action = data.draw(st.sampled_from(("replace", "remove", "copy", "rename")))
        if action == "replace":
            holder[last] = data.draw(JSON)
        elif action == "remove":
            holder.pop(last)
        elif action == "copy":
            holder[last] = json.loads(json.dumps(header.get("model")))
        elif isinstance(holder, dict):
            holder[data.draw(st.sampled_from(HOSTILE))] = holder.pop(last)
    file = folder / "lying"
    save_file(arrays, file, {_HEADER: json.dumps(header)})
    outcome(file)


def _write(file, model, arrays=None):
    header = {"format": 1, "graftax": "0", "equinox": "0", "model": model}
    save_file(arrays or {}, file, {_HEADER: json.dumps(header)})


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["function", "module", "partial", "types"])
def test_names_that_are_not_public_mean_nothing(tmp_path, name, kind):
    file = tmp_path / "hostile"
    entry = {
        "function": {"function": name},
        "module": {"module": name, "fields": {"weight": 1}},
        "partial": {"partial": {"function": name}, "args": ["x"], "keywords": {}, "pytree": False},
        "types": {"namedtuple": name, "labels": ["a"], "items": [1]},
    }[kind]
    _write(file, entry)
    with pytest.raises(gx.FormatError):
        gx.load(file)


@pytest.mark.parametrize(
    "label", ["__reduce__", "__class__", "_x", "op", "layers", "a b", "class", ""]
)
def test_labels_that_are_none_are_refused(tmp_path, label):
    file = tmp_path / "labels"
    layer = {"function": "jax.nn.relu"}
    _write(file, {"module": "graftax.Chain", "layers": [layer], "labels": [label], "fields": {}})
    with pytest.raises(gx.FormatError, match="cannot be a label"):
        gx.load(file)


@pytest.mark.parametrize(
    "links",
    [
        [[[0, 0], [0, 0]]],
        [[[0, 0], [1, 0]], [[1, 0], [0, 0]]],
        [[[9, 9], [1, 0]]],
        [[[0, -1], [1, 0]]],
        [[["a"], [1, 0]]],
    ],
)
def test_ties_in_a_circle_or_to_nowhere_are_refused(tmp_path, links):
    file = tmp_path / "ties"
    gx.save(file, gx.tie(gx.Chain(a=linear(2, 2), b=linear(2, 2, 1)), "a.weight", "b.weight"))
    arrays = load_file(file)
    length = int.from_bytes(file.read_bytes()[:8], "little")
    metadata = json.loads(file.read_bytes()[8 : 8 + length])["__metadata__"]
    header = json.loads(metadata[_HEADER])
    header["model"]["links"] = links
    save_file(arrays, file, {_HEADER: json.dumps(header)})
    with pytest.raises(gx.FormatError):
        gx.load(file)


@pytest.mark.parametrize(
    "entry",
    [
        {"module": "graftax.Chain", "fields": {"layers": 5}},
        {"module": "graftax.Tied", "fields": {"layer": None, "links": 3}},
        {"module": "equinox.nn.StateIndex", "fields": {"marker": [], "init": 1}},
        {"module": "graftax.StructuralLayer", "layers": [], "fields": {}},
        {"module": "equinox.nn.Linear", "layers": [], "fields": {}},
        {"tied": None, "links": [[[0], [1]]]},
    ],
)
def test_an_entry_of_the_wrong_kind_makes_no_broken_layer(tmp_path, entry):
    file = tmp_path / "kind"
    _write(file, entry)
    with pytest.raises(gx.FormatError):
        gx.load(file)


def test_deep_nesting_is_refused(tmp_path):
    file = tmp_path / "deep"
    depth = 100_000
    text = '{"format": 1, "model": ' + '{"list": [' * depth + "]}" * depth + "}"
    save_file({}, file, {_HEADER: text})
    with pytest.raises(gx.FormatError):
        gx.load(file)
