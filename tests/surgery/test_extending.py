"""The state of an edited model."""

import equinox as eqx
import jax
import pytest

import graftax as gx
from common_containers import same_arrays
from common_state import (
    INITIAL,
    norm,
    statistics,
    trained,
)
from graftax.surgery.state import check_is_state


def test_extend_state_of_an_unchanged_model_is_the_state():
    a, state_a = trained(0)
    again = gx.extend_state(state_a, a)
    assert jax.tree.structure(again) == jax.tree.structure(state_a)
    assert same_arrays(again, state_a)


def test_extend_state_drops_what_the_model_no_longer_uses():
    a, state_a = trained(0)
    edited = gx.select(a, "norm").remove()
    assert jax.tree.leaves(gx.extend_state(state_a, edited)) == []


def test_a_layer_put_where_another_was_removed_does_not_get_its_statistics():
    (a, state), (b, state_b), (c, state_c) = trained(0), trained(1), trained(2)
    for new, donor in ((b.norm, state_b), (c.norm, state_c), (norm(), None)):
        a = gx.select(a, "norm").remove()
        a = gx.select(a, "lin").insert_after(norm=new)
        extended = gx.extend_state(state, a, donor=donor)
        expected = INITIAL if donor is None else statistics(new, donor)
        assert same_arrays(statistics(a.norm, extended), expected)
        # What the layer holds that is removed next is still in there.
        state = extended


def test_extend_state_works_under_jit():
    (a, state_a), (b, state_b) = trained(0), trained(1)

    @eqx.filter_jit
    def grafted(a, b, state_a, state_b):
        edited = gx.select(a, "norm").insert_after(norm2=b.norm)
        return edited, gx.extend_state(state_a, edited, donor=state_b)

    edited, state = grafted(a, b, state_a, state_b)
    assert same_arrays(statistics(edited.norm, state), statistics(a.norm, state_a))
    assert same_arrays(statistics(edited.norm2, state), statistics(b.norm, state_b))


def test_layers_joined_without_an_edit_are_refused_by_extend_state():
    (a, state_a), (b, state_b) = trained(0), trained(1)
    joined = gx.Chain(one=a[:"out"], two=b)
    message = (
        r"^The layers at 'one\.norm\.batch_counter' and 'two\.norm\.batch_counter' have one state marker"
        r".*Put one of them in by an edit"
    )
    with pytest.raises(ValueError, match=message):
        gx.extend_state(state_a, joined, donor=state_b)
    edited = gx.select(gx.Chain(one=a[:"out"]), "one").insert_after(two=b)
    state = gx.extend_state(state_a, edited, donor=state_b)
    assert same_arrays(statistics(edited.two.norm, state), statistics(b.norm, state_b))


def test_what_is_no_state_is_refused_by_name():
    # Without beartype, which these tests run under, this is what a user sees.
    a, state_a = trained(0)
    for name in ("state", "donor"):
        check_is_state("f(state)", name, state_a)
        with pytest.raises(
            TypeError, match=rf"^f.state. takes an eqx\.nn\.State as {name}; got a Chain"
        ):
            check_is_state("f(state)", name, a)
    with pytest.raises(TypeError):
        gx.extend_state(a, state_a)
    with pytest.raises(TypeError):
        gx.extend_state(state_a, a, donor=a)
