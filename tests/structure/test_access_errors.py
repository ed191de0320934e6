"""What is not in a container: the message names what is, and the nearest."""

import numpy as np
import pytest

import graftax as gx
from common_containers import Bottleneck, double, increment, square


def three():
    return gx.Chain(stem=double, body=square, head=increment)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (
            three,
            "stm",
            "Chain has no attribute 'stm' and no layer of this label. Its labels are: stem, body, "
            "head. Did you mean 'stem'?",
        ),
        (
            three,
            "xyzzy",
            "Chain has no attribute 'xyzzy' and no layer of this label. Its labels are: stem, body, "
            "head.",
        ),
        (
            lambda: gx.Chain(double),
            "stem",
            "Chain has no attribute 'stem' and no layer of this label. Its labels are: none.",
        ),
        (
            lambda: Bottleneck(conv=double),
            "cov",
            "Bottleneck has no attribute 'cov' and no layer of this label. Its labels are: conv. "
            "Did you mean 'conv'?",
        ),
        (
            lambda: gx.Chain({f"layer{i}": double for i in range(20)}),
            "layer33",
            "Chain has no attribute 'layer33' and no layer of this label. Its labels are: layer0, "
            "layer1, layer2, layer3, layer4, layer5, layer6, layer7, layer8, layer9, layer10, "
            "layer11, and 8 more. Did you mean 'layer3'?",
        ),
        (three, "_private", "Chain has no attribute '_private'"),
        (three, "__array__", "Chain has no attribute '__array__'"),
    ],
)
def test_an_unknown_attribute_names_the_labels_and_the_nearest(make, name, message):
    m = make()
    with pytest.raises(AttributeError) as caught:
        getattr(m, name)
    assert str(caught.value) == message
    assert caught.value.name == name and caught.value.obj is m
    assert not hasattr(m, name) and getattr(m, name, None) is None


@pytest.mark.parametrize(
    "index",
    ["stm", slice("stm", None), slice(None, "stm"), ["body", "stm"], ("stm", "body")],
    ids=str,
)
def test_an_unknown_label_names_the_labels_and_the_nearest(index):
    with pytest.raises(KeyError) as caught:
        three()[index]
    assert str(caught.value) == (
        "Chain has no layer 'stm'. Its labels are: stem, body, head. Did you mean 'stem'?"
    )


def test_an_unknown_label_without_a_near_one_makes_no_guess():
    with pytest.raises(KeyError) as caught:
        three()["xyzzy"]
    assert str(caught.value) == "Chain has no layer 'xyzzy'. Its labels are: stem, body, head."
    with pytest.raises(KeyError) as caught:
        gx.Parallel(double)["stem":]
    assert str(caught.value) == "Parallel has no layer 'stem'. Its labels are: none."


@pytest.mark.parametrize("index", [3, -4, 100, [0, 3], np.int64(7)], ids=str)
def test_an_unknown_position_says_how_many_there_are(index):
    wrong = index[-1] if isinstance(index, list) else index
    with pytest.raises(IndexError) as caught:
        three()[index]
    assert str(caught.value) == f"Chain has 3 layers: there is no position {wrong}."


def test_the_empty_chain_has_no_position_0():
    for index in (0, -1):
        with pytest.raises(IndexError, match=f"^Chain has 0 layers: there is no position {index}"):
            gx.Chain()[index]


@pytest.mark.parametrize("index", [None, 1.5, double, {"stem"}, b"stem", [1.5], [None]])
def test_anything_else_is_no_index(index):
    wrong = index[0] if isinstance(index, list) else index
    with pytest.raises(TypeError) as caught:
        three()[index]
    assert str(caught.value) == (
        f"Chain is indexed by label, position, slice or a list of these, not by {wrong!r}."
    )


def test_a_slice_steps_by_integers_as_slices_do():
    for step in ("body", 1.5):
        with pytest.raises(TypeError, match="slice indices must be integers or None"):
            three()[::step]
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        three()[::0]
    with pytest.raises(TypeError, match="slice indices must be integers or None"):
        three()[1.5:]


def test_a_slice_that_its_class_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"^Parallel needs at least one branch; it got none"):
        gx.Parallel(a=double)[1:]
    with pytest.raises(ValueError, match=r"^PairwiseFusion needs at least one layer; it got none"):
        gx.PairwiseFusion(a=double)[:0]
    with pytest.raises(ValueError, match=r"^Repeat takes one layer; it got 0"):
        gx.Repeat(a=double, times=2)[:0]
