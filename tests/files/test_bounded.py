"""JSON is parsed only where the memory it takes is bounded by the size of its file."""

import json
import tracemalloc

import pytest

from graftax.files.bounded import is_bounded, parse_json


def test_what_is_parsed_is_what_json_reads():
    text = json.dumps({"a": [1, 2.5, None, {"b": "text, {with} [signs]:"}]})
    assert parse_json(text, len(text)) == json.loads(text)


@pytest.mark.parametrize("value", ["[]", "{}", '{"a":1}', '""', "1.5", "-9999999", "[[]]"])
@pytest.mark.parametrize("count", [200_000, 3_000_000])
def test_the_memory_of_a_text_is_bounded_by_its_size(value, count):
    text = "[" + ",".join([value] * count) + "]"
    tracemalloc.start()
    try:
        parse_json(text, len(text))
    except ValueError:
        assert count == 3_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * len(text) + 90_000_000


def test_what_is_refused_for_a_small_file_may_stand_in_a_large_one():
    text = "[" + "0," * 2_000_000 + "0]"
    assert not is_bounded(text, len(text)) and is_bounded(text, 1 << 30)
    with pytest.raises(ValueError, match="more values than a file of 4,000,003 bytes"):
        parse_json(text, len(text))
