"""A path that starts elsewhere than at the root: the hint says where it stands."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_surgery import linear


def message(model, *criteria):
    with pytest.raises(gx.NoMatchError) as caught:
        gx.select(model, *criteria).apply(lambda node: node)
    return str(caught.value)


def net():
    return gx.Chain(
        embeddings=gx.Parallel(word=linear(2, 2, 0), position=linear(2, 2, 1), op=sum),
        encoder=gx.Chain(*(gx.Chain(attention=gx.Chain(query=linear(2, 2, i))) for i in range(4))),
    )


def test_a_path_that_stands_deeper_is_told_to_start_there():
    assert message(net(), "position.weight") == (
        "Nothing matches 'position.weight': the root is a Chain, and none of its children matches "
        "'position'. They are: embeddings, encoder. A path starts at the root; "
        "'**.position.weight' matches wherever it stands (embeddings.position.weight)."
    )


def test_what_it_recommends_matches_what_it_lists():
    assert message(net(), "attention.query").endswith(
        "'**.attention.query' matches wherever it stands (encoder.0.attention.query, "
        "encoder.1.attention.query, encoder.2.attention.query, and 1 more)."
    )
    assert len(gx.select(net(), "**.attention.query")) == 4


@pytest.mark.parametrize(
    "pattern", ["0.attention", "[0].attention", "att*.query", "{attention,mlp}.query.{weight,bias}"]
)
def test_the_hint_is_for_indices_and_wildcards_too(pattern):
    assert f"'**.{pattern}' matches wherever it stands" in message(net(), pattern)
    assert gx.select(net(), f"**.{pattern}")


def test_a_dot_that_pins_one_label_is_taken_away_again():
    text = message(net(), ".query")
    assert "A path starts at the root; 'query' matches wherever it stands (encoder.0." in text
    assert "'**.attention.query' matches" in message(net(), ".attention.query")


def test_it_takes_the_place_of_a_guess_that_is_only_near():
    model = gx.Chain(positions=jnp.sin, embeddings=gx.Chain(position=gx.Chain(weight=jnp.cos)))
    assert "Did you mean" not in message(model, "position.weight")


@pytest.mark.parametrize("pattern", ["attention.querry", "encoder.9.attention", "**.xyz", ".xyz"])
def test_without_such_a_place_nothing_is_said(pattern):
    assert "starts at the root" not in message(net(), pattern)


def test_inside_a_selection_the_root_is_the_node():
    with pytest.raises(gx.NoMatchError, match=r"^Inside '.*'\*\*\.query\.weight' matches wherever"):
        gx.select(net(), "encoder.*").select("query.weight").apply(lambda node: node)


def test_on_foreign_trees_it_holds_as_well():
    mlp = {"net": eqx.nn.MLP(2, 2, 2, depth=1, key=jax.random.key(0))}
    assert "'**.layers.0' matches wherever it stands (net.layers.0)" in message(mlp, "layers.0")
