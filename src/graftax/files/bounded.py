"""JSON from files of anybody's, read in memory that the size of the file bounds."""

import json
from typing import Any

# A file may cost four times its size, and this, to read. A value of JSON takes Python some 80 bytes.
_FREE_VALUES = 1_000_000
_BYTES_A_VALUE = 40


def is_bounded(text: str, size: int) -> bool:
    """Whether a text is worth parsing: it holds no more values than suits a file of `size` bytes.

    Two bytes of text (`[]`) can become seventy of memory, so the values are counted before any is made.
    """
    return sum(map(text.count, "[{:,")) <= _FREE_VALUES + size // _BYTES_A_VALUE


def parse_json(text: str, size: int) -> Any:
    """What a text in a file of `size` bytes says. Raises `ValueError` or `RecursionError`."""
    if not is_bounded(text, size):
        raise ValueError(f"more values than a file of {size:,} bytes has any use for")
    return json.loads(text)
