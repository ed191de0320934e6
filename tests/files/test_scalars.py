"""Values that hold no others come back equal and of the same type, or are refused."""

import enum
import json
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from graftax.files.errors import Unstorable
from graftax.files.scalars import exactly, scalar


@hypothesis.given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
def test_what_json_holds_stands_for_itself(value):
    found = json.loads(json.dumps(scalar(value)))
    assert type(found) is type(value) and found == value
    if isinstance(value, float):
        assert math.copysign(1, found) == math.copysign(1, value)


def test_what_it_does_not_hold_is_spelled():
    assert scalar(float("-inf")) == {"float": "-inf"} and scalar(float("nan")) == {"float": "nan"}
    assert scalar(complex(1, float("inf"))) == {"complex": [1.0, {"float": "inf"}]}
    assert scalar(...) == {"ellipsis": True} and scalar(np.dtype(">f4")) == {"dtype": ">f4"}


@pytest.mark.parametrize("value", [10**4300, -(10**4300)], ids=["large", "small"])
def test_numbers_that_python_does_not_read_are_refused(value):
    with pytest.raises(Unstorable, match="4,300"):
        scalar(value)
    assert scalar(value - value // abs(value)) == value - value // abs(value)


def test_a_subclass_is_refused():
    for value in (enum.IntEnum("E", "A").A, type("S", (str,), {})(), np.float64(1)):
        with pytest.raises(Unstorable, match="of another class"):
            scalar(value)
    exactly(int, 3)
