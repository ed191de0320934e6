"""Files of format 1 load for ever."""

import json
from pathlib import Path

import equinox as eqx
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import graftax as gx
from common_files import same_bits
from common_format1 import format1, leaves_of_every_kind

DATA = Path(__file__).parent.parent / "data"


def test_the_model_of_format_1_loads():
    model, state = eqx.nn.make_with_state(gx.load)(DATA / "format1.safetensors")
    expected, expected_state = format1()
    # A partial is equal to itself alone.
    assert model.body.act.keywords == expected.body.act.keywords
    model, expected = (m.replace_where("act", lambda _: abs) for m in (model, expected))
    assert same_bits(model, expected)
    assert same_bits(state, expected_state)


def test_the_leaves_of_format_1_load():
    assert same_bits(gx.load(DATA / "format1_leaves.safetensors"), leaves_of_every_kind())


def test_a_state_that_stood_beside_the_model_is_found_inside():
    model, (_, state) = gx.load(DATA / "format1.safetensors"), format1()
    assert same_bits(model.norm.batch_state_index.init, state.get(model.norm.batch_state_index))
    norm = gx.load(DATA / "format1.safetensors", where="norm")
    assert same_bits(norm, model.norm)


@pytest.mark.parametrize(
    "state", [3, [3], [["nobody", 1]], {"nobody": 1}, [["a", {"array": "none"}]], [[[], 1]]]
)
def test_a_state_that_no_layer_takes_is_refused(tmp_path, state):
    arrays, header = load_file(DATA / "format1.safetensors"), _header()
    save_file(arrays, tmp_path / "model", {"graftax": json.dumps(header | {"state": state})})
    with pytest.raises(gx.FormatError, match="model' cannot be loaded"):
        gx.load(tmp_path / "model")


def _header():
    with safe_open(DATA / "format1.safetensors", framework="np") as opened:
        return json.loads(opened.metadata()["graftax"])
