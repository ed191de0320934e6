"""Files of format 1 load for ever."""

from pathlib import Path

import graftax as gx
from common_files import same_bits
from common_format1 import format1, leaves_of_every_kind

DATA = Path(__file__).parent.parent / "data"


def test_the_model_of_format_1_loads():
    model, state = gx.load(DATA / "format1.safetensors")
    expected, expected_state = format1()
    # A partial is equal to itself alone.
    assert model.body.act.keywords == expected.body.act.keywords
    model, expected = (m.replace_where("act", lambda _: abs) for m in (model, expected))
    assert same_bits(model, expected)
    assert same_bits(state, expected_state)


def test_the_leaves_of_format_1_load():
    assert same_bits(gx.load(DATA / "format1_leaves.safetensors"), leaves_of_every_kind())
