"""Malformed patterns: each error points at the character and says what to do."""

import copy
import pickle

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

import graftax as gx
from graftax.paths.parse import parse

# (pattern, offset of the offending character, what the message says)
MALFORMED = [
    # A component is missing.
    (".", 1, "A component is missing"),
    ("..", 1, "A component is missing"),
    ("encoder.", 8, "A component is missing"),
    ("encoder[0].", 11, "A component is missing"),
    ("encoder..query", 8, "A component is missing"),
    ("..stem", 1, "A component is missing"),
    ("**.", 3, "A component is missing"),
    ("encoder...query", 8, "A component is missing"),
    # Brackets.
    ("encoder[", 7, "This '[' is never closed"),
    ("encoder[0", 7, "This '[' is never closed"),
    ("encoder[0].mlp[1:", 14, "This '[' is never closed"),
    ("[", 0, "This '[' is never closed"),
    ("encoder]", 7, "This ']' was never opened"),
    ("encoder[0]]", 10, "This ']' was never opened"),
    ("]", 0, "This ']' was never opened"),
    ("encoder[]", 7, "These brackets are empty"),
    ("encoder[ ]", 7, "These brackets are empty"),
    ("encoder[['a']", 8, "no position, slice or key"),
    # What stands in brackets.
    ("encoder[stem]", 8, "A label stands after a dot, or in quotes"),
    ("encoder[0, stem]", 8, "no position, slice or key"),
    ("encoder[1+]", 8, "no position, slice or key"),
    ("encoder[01]", 8, "no position, slice or key"),
    ("encoder[1:2:3:4]", 8, "no position, slice or key"),
    ("encoder[1:stem]", 8, "no position, slice or key"),
    ("encoder[{}]", 8, "no position, slice or key"),
    ("encoder[{{}}]", 8, "no position, slice or key"),
    ("encoder[f'a']", 8, "no position, slice or key"),
    ("encoder[(lambda: 0)()]", 8, "no position, slice or key"),
    ("encoder[\0]", 8, "no position, slice or key"),
    ("encoder[" + "9" * 5000 + "]", 8, "no position, slice or key"),
    ("encoder[" + "(" * 5000 + "]", 8, "no position, slice or key"),
    ("encoder[::0]", 10, "The step of a slice cannot be 0"),
    ("encoder[1:2:-0]", 12, "The step of a slice cannot be 0"),
    ("encoder[ : : 0 ]", 13, "The step of a slice cannot be 0"),
    ("encoder['stem]", 8, "This quote is never closed"),
    ("encoder['it's']", 13, "This quote is never closed"),
    # Between components.
    ("encoder[0]norm1", 10, "A dot is missing before 'n'"),
    ("encoder[0]*", 10, "A dot is missing before '*'"),
    ("encoder[0]{a,b}", 10, "A dot is missing before '{'"),
    ("encoder[0]_x", 10, "A dot is missing before '_'"),
    ("encoder/query", 7, "separated by dots"),
    # A position on its own.
    ("encoder.-1", 8, "stands in brackets: [-1]"),
    ("-1", 0, "stands in brackets: [-1]"),
    ("encoder.-12.norm1", 8, "stands in brackets: [-12]"),
    # Braces.
    ("{a,b", 0, "This '{' is never closed"),
    ("encoder.{a,{b,c}", 8, "This '{' is never closed"),
    ("encoder.{", 8, "This '{' is never closed"),
    ("encoder.{a,{b", 11, "This '{' is never closed"),
    ("encoder}", 7, "This '}' was never opened"),
    ("{a,b}}", 5, "This '}' was never opened"),
    ("}", 0, "This '}' was never opened"),
    ("{}", 0, "These braces hold no alternative"),
    ("encoder.norm{}", 12, "These braces hold no alternative"),
    ("{a,{}}", 3, "These braces hold no alternative"),
    ("{a.b,c}", 2, "parts of one component"),
    ("encoder.{a,b[0]}", 12, "parts of one component"),
    ("{a]}", 2, "This ']' was never opened"),
    ("a,b", 1, "Alternatives stand in braces, {a,b}"),
    (",", 0, "Alternatives stand in braces, {a,b}"),
    # Stars.
    ("a**b", 1, "'**' is a component of its own"),
    ("a**", 1, "'**' is a component of its own"),
    ("encoder.**norm", 8, "'**' is a component of its own"),
    ("***", 0, "'**' is a component of its own"),
    ("encoder.***", 8, "'**' is a component of its own"),
    ("encoder.{**,a}", 9, "'**' is a component of its own"),
    # Regular expressions are given as such.
    (r"encoder\.query", 7, "re.compile(...)"),
    ("^encoder", 0, "re.compile(...)"),
    ("encoder$", 7, "re.compile(...)"),
    ("(query|value)", 0, "re.compile(...)"),
    ("query|value", 5, "re.compile(...)"),
    ("norm+", 4, "re.compile(...)"),
    ("norm(1)", 4, "re.compile(...)"),
    ("{query|value}", 6, "re.compile(...)"),
    # What no label holds.
    ("my key", 2, "['my key']"),
    (" stem", 0, "cannot stand in a label"),
    ("stem ", 4, "cannot stand in a label"),
    ("{a, b}", 3, "cannot stand in a label"),
    ("encoder.query!", 13, "cannot stand in a label"),
    ("encoder:query", 7, "cannot stand in a label"),
    ("'stem'", 0, "cannot stand in a label"),
    ("a\tb", 1, "cannot stand in a label"),
    ("a\nb", 1, "cannot stand in a label"),
    ("encoder.€", 8, "cannot stand in a label"),
]


@pytest.mark.parametrize(
    "pattern, position, message", MALFORMED, ids=[pattern[:20] for pattern, _, _ in MALFORMED]
)
def test_the_error_points_at_the_character(pattern, position, message):
    with pytest.raises(gx.PatternError) as caught:
        gx.select([1.0], pattern)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.pattern == pattern
    assert error.position == position
    assert message in error.reason
    reason, shown, caret = str(error).split("\n")
    assert reason == error.reason
    assert caret.index("^") == len(caret) - 1 == 4 + position
    # The pattern is shown as it is, but for what would move the caret.
    assert len(shown) == 4 + len(pattern)
    assert all(a in (b, "�") for a, b in zip(shown[4:], pattern, strict=True))


# Every one of the public doors raises the same error, and raises it at once.
DOORS = {
    "select": lambda pattern: gx.select([1.0], pattern),
    "select in a list": lambda pattern: gx.select([1.0], ["**", pattern]),
    "select after a type": lambda pattern: gx.select([1.0], float, pattern),
    "Selection.select": lambda pattern: gx.select([1.0], "").select(pattern),
    "replace_where": lambda pattern: gx.replace_where([1.0], pattern, abs),
    "the method": lambda pattern: gx.Chain(abs).replace_where(pattern, lambda layer: layer),
    "dispatch": lambda pattern: gx.dispatch(lambda layer: layer).register(pattern),
    "label_fn": lambda pattern: gx.label_fn({pattern: "train"})([1.0]),
    "tie": lambda pattern: gx.tie([1.0], pattern, "**"),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_function_that_takes_a_pattern_says_so(door):
    with pytest.raises(gx.PatternError) as caught:
        DOORS[door]("encoder..query")
    assert caught.value.position == 8


def test_an_error_is_raised_again_for_the_same_pattern():
    errors = []
    for _ in range(2):
        with pytest.raises(gx.PatternError) as caught:
            parse("a..b")
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_an_error_survives_pickling(copied):
    error = gx.PatternError("A component is missing here", "a..b", 2)
    again = copied(error)
    assert type(again) is gx.PatternError
    assert (again.reason, again.pattern, again.position) == (error.reason, "a..b", 2)
    assert str(again) == str(error)


@pytest.mark.parametrize("wrong", [None, 0, 3.5, b"stem", object()])
def test_what_is_no_string_is_no_pattern(wrong):
    with pytest.raises(TypeError, match="pattern"):
        gx.select([1.0], wrong)
    with pytest.raises(TypeError):
        parse(wrong)


# --- What is read, and how ---

ALIKE = [
    ("encoder.3", "encoder[3]"),
    ("encoder.3.norm1", "encoder[3].norm1"),
    ("encoder.3[0]", "encoder[3].0"),
    ("a[0][1]", "a.0.1"),
    ('a["x"].b', "a['x'].b"),
    ("a[+1]", "a[1]"),
    ("a[-0]", "a[0]"),
    ("a[ 1 ]", "a[1]"),
    ("a[1_0]", "a[10]"),
    ("a[:]", "a[::]"),
    ("a[ 1 : 2 ]", "a[1:2]"),
    ("a['x' 'y']", "a['xy']"),
    ("a.[0]", "a[0]"),
    ("**[0]", "[0]"),
    ("**.a", "a"),
    ("**.**", ".**"),
]


@pytest.mark.parametrize("one, other", ALIKE)
def test_two_spellings_of_one_pattern(one, other):
    tree = [
        {"a": [[1.0, 2.0], [3.0, [4.0]], 5.0], "encoder": [6.0, 7.0, 8.0, {"norm1": 9.0}]},
        {"a": {"x": {"b": 10.0}, "xy": 11.0}, "encoder": {3: [12.0]}},
        {"a": dict(enumerate(range(12)))},
    ]
    for part in (tree, *tree):
        assert gx.select(part, one).paths == gx.select(part, other).paths


@pytest.mark.parametrize(
    "pattern",
    ["", "a", ".a", "**", ".**", "[0]", ".[0]", "*[0]", "a-b", "_a", "été", "{a,}", "{,}"],
)
def test_these_are_patterns(pattern):
    assert parse(pattern).text == pattern


@pytest.mark.parametrize(
    "pattern, pinned",
    [("a", False), ("*", False), ("[0]", False), ("{a,b}", False), ("a.b", True), (".a", True),
     ("**", True), ("a[0]", True), ("", True), (".[0]", True)],
)  # fmt: skip
def test_only_a_single_component_without_a_dot_is_not_pinned_to_the_root(pattern, pinned):
    assert parse(pattern).pinned is pinned


_signs = st.text(alphabet="ab0-19_.*?[]{},:'\" ()\\|/é\n", max_size=12)


@settings(max_examples=500)
@given(_signs | st.text(max_size=8))
@example("[" * 50)
@example("{" * 50)
def test_any_text_is_a_pattern_or_an_error_that_points_into_it(text):
    try:
        pattern = parse(text)
    except gx.PatternError as error:
        assert error.pattern == text
        assert 0 <= error.position <= len(text)
    else:
        assert pattern.text == text
        # What is read can be run, and what is run gives nodes of the tree, each once.
        tree = {"a": [1.0, (2.0, {"b": 3.0})], "b": {"0": 4.0, "a": {"a": 5.0}}}
        walked = [path for path, _ in gx.walk(tree)]
        paths = gx.select(tree, text).paths
        assert [path for path in walked if path in paths] == list(paths)


ODD = [
    r"['\d']",
    r"['\777']",
    r"[b'\u']",
    "['\ud800']",
    "\ud800",
    "[1or 2]",
    "[1\0]",
    r"['\N{no}']",
]


@pytest.mark.parametrize("text", ODD)
def test_what_python_would_warn_of_or_cannot_print_is_an_error_that_can_be_printed(text):
    with pytest.raises(gx.PatternError) as caught:
        parse(text)
    assert str(caught.value).encode()


def test_escapes_that_python_knows_are_read():
    for key in ("\n", "\x00", "é", "'", "\\", "\\d", "a\\\\b", "\ud800", "\N{BULLET}"):
        assert gx.select({key: 1.0}, f"[{key!a}]").nodes == (1.0,)
