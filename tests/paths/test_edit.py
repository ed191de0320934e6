"""Many edits in one pass, and where their errors say they were."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_surgery import labelled_model
from graftax.paths.edit import at, at_path, edited, errors_located, located, place, rearranged
from graftax.paths.search import search_all


def found(model, test):
    return search_all(model, test)


def is_linear(node):
    return isinstance(node, eqx.nn.Linear)


def test_the_node_at_each_address_is_given_to_its_edit():
    tree = {"a": [1, 2], "b": {"c": 3}}
    assert edited(tree, {(0, 1): lambda x: 10 * x, (1, 0): lambda x: -x}) == {
        "a": [1, 20],
        "b": {"c": -3},
    }
    assert edited(tree, {}) is tree
    assert edited(tree, {(): list}) == ["a", "b"]


def test_edits_run_deepest_first_and_share_what_they_do_not_touch():
    tree = {"a": [1, 2], "b": [3]}
    new = edited(tree, {(0,): lambda a: [*a, "outer"], (0, 0): lambda x: x + 100})
    assert new == {"a": [101, 2, "outer"], "b": [3]} and new["b"] is tree["b"]
    assert edited(tree, {(0, 0): lambda x: x}) is tree


def test_an_address_leads_through_wrappers_to_the_node():
    model = gx.Chain(a=gx.Remat(gx.Vmap(gx.Chain(b=jnp.sin))))
    (match,) = found(model, lambda node: node is jnp.sin)
    assert at(model, match.address) is jnp.sin and match.path == "a.b"
    assert edited(model, {match.address: lambda _: jnp.cos}).a.b is jnp.cos


def test_the_place_of_a_wrapped_node_is_that_of_its_outermost_wrapper():
    model = labelled_model()
    (mix,) = [match for match in found(model, is_linear) if match.path == "mix"]
    assert at(model, place(mix)) is model.mix and at(model, mix.address) is model.mix.layer
    assert place(found(model, lambda node: node is model)[0]) == ()


def test_an_error_says_which_of_several_children_it_is_about():
    model = gx.Chain(a=jnp.sin, b=gx.Chain(c=jnp.cos, d=jnp.tanh))
    addresses = {match.path: match.address for match in found(model, callable)}
    edits = {addresses["a"]: lambda _: jnp.exp, addresses["b.d"]: lambda _: 5}
    with pytest.raises(TypeError, match=r"^At 'b\.d': Layer 'd' of Chain must be callable; got 5"):
        edited(model, edits)
    with pytest.raises(TypeError, match=r"^At 'b': Layer 'b' of Chain must be callable; got 7"):
        edited(model, {addresses["a"]: lambda _: jnp.exp, addresses["b"]: lambda _: 7})


def test_what_is_rearranged_is_given_its_match_and_what_stands_there_by_then():
    model = gx.Chain(a=gx.Chain(x=jnp.sin), b=jnp.cos)
    matches = [m for m in found(model, callable) if m.path in ("a", "a.x")]
    seen = []

    def change(match, key, child):
        seen.append((match.path, key, child))
        return [(key, child), ("after_" + key, jnp.tanh)]

    new = rearranged(model, matches, change, "given a neighbour")
    assert [path for path, _ in gx.walk(new)] == ["", "a", "a.x", "a.after_x", "after_a", "b"]
    assert [(path, key) for path, key, _ in seen] == [("a.x", "x"), ("a", "a")]
    assert seen[1][2].labels == ("x", "after_x")


def test_what_cannot_be_rearranged_says_what_can_be_done():
    model = gx.Chain(a=eqx.nn.Linear(2, 2, key=jax.random.key(0)))
    matches = found(model, lambda node: node is model.a.bias)
    message = r"^'bias' of Linear at 'a' cannot be moved: it is a field, .* Do this instead\.$"
    with pytest.raises(ValueError, match=message):
        rearranged(model, matches, lambda *_: [], "moved", " Do this instead.")
    with pytest.raises(ValueError, match=r"^The root cannot be moved: .* Do this instead\.$"):
        rearranged(
            model, found(model, lambda n: n is model), lambda *_: [], "moved", " Do this instead."
        )


class OddError(ValueError):
    """An error that is not made of a text alone."""

    def __init__(self, number, reason):
        super().__init__(f"{number}: {reason}")


def test_errors_are_located_in_their_text_or_in_a_note():
    with pytest.raises(TypeError, match=r"^At 'a\.b': mine$"), errors_located(at_path("a.b")):
        raise TypeError("mine")
    where = f"In {located(gx.Chain(), '')}"
    with pytest.raises(ValueError, match=r"^In the root, a Chain: mine$"), errors_located(where):
        raise ValueError("mine")
    for error in (OddError(1, "odd"), KeyError("mine")):
        with pytest.raises(type(error)) as caught, errors_located(at_path("")):
            raise error
        assert caught.value is error and error.__notes__ == ["At the root."]
