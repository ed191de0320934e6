"""`select`: what its criteria pick, and what a selection says of it."""

import equinox as eqx
import jax
import optax
import pytest

import graftax as gx
from common_containers import without_annotation_checks
from common_surgery import LINEARS, TREES, arrays, attention, labelled_model, mixer, mlp

# --- Criteria ---


# --- expect ---


def test_expect_lets_the_expected_number_pass():
    assert gx.select(labelled_model(), "up", expect=2).paths == ("body.0.up", "body.1.up")
    assert gx.select(labelled_model(), "nothing", expect=0).paths == ()
    found = gx.select(labelled_model(), "up")
    assert found.expect(2) is found


def test_expect_refuses_another_number_and_lists_what_there_is():
    message = r"^Expected 3, found 2: body\.0\.up, body\.1\.up\.$"
    with pytest.raises(gx.MatchError, match=message):
        gx.select(labelled_model(), "up", expect=3)
    with pytest.raises(gx.MatchError, match=message):
        gx.select(labelled_model(), "up").expect(3)
    with pytest.raises(gx.MatchError, match=r"^Expected 0, found 2"):
        gx.select(labelled_model(), "up", expect=0)


def test_expect_of_none_names_the_nearest():
    with pytest.raises(gx.NoMatchError, match=r"^Expected 1, found 0\. .*Did you mean 'stem'"):
        gx.select(labelled_model(), "sterm", expect=1)


def test_match_errors_are_value_errors_and_no_match_is_a_lookup_error():
    assert issubclass(gx.MatchError, ValueError)
    assert issubclass(gx.NoMatchError, gx.MatchError)
    assert issubclass(gx.NoMatchError, LookupError)


# --- Reading ---


# --- Foreign trees ---


@pytest.mark.parametrize("name", TREES)
def test_every_path_of_a_walk_selects_its_node(name):
    tree = TREES[name]()
    for path, node in gx.walk(tree):
        # A path of one component is a label, unless a dot pins it to the root.
        pattern = path if "." in path or "[" in path or not path else f".{path}"
        assert gx.select(tree, pattern).one() is node


@pytest.mark.parametrize("name", TREES)
def test_selecting_everything_is_a_walk(name):
    tree = TREES[name]()
    found = gx.select(tree, "**")
    assert found.paths == tuple(path for path, _ in gx.walk(tree))
    assert all(a is b for a, (_, b) in zip(found.nodes, gx.walk(tree), strict=True))


def test_patterns_and_types_on_foreign_modules():
    assert gx.select(mlp(), "layers[-2:].weight").paths == ("layers.1.weight", "layers.2.weight")
    assert gx.select(attention(), "{query,value}_proj", eqx.nn.Linear).paths == (
        "query_proj",
        "value_proj",
    )
    assert gx.select(mixer(), eqx.nn.Linear).paths == (
        "layers.0",
        "layers.2",
        "heads.even",
        "heads.odd",
    )
    assert gx.select(mixer(), "heads.**.bias").paths == ("heads.even.bias", "heads.odd.bias")


def test_patterns_and_types_on_an_optimiser_state():
    state = optax.adam(1e-3).init(arrays())
    assert gx.select(state, optax.ScaleByAdamState).paths == ("0",)
    assert gx.select(state, "0.mu.decoder.*").paths == ("0.mu.decoder.scale", "0.mu.decoder.shift")
    assert gx.select(state, "scale").paths == ("0.mu.decoder.scale", "0.nu.decoder.scale")
    assert gx.select(state, "count").one() == 0


def test_selecting_works_on_tracers_and_after_a_tree_map():
    model = labelled_model()

    @eqx.filter_jit
    def halved(model):
        assert gx.select(model, "weight").paths == gx.select(labelled_model(), "weight").paths
        return gx.select(model, "head.weight").apply(lambda w: w / 2)

    assert bool((halved(model).head.weight == model.head.weight / 2).all())
    mapped = jax.tree.map(lambda x: x, model)
    assert gx.select(mapped, eqx.nn.Linear).paths == LINEARS


def test_messages_for_wrong_criteria_do_not_need_annotations():
    with without_annotation_checks(), pytest.raises(TypeError, match=r"^A criterion is a pattern"):
        gx.select(labelled_model(), {"a": 1})
