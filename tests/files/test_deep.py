"""Recursion on a stack of our own: what it returns, and in which order, is that of plain recursion."""

import sys

import hypothesis
import hypothesis.strategies as st
import pytest

from graftax.files.deep import run

TREES = st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=4), max_leaves=30)


def test_a_value_is_its_own_result():
    assert run(3) == 3 and run(None) is None


@hypothesis.given(TREES)
def test_it_is_plain_recursion(tree):
    seen, expected = [], []

    def plain(node):
        if not isinstance(node, list):
            expected.append(node)
            return node
        return [plain(child) for child in node] + [len(node)]

    def task(node):
        if not isinstance(node, list):
            seen.append(node)
            return node
        return several(node)

    def several(node):
        found = []
        for child in node:
            found.append((yield task(child)))
        return [*found, len(node)]

    assert run(task(tree)) == plain(tree)
    assert seen == expected


def test_it_goes_deeper_than_python_does():
    def task(depth):
        return 0 if depth == 0 else 1 + (yield task(depth - 1))

    assert run(task(10 * sys.getrecursionlimit())) == 10 * sys.getrecursionlimit()


def test_an_error_inside_comes_out():
    def task(depth):
        if depth == 0:
            raise KeyError("inside")
        yield task(depth - 1)

    with pytest.raises(KeyError, match="inside"):
        run(task(5))
