"""Patterns against a slow matcher that follows the definition of the language word by word."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import hypothesis.strategies as st
from hypothesis import given, settings

import graftax as gx
from common_trees import LABELS, Entry, Place, places, trees
from graftax.paths.parse import parse
from graftax.paths.search import search

# --- The language, as data: a component is one of these ---


class Deep(NamedTuple):
    """`**`"""


class Glob(NamedTuple):
    """Letters, digits, `*` and `?` are strings of one character; braces are a tuple of globs."""

    parts: tuple


class Index(NamedTuple):
    place: int


class Slice(NamedTuple):
    bounds: tuple


class Key(NamedTuple):
    key: Any


def spelled(component: Any) -> str:
    match component:
        case Deep():
            return "**"
        case Glob(parts):
            return "".join(part if isinstance(part, str) else _braces(part) for part in parts)
        case Index(place):
            return f"[{place}]"
        case Slice(bounds):
            return "[" + ":".join("" if bound is None else str(bound) for bound in bounds) + "]"
        case Key(key):
            return f"[{key!r}]"
    raise AssertionError(component)


def _braces(alternatives: Sequence[Glob]) -> str:
    return "{" + ",".join(map(spelled, alternatives)) + "}"


def pattern_text(components: Sequence[Any], dotted: bool) -> str:
    text = "." if dotted else ""
    for i, component in enumerate(components):
        dot = "." if i > 0 and isinstance(component, Deep | Glob) else ""
        text += dot + spelled(component)
    return text


# --- What it means ---


def words(parts: tuple) -> list[str]:
    """A glob without its braces: every string, `*` and `?` still in it, that they stand for."""
    if not parts:
        return [""]
    head, *rest = parts
    heads = [head] if isinstance(head, str) else [w for glob in head for w in words(glob.parts)]
    return [first + second for first in heads for second in words(tuple(rest))]


def like(word: str, text: str) -> bool:
    if not word:
        return not text
    if word[0] == "*":
        return like(word[1:], text) or (bool(text) and like(word, text[1:]))
    return bool(text) and word[0] in ("?", text[0]) and like(word[1:], text[1:])


def is_number(key: Any) -> bool:
    return isinstance(key, int) and not isinstance(key, bool)


def text_of(key: Any) -> str:
    """What a glob sees of a key. What is neither a string nor a number needs brackets."""
    if isinstance(key, str):
        return key
    return str(key) if is_number(key) else f"[{key!r}]"


def fits(component: Any, entry: Entry) -> bool:
    key, place, count, _ = entry
    match component:
        case Glob(parts):
            spelled_place = str(place) if place >= 0 else None
            return any(like(word, text_of(key)) or word == spelled_place for word in words(parts))
        case Index(wanted) if place >= 0:
            return wanted in (place, place - count)
        case Index(wanted):
            return (key == wanted and is_number(key)) or key == str(wanted)
        case Slice(bounds):
            return place >= 0 and place in list(range(count))[slice(*bounds)]
        case Key(wanted):
            return type(key) is type(wanted) and key == wanted
    raise AssertionError(component)


def leads_to(components: Sequence[Any], trail: Sequence[Entry]) -> bool:
    if not components:
        return not trail
    head, *rest = components
    if isinstance(head, Deep):
        return leads_to(rest, trail) or (bool(trail) and leads_to(components, trail[1:]))
    return bool(trail) and fits(head, trail[0]) and leads_to(rest, trail[1:])


def matches(components: Sequence[Any], dotted: bool, trail: Sequence[Entry]) -> bool:
    components = list(components)
    several = dotted or len(components) > 1
    if not several and not isinstance(components[0], Deep):
        components = [Deep(), *components]  # a label: wherever it stands
    if several and isinstance(components[-1], Deep):
        components.append(Glob(("*",)))  # inside, so one more component at least
    return leads_to(components, trail)


# --- Random patterns, most of which match something in the tree they are drawn for ---

_letters = st.sampled_from(["a", "b", "n", "1", "0", "m", "é"])
_words = st.one_of(
    st.sampled_from(LABELS).map(tuple),
    st.lists(st.one_of(_letters, st.sampled_from("*?")), max_size=3).map(tuple),
)


def _without_double_stars(parts: tuple) -> tuple:
    text: list = []
    for part in parts:
        if not (text and text[-1] == part == "*"):
            text.append(part)
    return tuple(text)


_globs = _words.map(_without_double_stars).map(Glob)
_bounds = st.one_of(st.none(), st.integers(-3, 3))
_slices = st.tuples(_bounds, _bounds, st.sampled_from([None, 1, 2, -1, -2])).map(Slice)


@st.composite
def _components(draw: Any, entry: Entry) -> Any:
    """A component for one step of a way: more often than not one that fits."""
    key, place, count, _ = entry
    text = text_of(key)
    plain = text.isidentifier() or text.isdecimal()
    choices = [_globs.filter(lambda glob: glob.parts), _slices, st.just(Deep())]
    if plain:
        choices += [st.just(Glob(tuple(text)))] * 3
        choices.append(st.just(Glob((*text[:-1], "?"))))
        choices.append(st.just(Glob((*text[:1], "*"))))
        choices.append(_globs.map(lambda other: Glob(((Glob(tuple(text)), other),))))
        choices.append(_globs.map(lambda other: Glob((text[0], (other, Glob(tuple(text[1:])))))))
    if place >= 0:
        choices += [st.just(Index(place)), st.just(Index(place - count))]
        choices.append(st.just(Glob(tuple(str(place)))))
        choices.append(_globs.map(lambda other: Glob(((other, Glob(tuple(str(place)))),))))
    if is_number(key):
        choices.append(st.just(Index(key)))
    else:
        choices.append(st.just(Key(key)))
    return draw(st.one_of(choices))


@st.composite
def patterns(draw: Any, every: list[Place]) -> tuple[list[Any], bool]:
    """(components, whether a dot stands before them)"""
    ways = [place.trail for place in every if place.trail]
    way = draw(st.sampled_from(ways)) if ways else ()
    components = [draw(_components(entry)) for entry in way]
    if draw(st.integers(0, 2)) == 0:
        start = draw(st.integers(0, len(way)))
        stop = draw(st.integers(start, min(start + 2, len(way))))
        components[start:stop] = [Deep()]
    # A component of its own is matched everywhere, which few of the others would be.
    if draw(st.integers(0, 2)) == 0:
        components = components[-1:]
    return components or [Deep()], draw(st.booleans())


@settings(max_examples=400)
@given(trees, st.data())
def test_a_pattern_matches_what_its_definition_says(plan, data):
    tree = plan()
    every = places(tree)
    components, dotted = data.draw(patterns(every))
    text = pattern_text(components, dotted)
    wanted = [
        place.node
        for place in every
        if not place.wrapped and matches(components, dotted, place.trail)
    ]
    found = [match.node for match in search(tree, parse(text))]
    assert list(map(id, found)) == list(map(id, wanted)), text
    assert list(map(id, gx.select(tree, text).nodes)) == list(map(id, wanted)), text


@settings(max_examples=100)
@given(trees, st.data())
def test_a_type_reaches_what_a_wrapper_holds(plan, data):
    tree = plan()
    every = places(tree)
    components, dotted = data.draw(patterns(every))
    text = pattern_text(components, dotted)
    wanted = [
        place.node
        for place in every
        if not isinstance(place.node, gx.Wrapper) and matches(components, dotted, place.trail)
    ]
    not_a_wrapper = lambda node: not isinstance(node, gx.Wrapper)
    found = [match.node for match in search(tree, parse(text), [not_a_wrapper])]
    assert list(map(id, found)) == list(map(id, wanted)), text


@settings(max_examples=200)
@given(trees)
def test_a_path_is_a_pattern_that_finds_its_node(plan):
    tree = plan()
    walked = list(gx.walk(tree))
    for path, _ in walked:
        text = f".{path}" if path else ""
        found = [match.node for match in search(tree, parse(text))]
        assert list(map(id, found)) == [id(other) for where, other in walked if where == path], text


@settings(max_examples=100)
@given(trees)
def test_two_stars_match_everything_and_a_dot_before_them_leaves_out_the_root(plan):
    tree = plan()
    walked = list(map(id, [node for _, node in gx.walk(tree)]))
    assert list(map(id, gx.select(tree, "**").nodes)) == walked
    assert list(map(id, gx.select(tree, ".**").nodes)) == walked[1:]
    assert list(map(id, gx.select(tree, "*").nodes)) == walked[1:]


@settings(max_examples=200)
@given(trees, st.data())
def test_alternatives_in_braces_are_the_union_of_the_patterns_they_stand_for(plan, data):
    tree = plan()
    components, dotted = data.draw(patterns(places(tree)))
    texts = [
        pattern_text([*components[:-1], component], dotted) for component in _spread(components)
    ]
    whole = {id(match.node) for match in search(tree, parse(pattern_text(components, dotted)))}
    apart = {id(m.node) for text in texts for m in search(tree, parse(text))}
    assert whole == apart


def _spread(components: list[Any]) -> list[Any]:
    last = components[-1]
    if not isinstance(last, Glob) or not all(words(last.parts)):
        return [last]
    apart = [Glob(_without_double_stars(tuple(word))) for word in words(last.parts)]
    return apart if all(glob.parts != ("*", "*") for glob in apart) else [last]
