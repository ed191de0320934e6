"""The laws of indices and slices, on random containers."""

import pytest
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_containers import Affine, build, containers, evaluate


@given(containers(), st.data())
@settings(max_examples=100)
def test_law_of_indices(spec, data):
    m = build(spec)
    everything = tuple(m)
    assert len(m) == len(everything) == len(m.items())
    assert m.labels == () or tuple(label for label, _ in m.items()) == m.labels
    for i, (key, layer) in enumerate(m.items()):
        assert m[i] is m[i - len(m)] is m[key] is layer is everything[i]
        if m.labels:
            assert getattr(m, key) is layer and key in m and key in dir(m)
    i = data.draw(st.integers(-9, 9))
    if -len(m) <= i < len(m):
        assert m[i] is everything[i]
    else:
        with pytest.raises(IndexError):
            m[i]


@given(containers(), st.data())
@settings(max_examples=150)
def test_law_of_slices(spec, data):
    m = build(spec)
    bound = st.none() | st.integers(-6, 6)
    if m.labels:
        bound = bound | st.sampled_from(m.labels)
    start, stop = data.draw(bound), data.draw(bound)
    step = data.draw(st.none() | st.integers(-3, 3).filter(bool))
    as_int = [m.labels.index(b) if isinstance(b, str) else b for b in (start, stop)]
    items = m.items()[slice(*as_int, step)]
    least = 1 if isinstance(m, (gx.Parallel, gx.Repeat)) else 0
    if len(items) < least:
        with pytest.raises(ValueError, match="it got"):
            m[start:stop:step]
        return
    part = m[start:stop:step]
    assert type(part) is type(m) and part.labels == tuple(k for k, _ in items if m.labels)
    assert tuple(part) == tuple(layer for _, layer in items)
    if m.labels:
        assert part.items() == items
    x = data.draw(st.integers(-3, 3))
    assert part(x) == evaluate(part, x)


@given(containers(), st.data())
@settings(max_examples=100)
def test_law_of_lists(spec, data):
    m = build(spec)
    chosen = data.draw(st.lists(st.sampled_from(range(len(m))), unique=True, min_size=1))
    if isinstance(m, gx.Repeat):
        chosen = [0]
    spelled = [data.draw(st.sampled_from([i, i - len(m), m.items()[i][0]])) for i in chosen]
    part = m[spelled]
    assert type(part) is type(m)
    assert tuple(part) == tuple(m[i] for i in chosen)
    assert part.labels == tuple(m.labels[i] for i in chosen if m.labels)


@given(st.lists(st.integers(-3, 3), max_size=6), st.integers(-1, 7), st.integers(-3, 3))
@settings(max_examples=100)
def test_a_chain_is_its_two_parts_one_after_the_other(scales, cut, x):
    m = gx.Chain({f"layer{i}": Affine(scale, i) for i, scale in enumerate(scales)})
    assert m(x) == m[cut:](m[:cut](x))
    assert gx.Chain(dict(m[:cut].items() + m[cut:].items())) == m
