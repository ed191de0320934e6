"""Kinds of values: what each takes, what it makes of it, and the way back."""

import functools

import jax
import pytest

from graftax.zoo.activations import ACTIVATIONS
from graftax.zoo.keys import (
    ACTIVATION,
    EPSILON,
    FACTOR,
    FLAG,
    PAIR,
    RATE,
    SIZE,
    flag_as,
    numbers,
    one_of,
    one_of_named,
    shown,
    sizes,
    whole,
)

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (SIZE, 1, 1),
        (SIZE, 2**31 - 1, 2**31 - 1),
        (whole(0, 3), 0, 0),
        (EPSILON, 0, 0.0),
        (FACTOR, 3, 3.0),
        (RATE, 0, 0.0),
        (RATE, 0.999, 0.999),
        (FLAG, False, False),
        (PAIR, 5, (5, 5)),
        (PAIR, [5, 6], (5, 6)),
        (sizes(), [1, 2], (1, 2)),
        (numbers(2), [1, 2.5], (1.0, 2.5)),
        (one_of(False), 0, False),
        (one_of_named(wide=1, deep=2), "deep", 2),
        (flag_as(None, 1.0), True, None),
        (ACTIVATION, "relu", jax.nn.relu),
    ],
)
def test_a_value_becomes_what_a_constructor_takes(kind, value, expected):
    found = kind.read(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (SIZE, [0, -1, 2**31, 10**400, 1.0, True, "1", None, [1], {}]),
        (EPSILON, [-1e-9, INFINITY, NAN, 10**400, 1e39, True, "0", [0.0]]),
        (FACTOR, [0, 0.0, -1, NAN]),
        (RATE, [1, 1.0, -0.1, NAN]),
        (FLAG, [0, 1, None, "true", []]),
        (PAIR, [0, [1], [1, 2, 3], [1, 0], (1, 2), "12", [[1, 2], 3]]),
        (sizes(), [[], [0], 3, "12", [1.0], {"a": 1}]),
        (numbers(2), [[1.0], [1.0, 0.0], [1.0, "a"], 2]),
        (one_of("a", "b"), ["c", None, ["a"], {}, 0]),
        (one_of_named(wide=1), ["deep", 1, ["wide"]]),
        (flag_as(None, 1.0), [None, 1.0]),
        (ACTIVATION, ["mish", None, ["relu"], 3, ""]),
    ],
)
def test_another_value_is_refused_with_what_it_should_be(kind, values):
    for value in values:
        with pytest.raises(ValueError, match=r"it should be|supported: |is not known"):
            kind.read(value)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_name_of_an_activation_leads_back_to_it(name):
    written = ACTIVATION.write(ACTIVATIONS[name])
    assert ACTIVATIONS[written] is ACTIVATIONS[name]


def test_an_activation_that_was_made_again_has_its_name():
    # As one is that was loaded from a file.
    assert ACTIVATION.write(functools.partial(jax.nn.gelu, approximate=False)) == "gelu"
    with pytest.raises(ValueError, match="no activation of transformers"):
        ACTIVATION.write(functools.partial(jax.nn.gelu, approximate=1))


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [(PAIR, (5, 5), 5), (PAIR, (5, 6), [5, 6]), (sizes(), (1, 2), [1, 2]), (SIZE, 3, 3)],
)
def test_what_is_written_is_read_as_before(kind, value, written):
    assert kind.write(value) == written
    assert kind.read(written) == value


def test_the_words_of_a_kind_lead_back():
    kind = one_of_named(bottleneck=True, basic=False)
    assert [kind.read(kind.write(value)) for value in (True, False)] == [True, False]
    scale = flag_as(None, 1.0)
    assert [scale.write(value) for value in (None, 1.0)] == [True, False]


def test_a_long_value_is_shown_by_its_beginning():
    assert shown("a" * 10) == "'aaaaaaaaaa'"
    assert len(shown("a" * 10_000)) == 80
