"""Laws of selections on random trees. Each leaf of these is an object like no other."""

from operator import and_, or_, sub
from typing import Any

import equinox as eqx
import hypothesis.strategies as st
import jax
import pytest
from hypothesis import HealthCheck, assume, given, settings

import graftax as gx
from common_containers import build, containers
from common_trees import LABELS, Box, Dot, Place, places, trees

moderate = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])

# What stands in random trees under these is a few nodes, many, all or none.
patterns = st.sampled_from(
    [
        *LABELS,
        *(
            "*",
            "**",
            "",
            "?",
            "n*",
            "{a,b}",
            "*.*",
            "**.a",
            "a.**",
            ".stem",
            "[0]",
            "[-1]",
            "*[1:]",
        ),
        *("**.[::2]", "gain", "op", "*.layers", "size", "nowhere"),
    ]
)


def same(a: Any, b: Any) -> bool:
    """The same structure around the same objects."""
    (ours, structure), (theirs, other) = jax.tree.flatten(a), jax.tree.flatten(b)
    return structure == other and all(x is y for x, y in zip(ours, theirs, strict=True))


def exactly(path: str) -> str:
    """The pattern that matches this path alone."""
    return path if not path or "." in path or "[" in path[1:] else f".{path}"


def outermost(paths: tuple[str, ...]) -> list[str]:
    return [path for path in paths if not any(is_inside(path, other) for other in paths)]


def is_inside(path: str, outer: str) -> bool:
    if not outer:
        return bool(path)
    return path.startswith(outer) and path[len(outer) : len(outer) + 1] in (".", "[")


def leaves_in(nodes: Any) -> set[int]:
    return {id(leaf) for leaf in jax.tree.leaves(tuple(nodes))}


@moderate
@given(trees, patterns)
def test_applying_the_identity_is_the_model(plan, pattern):
    model = plan()
    found = gx.select(model, pattern)
    assume(found)
    assert found.apply(lambda node: node) is model
    assert found.set_each(found.nodes) is model


@moderate
@given(trees)
def test_a_selection_of_everything_is_the_walk_and_the_places(plan):
    model = plan()
    found = gx.select(model, "**")
    assert found.items() == tuple(gx.walk(model))
    shown: list[Place] = [place for place in places(model) if not place.wrapped]
    assert len(found) == len(shown)
    assert all(a is b.node for a, b in zip(found.nodes, shown, strict=True))


@moderate
@given(trees, patterns)
def test_leaves_outside_a_selection_are_the_same_objects_after_an_edit(plan, pattern):
    model = plan()
    found = gx.select(model, pattern)
    assume(found)
    edited = found.set(Dot())
    kept = leaves_in([model]) - leaves_in(found.nodes)
    assert kept <= leaves_in([edited])
    assert len(leaves_in([edited]) - kept) == 1


@moderate
@given(trees, patterns)
def test_what_was_set_is_what_is_read(plan, pattern):
    model, value = plan(), Dot()
    found = gx.select(model, pattern)
    assume(found)
    edited = found.set(value)
    for path in outermost(found.paths):
        assert all(node is value for node in gx.select(edited, exactly(path)).nodes)
        assert gx.select(edited, exactly(path))


@moderate
@given(trees, patterns)
def test_apply_is_given_each_node_once_deepest_first(plan, pattern):
    model = plan()
    found = gx.select(model, pattern)
    assume(found)
    given_paths = []
    found.apply(lambda node, path: given_paths.append(path) or node)
    assert sorted(given_paths) == sorted(found.paths)
    for i, path in enumerate(given_paths):
        assert not any(is_inside(later, path) for later in given_paths[i + 1 :])


@moderate
@given(trees, patterns)
def test_the_mask_is_true_where_the_leaves_are_inside(plan, pattern):
    model = plan()
    found = gx.select(model, pattern)
    assume(found)
    mask = found.mask(True)
    assert jax.tree.structure(mask) == jax.tree.structure(model)
    pairs = zip(jax.tree.leaves(model), jax.tree.leaves(mask), strict=True)
    assert {id(leaf) for leaf, inside in pairs if inside} == leaves_in(found.nodes)


@moderate
@given(trees, patterns)
def test_partition_and_combine_are_inverse(plan, pattern):
    model = plan()
    found = gx.select(model, pattern)
    assume(found)
    selected, rest = found.partition(True)
    assert leaves_in([selected]) == leaves_in(found.nodes)
    assert leaves_in([selected]).isdisjoint(leaves_in([rest]))
    assert same(eqx.combine(selected, rest), model)
    # None of the leaves is an array: nothing of it trains.
    selected, rest = found.partition()
    assert not jax.tree.leaves(selected) and same(rest, model)


@moderate
@given(trees, st.data())
def test_two_edits_of_disjoint_selections_commute(plan, data):
    model = plan()
    everywhere = gx.select(model, "**").paths[1:]
    assume(everywhere)
    some = st.lists(st.sampled_from(everywhere), min_size=1, max_size=3)
    a = data.draw(some)
    apart = [
        path
        for path in data.draw(some)
        if not any(path == p or is_inside(path, p) or is_inside(p, path) for p in a)
    ]
    assume(apart)

    def left(model):
        return gx.select(model, [exactly(path) for path in a]).apply(lambda node: Box(node, "left"))

    def right(model):
        return gx.select(model, [exactly(p) for p in apart]).apply(lambda node: Box("right", node))

    assert same(left(right(model)), right(left(model)))


@moderate
@given(trees, patterns, patterns)
def test_selections_are_sets_of_what_is_inside(plan, one, other):
    model = plan()
    a, b = gx.select(model, one), gx.select(model, other)
    order = {path: i for i, (path, _) in enumerate(gx.walk(model))}
    ours, theirs = leaves_in(a.nodes), leaves_in(b.nodes)
    for combine, leaves in ((or_, ours | theirs), (and_, ours & theirs), (sub, ours - theirs)):
        try:
            found = combine(a, b)
        except ValueError:
            # Only where a node would be cut.
            assert any(is_inside(p, q) for p in b.paths for q in a.paths) and combine is not or_
        else:
            assert leaves_in(found.nodes) == leaves
            assert set(found.paths) <= set(a.paths) | set(b.paths)
            assert sorted(found.paths, key=order.__getitem__) == list(found.paths)


@moderate
@given(trees, patterns, patterns)
def test_criteria_together_are_the_intersection_of_paths(plan, one, other):
    model = plan()
    together = gx.select(model, one, other)
    both = set(gx.select(model, one).paths) & set(gx.select(model, other).paths)
    assert set(together.paths) == both


@moderate
@given(trees, patterns, patterns)
def test_narrowing_is_a_selection_in_each_match(plan, outer, inner):
    model = plan()
    found = gx.select(model, outer)
    nodes = {id(node) for match in found for node in gx.select(match, inner)}
    assert {id(node) for node in found.select(inner)} == nodes


@moderate
@given(trees, patterns)
def test_no_edit_changes_the_old_model(plan, pattern):
    model = plan()
    leaves, structure = jax.tree.flatten(model)
    found = gx.select(model, pattern)
    assume(found)
    found.set(Dot())
    found.mask(True)
    after, structure_after = jax.tree.flatten(model)
    assert structure == structure_after and all(a is b for a, b in zip(leaves, after, strict=True))


@moderate
@given(containers(), st.data())
def test_insert_and_remove_are_inverse(spec, data):
    model = build(spec)
    inside = [path for path in gx.select(model, "**", callable).paths if path]
    path = data.draw(st.sampled_from(inside))
    found = gx.select(model, exactly(path))
    parent, _, label = path.rpartition(".")
    container = gx.select(model, exactly(parent)).one()
    assume(label != "op" and not isinstance(container, gx.Repeat))
    new = Box(1, 2)
    for insert in (found.insert_before, found.insert_after):
        if isinstance(container, gx.Parallel):
            with pytest.raises(ValueError, match=r"is a branch of a .*\.then\(label=layer\)"):
                insert(new)
            continue
        longer = insert(new) if label.isdecimal() else insert(inserted_=new)
        assert len(gx.select(longer, Box)) == 1
        assert same(gx.select(longer, Box).remove(), model)


@moderate
@given(containers(), st.data())
def test_rename_and_rename_back_is_the_model(spec, data):
    model = build(spec)
    labelled = [
        p
        for p, n in gx.select(model, "**", callable).items()
        if p and not p.rpartition(".")[2].isdecimal()
    ]
    assume(labelled)
    path = data.draw(st.sampled_from(labelled))
    parent, _, label = path.rpartition(".")
    assume(label != "op")
    renamed = gx.select(model, exactly(path)).rename("renamed_")
    there = f"{parent}.renamed_" if parent else "renamed_"
    assert gx.select(renamed, exactly(there)).one() is gx.select(model, exactly(path)).one()
    assert same(gx.select(renamed, exactly(there)).rename(label), model)
