"""Globs against their definition, and against the clock."""

import itertools
import re
import time

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

import graftax as gx
from graftax.paths.globs import Automaton

_SIGNS = {"*": ".*", "?": ".", "{": "(?:", ",": "|", "}": ")"}


def expression(glob: str) -> re.Pattern[str]:
    """What a glob means, as a regular expression: the plain account, with its exponential worst case."""
    return re.compile("".join(_SIGNS.get(c) or re.escape(c) for c in glob), re.DOTALL)


def without_double_stars(glob: str) -> str:
    return re.sub(r"\*+", "*", glob)


_braces = st.recursive(
    st.text(alphabet="abé1*?", max_size=4),
    lambda inner: st.tuples(
        st.text(alphabet="ab*?", max_size=2), st.lists(inner, min_size=2, max_size=3), inner
    ).map(lambda parts: f"{parts[0]}{{{','.join(parts[1])}}}{parts[2]}"),
    max_leaves=5,
).map(without_double_stars)  # fmt: skip


@settings(max_examples=500)
@given(_braces, st.lists(st.text(alphabet="abé1*?{},\n", max_size=7), max_size=8))
@example("{a,b}", ["a", "b", "ab", "", "{a,b}", ",", "a,b"])
@example("{,a}{b,}", ["", "a", "b", "ab", "ba"])
@example("*{a,*b}*", ["a", "b", "", "ca", "cab"])
@example("{*a,b*}c", ["ac", "bc", "bac", "c", "bcc"])
@example("*a{b,*}b", ["ab", "aab", "abb", "b"])
def test_a_glob_matches_what_its_regular_expression_does(glob, texts):
    automaton, wanted = Automaton(glob), expression(glob)
    for text in texts:
        assert automaton.matches(text) == bool(wanted.fullmatch(text)), (glob, text)


def test_all_short_globs_match_what_their_regular_expressions_do():
    texts = ["".join(t) for n in range(5) for t in itertools.product("ab", repeat=n)]
    globs = {without_double_stars("".join(g)) for g in itertools.product("ab*?", repeat=5)}
    for glob in globs:
        automaton, wanted = Automaton(glob), expression(glob)
        assert [t for t in texts if automaton.matches(t)] == [
            t for t in texts if wanted.fullmatch(t)
        ], glob


def test_without_wildcards_stars_and_question_marks_match_nothing():
    automaton = Automaton("{1*,?,2,1{0,?}}", wildcards=False)
    assert [t for t in ("1", "2", "10", "1*", "?", "1?", "", "11") if automaton.matches(t)] == [
        "2",
        "10",
    ]


# Each of them took longer than anybody waited, or did not end in an error of ours.
HOSTILE = {
    "ten stars": "*a" * 10 + "*b",
    "thousands of stars": "*a" * 5000 + "*b",
    "stars and question marks": "*?" * 5000,
    "braces in braces": "{" * 2000 + "a" + "}" * 2000,
    "braces that are never closed": "{" * 20000,
    "alternatives in alternatives": "{a,a{" * 1000 + "a,b" + "}}" * 1000,
    "many alternatives": "{" + ",".join(["a", "aa"] * 5000) + "}*b",
    "alternatives that are alike": "{a,aa}" * 500 + "b",
    "stars in alternatives": "{*a,*aa}" * 100 + "b",
    "stars in braces": "{" + "*a" * 500 + ",x}",
    "components": ".".join(["**", "a"] * 1000),
    "only stars": ".".join(["**"] * 10000),
    "a long path": ".".join(["a"] * 10000),
    "brackets in brackets": "[" + "(" * 100000 + "]",
    "signs": "[" + "-" * 100000 + "1]",
    "calls": "[a" + "(1)" * 50000 + "]",
    "sums": "[" + "+1" * 100000 + "]",
    "digits": "9" * 100000,
    "digits in brackets": "[" + "9" * 100000 + "]",
    "spaces": "[" + " " * 100000 + ":" + " " * 100000 + "x]",
    "a tuple": "[(" + "1," * 20000 + ")]",
    "quotes": "['" + "\\" * 100001 + "']",
    "angles": "[<" + ">" * 100000,
    "backslashes in angles": "[<" + "\\" * 100001 + ">]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_pattern_takes_long_or_ends_in_another_error(name):
    nested: dict = {}
    inner = nested
    for _ in range(200):
        inner["a" * 3] = inner = {}
    tree = {"a" * 40: 1.0, "a" * 1000: 2.0, "b": [3.0, nested]}
    started = time.process_time()
    try:
        gx.select(tree, HOSTILE[name])
    except gx.PatternError as error:
        assert error.pattern == HOSTILE[name]
        assert len(error.reason) < 300
        str(error).encode()
    assert time.process_time() - started < 2.0
