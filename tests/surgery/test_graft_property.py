"""Whatever is put in, taken out, copied, moved or renamed: each layer ends with its own statistics."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_state import markers, norm

LABELS = [f"n{i}" for i in range(8)]


def counted(start):
    """A model with state, and the state, in which the layers have counted different numbers."""
    model, state = eqx.nn.make_with_state(lambda: gx.Chain({n: norm() for n in LABELS[:3]}))()
    for i, label in enumerate(LABELS[:3]):
        state = state.set(model[label].batch_counter, jnp.array(start + i))
    return model, state


def free(model):
    return next((label for label in LABELS if label not in model), None)


def norms(model):
    """The norm under each label, however deep."""
    found = gx.select(model, eqx.nn.BatchNorm)
    return {path.split(".")[0]: layer for path, layer in found.items()}


def through(model, state, how):
    if how == "tree_map":
        return jax.tree.map(lambda leaf: leaf, (model, state))
    if how == "jit":
        return eqx.filter_jit(lambda *both: both)(model, state)
    return model, state


ACTIONS = [
    "extend",
    "remove",
    "fresh",
    "copy",
    "donate",
    "rename",
    "wrap",
    "swap",
    "nest",
    "extend",
    "replace",
]


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_every_layer_ends_with_the_statistics_that_are_its(data):
    model, state = counted(10)
    donor, donated = counted(20)
    own = {label: 10 + i for i, label in enumerate(LABELS[:3])}
    numbers = itertools.count(100)
    for _ in range(data.draw(st.integers(1, 9))):
        action = data.draw(st.sampled_from(ACTIONS))
        label, new = data.draw(st.sampled_from(sorted(own))), free(model)
        other = data.draw(st.sampled_from(sorted(own)))
        place = gx.select(model, f".{label}")
        if action == "remove" and len(own) > 1:
            model = place.remove()
            del own[label]
        elif action == "fresh" and new:
            model, own[new] = place.insert_before(**{new: norm()}), 0
        elif action == "replace":
            model, own[label] = place.set(norm()), 0
        elif action == "copy" and new:
            model, own[new] = place.insert_before(**{new: model[other]}), own[other]
        elif action == "donate" and new:
            i = data.draw(st.integers(0, 2))
            model, own[new] = place.insert_after(**{new: donor[LABELS[i]]}), 20 + i
        elif action == "rename" and new:
            model = place.rename(new)
            own[new] = own.pop(label)
        elif action == "wrap":
            model = place.apply(gx.Remat)
        elif action == "nest":
            model = place.apply(lambda layer: gx.Chain(inner=layer))
            model = gx.select(model, f"{label}.inner").apply(
                lambda layer: gx.Chain(innermost=layer)
            )
        elif action == "swap" and label != other:
            layers = dict(model.items())
            layers[label], layers[other] = layers[other], layers[label]
            model = gx.select(model, "").apply(lambda _, layers=layers: gx.Chain(layers))
            own[label], own[other] = own[other], own[label]
        elif action == "extend":
            state = gx.extend_state(state, model, donor=donated)
            # And each goes on counting, so that nobody's is what another has.
            for each, layer in norms(model).items():
                own[each] = next(numbers)
                state = state.set(layer.batch_counter, jnp.array(own[each]))
            model, state = through(
                model, state, data.draw(st.sampled_from(["", "tree_map", "jit"]))
            )
    assert len(set(markers(model))) == 2 * len(own)
    state = gx.extend_state(state, model, donor=donated)
    assert {
        each: int(state.get(layer.batch_counter)) for each, layer in norms(model).items()
    } == own
