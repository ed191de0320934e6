"""Which positions stay: by number, slice, mask and block."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

import graftax as gx
from graftax.operations.index import Index


@given(st.lists(st.booleans(), min_size=1, max_size=8).filter(any))
def test_a_mask_keeps_what_its_numbers_keep(mask):
    numbers = [i for i, kept in enumerate(mask) if kept]
    for index in (mask, np.array(mask), jnp.array(mask), numbers, [i - len(mask) for i in numbers]):
        assert Index(index).of(len(mask)) == tuple(numbers)


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_blocks_keep_all_positions_of_each(count, width, data):
    kept = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    index = Index(gx.blocks(kept, of=count))
    assert (index.kept, index.count) == (tuple(kept), count)
    positions = np.arange(count * width).reshape(count, width)[kept].reshape(-1)
    assert index.of(count * width) == tuple(positions.tolist())


def test_one_array_is_cut_once_and_one_that_stays_whole_is_the_array():
    array = jnp.arange(6.0).reshape(2, 3)
    index = Index([2, 0])
    assert index.cut(array, 1) is index.cut(array, 1)
    assert index.cut(array, 1).tolist() == [[2.0, 0.0], [5.0, 3.0]]
    assert index.sizes == [3]
    assert Index(slice(None)).cut(array, 0) is array
    assert Index([0]).cut(None, 0) is None
    assert isinstance(Index([0]).cut(np.ones(2), 0), np.ndarray)


@pytest.mark.parametrize("index", [[2], [-3], [0, 0], [1, -1], slice(5, 9), [True], [False, False]])
def test_positions_that_there_are_not_or_twice_are_refused(index):
    with pytest.raises(ValueError):
        Index(index).of(2)
