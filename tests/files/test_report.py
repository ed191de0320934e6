"""The report of what does not fit: each name with the nearest, in time however many there are."""

import pickle
import time

import pytest

import graftax as gx


def test_a_report_is_false_if_all_fits_and_lists_each_kind_else():
    assert not gx.Report({}, (), {}) and str(gx.Report({}, (), {})) == ""
    report = gx.Report(
        {"up.weight": "fc1.weight"}, ("fc1.wieght",), {"b": "has shape (2,)", "c": "no"}
    )
    assert report
    assert str(report).splitlines() == [
        "1 missing in the checkpoint:",
        "  up.weight (looked for 'fc1.weight'; nearest: 'fc1.wieght')",
        "1 unexpected in the checkpoint:",
        "  fc1.wieght (nearest: 'fc1.weight')",
        "2 that do not fit:",
        "  b: has shape (2,)",
        "  c: no",
    ]


def test_the_nearest_of_many_alike_names_is_found():
    names = tuple(f"encoder.layer.{i}.attention.{p}" for i in range(200) for p in ("q", "k"))
    report = gx.Report({"a": "encoder.layer.150.attention.qq"}, names, {})
    assert "nearest: 'encoder.layer.150.attention.q'" in str(report)


@pytest.mark.parametrize(
    "names",
    [
        tuple(f"layer.{i}.weight" for i in range(100_000)),
        tuple(f"{i}" + "x" * 100_000 for i in range(100)),
        tuple("x" * 1_000_000 + f".{i}" for i in range(10)),
    ],
    ids=["many", "long", "very long"],
)
def test_a_report_of_many_or_long_names_is_made_in_time(names):
    report = gx.Report({name: f"{name}0" for name in names[:10]}, names, {})
    began = time.process_time()
    lines = str(report).splitlines()
    assert time.process_time() - began < 3
    # All are listed, whether they get a hint or not.
    assert len(lines) == 2 + 10 + len(names)


def test_the_error_holds_the_report_and_is_pickled_with_it():
    error = gx.WeightsError("It does not fit.", gx.Report({"a": "b"}, (), {}))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is gx.WeightsError and again.report == error.report
    assert (
        str(again)
        == str(error)
        == "It does not fit.\n1 missing in the checkpoint:\n" + ("  a (looked for 'b')")
    )
