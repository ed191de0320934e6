"""Wrappers are not there for paths, attributes and items, and faithful when called."""

import copy
import io
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_calling import Tally, folded
from common_containers import without_annotation_checks

KEY = jax.random.key(3)
K1, K2 = jax.random.split(KEY)
STEM, HEAD = eqx.nn.Linear(3, 4, key=K1), eqx.nn.Linear(4, 3, key=K2)
CHAIN = gx.Chain(stem=STEM, act=jnp.tanh, head=HEAD)
XS = jax.random.normal(KEY, (5, 3))


class Doubled(gx.Wrapper):
    """Twice what the layer gives, times a parameter of its own."""

    gain: jax.Array
    note: str = eqx.field(static=True)

    def __init__(self, layer, note="none"):
        super().__init__(layer)
        self.gain, self.note = jnp.array(1.5), note

    def __call__(self, x, *, loud=1.0, state=None, **keywords):
        out = super().__call__(x, state=state, **keywords)
        if state is None:
            return 2.0 * loud * self.gain * out
        return 2.0 * loud * self.gain * out[0], out[1]


WRAPPERS = {
    "Wrapper": gx.Wrapper,
    "Vmap": gx.Vmap,
    "Remat": gx.Remat,
    "Cast": lambda layer: gx.Cast(layer, jnp.bfloat16),
    "own": Doubled,
    "three deep": lambda layer: gx.Remat(Doubled(gx.Vmap(layer))),
}
each_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)

# --- Not there: attributes, items, paths ---


@each_wrapper
def test_attributes_and_items_pass_through(wrap):
    m = wrap(CHAIN)
    assert m.stem is m["stem"] is m[0] is m[-3] is STEM
    assert m.stem.weight is STEM.weight
    assert m[1:].labels == m["act":].labels == m[["act", "head"]].labels == ("act", "head")
    assert len(m) == 3 and list(m) == list(CHAIN)
    assert "stem" in m and "sten" not in m
    assert m.labels == CHAIN.labels and m.items() == CHAIN.items()
    assert {"stem", "act", "head", "labels"} <= set(dir(m))


@each_wrapper
def test_fields_of_any_layer_pass_through(wrap):
    m = wrap(STEM)
    assert m.weight is STEM.weight and m.out_features == 4
    assert wrap(eqx.nn.Sequential([STEM, HEAD]))[1] is HEAD
    assert "weight" in dir(m)


@each_wrapper
def test_a_wrong_name_is_an_error_that_knows_the_labels(wrap):
    m = wrap(CHAIN)
    assert not hasattr(m, "sten")
    with pytest.raises(AttributeError, match="Did you mean 'stem'"):
        _ = m.sten
    with pytest.raises(KeyError, match="Did you mean 'stem'"):
        m["sten"]
    with pytest.raises(AttributeError):
        _ = wrap(STEM).no_such_field
    with pytest.raises(TypeError):
        len(wrap(STEM))


@each_wrapper
def test_private_names_belong_to_the_wrapper(wrap):
    with pytest.raises(AttributeError, match="_no_such_name"):
        _ = wrap(CHAIN)._no_such_name
    assert not hasattr(wrap(jnp.tanh), "__wrapped__")


@each_wrapper
def test_an_empty_container_in_a_wrapper_is_still_a_model(wrap):
    assert wrap(gx.Chain())


def own_paths(model):
    """Paths with what is there, without the fields that `Doubled` adds."""
    return {path: node for path, node in gx.walk(model) if not path.endswith("gain")}


@each_wrapper
def test_wrapping_changes_no_path(wrap):
    plain = gx.Chain(a=CHAIN, b=gx.SkipConnection(STEM, shortcut=HEAD), c=eqx.nn.Sequential([STEM]))
    wrapped = wrap(
        gx.Chain(
            a=wrap(CHAIN),
            b=wrap(gx.SkipConnection(wrap(STEM), shortcut=wrap(HEAD))),
            c=eqx.nn.Sequential([wrap(STEM)]),
        )
    )
    assert list(own_paths(wrapped)) == list(own_paths(plain))
    leaves = {path: node for path, node in own_paths(plain).items() if eqx.is_array(node)}
    assert len(leaves) == 10
    assert all(own_paths(wrapped)[path] is leaf for path, leaf in leaves.items())


def test_a_wrappers_own_arrays_have_paths():
    assert dict(gx.walk(gx.Chain(a=Doubled(STEM))))["a.gain"] == 1.5


@each_wrapper
def test_children_are_those_of_the_layer_and_rebuild_keeps_the_wrapper(wrap):
    m = wrap(CHAIN)
    assert list(gx.children(m))[:3] == ["stem", "act", "head"]
    changed = gx.rebuild(m, {**gx.children(m), "act": jnp.sin})
    assert type(changed) is type(m)
    assert changed.act is jnp.sin and changed.stem is STEM and m.act is jnp.tanh


@each_wrapper
def test_a_pattern_picks_the_wrapper_and_a_type_what_it_holds(wrap):
    m = gx.Chain(a=wrap(STEM), b=HEAD)
    assert gx.select(m, "a").one() is m.a
    assert gx.select(m, "a", eqx.nn.Linear).one() is STEM
    assert gx.select(m, eqx.nn.Linear).paths == ("a", "b")
    assert gx.select(m, "a.weight").one() is STEM.weight
    new = m.replace_where("a.bias", lambda bias: bias + 1.0)
    assert type(new.a) is type(m.a) and jnp.array_equal(new.a.bias, STEM.bias + 1.0)


@each_wrapper
def test_replace_where_works_on_the_wrapper_itself(wrap):
    assert wrap(CHAIN).replace_where("act", lambda act: jnp.sin).act is jnp.sin


@each_wrapper
def test_a_wrapper_is_a_module_like_any_other(wrap):
    m = wrap(CHAIN)
    same = jax.tree.map(lambda leaf: leaf, m)
    assert eqx.tree_equal(same, m) and jax.tree.structure(same) == jax.tree.structure(m)
    for again in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert eqx.tree_equal(again, m) and jax.tree.structure(again) == jax.tree.structure(m)
    arrays, rest = eqx.partition(m, eqx.is_array)
    assert eqx.tree_equal(eqx.combine(arrays, rest), m)
    new = eqx.tree_at(lambda m: m.stem.weight, m, jnp.zeros((4, 3)))
    assert jnp.array_equal(new.stem.weight, jnp.zeros((4, 3))) and new.head.weight is HEAD.weight
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, m)
    file.seek(0)
    assert eqx.tree_equal(eqx.tree_deserialise_leaves(file, new), m)


@pytest.mark.parametrize("nothing", [3, None, "relu"])
@each_wrapper
def test_what_is_no_callable_cannot_be_wrapped(wrap, nothing):
    message = f"wraps a callable; got {nothing!r} of type {type(nothing).__name__}"
    with without_annotation_checks(), pytest.raises(TypeError, match=message):
        wrap(nothing)


def test_repr_shows_the_layer_and_the_fields_that_are_set():
    assert repr(gx.Vmap(gx.Chain(a=jnp.tanh))) == "Vmap(Chain(a=tanh))"
    assert repr(gx.Vmap(jnp.tanh, axis_name="batch")) == "Vmap(tanh, axis_name='batch')"
    assert repr(gx.Remat(gx.Wrapper(jnp.tanh))) == "Remat(Wrapper(tanh))"


# --- Faithful: what a call gives ---

SAME = {"Wrapper": gx.Wrapper, "Remat": gx.Remat, "Cast": lambda m: gx.Cast(m, jnp.float32)}
each_same = pytest.mark.parametrize("wrap", SAME.values(), ids=SAME)


@each_same
def test_output_and_gradient_are_those_of_the_layer(wrap):
    m = gx.Chain(first=wrap(STEM), rest=wrap(gx.Chain(act=jnp.tanh, head=wrap(HEAD))))
    x = XS[0]
    assert jnp.array_equal(m(x), CHAIN(x))
    assert jnp.array_equal(eqx.filter_jit(m)(x), eqx.filter_jit(CHAIN)(x))
    assert jnp.allclose(jax.vmap(m)(XS), jax.vmap(CHAIN)(XS), atol=1e-6)
    loss = lambda m, x: jnp.sum(m(x) ** 2)
    ours, theirs = eqx.filter_grad(loss)(m, x), eqx.filter_grad(loss)(CHAIN, x)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("wrap", [*SAME.values(), Doubled], ids=[*SAME, "own"])
def test_the_key_goes_through_a_wrapper_unchanged(wrap):
    drop = eqx.nn.Dropout()
    ones = jnp.ones(32)
    gain = 3.0 if wrap is Doubled else 1.0
    expected = gain * drop(ones, key=folded(KEY, "a"))
    assert jnp.array_equal(gx.Chain(a=wrap(drop))(ones, key=KEY), expected)


@each_wrapper
def test_context_keywords_go_through_a_wrapper(wrap):
    layer = lambda x, *, scale, shift=0.0: scale * x + shift
    m = gx.Chain(a=wrap(gx.Chain(b=layer)))
    plain = gx.Chain(a=wrap(gx.Chain(b=lambda x: 4.0 * x + 1.0)))
    assert jnp.allclose(m(XS, scale=4.0, shift=1.0), plain(XS))
    with pytest.raises(TypeError, match="takes the keyword 'scales'"):
        m(XS, scales=4.0)
    with pytest.raises(TypeError, match=f"of this {type(m.a).__name__} takes the keyword 'scales'"):
        m.a(XS, scales=4.0)


@each_wrapper
def test_inference_mode_goes_through_wrappers(wrap):
    drop, ones = eqx.nn.Dropout(), jnp.ones((2, 8))
    m = gx.Chain(a=wrap(drop), b=wrap(gx.Chain(c=drop, d=wrap(drop))))
    quiet = eqx.nn.inference_mode(m)
    assert jax.tree.structure(quiet) == jax.tree.structure(m)
    inside = lambda m: [m.a.inference, m.b.c.inference, m.b.d.inference]
    assert inside(quiet) == [True] * 3 and inside(m) == [False] * 3
    assert inside(eqx.nn.inference_mode(quiet, False)) == [False] * 3
    without = gx.Chain(a=wrap(lambda x: x), b=wrap(gx.Chain(wrap(lambda x: x))))
    assert jnp.array_equal(quiet(ones), without(ones))
    assert jnp.array_equal(eqx.filter_jit(quiet)(ones), without(ones))


# --- A user's own ---


def test_a_users_wrapper_does_what_it_says():
    m = gx.Chain(a=Doubled(STEM, note="mine"), b=Doubled(gx.Chain(head=HEAD)))
    expected = 3.0 * HEAD(3.0 * STEM(XS[0]))
    for run in (m, eqx.filter_jit(m), jax.tree.map(lambda leaf: leaf, m)):
        assert jnp.allclose(run(XS[0]), expected, atol=1e-5)
    assert m.a.note == "mine" and m.b.head is HEAD
    gradient = eqx.filter_grad(lambda m: m(XS[0]).sum())(m)
    assert jnp.allclose(gradient.b.gain, 2.0 * HEAD(3.0 * STEM(XS[0])).sum(), atol=1e-4)


def test_a_users_wrapper_may_declare_a_keyword():
    m = gx.Chain(a=gx.Chain(b=Doubled(STEM)))
    assert jnp.allclose(m(XS[0], loud=10.0), 30.0 * STEM(XS[0]), rtol=1e-5)
    with pytest.raises(TypeError, match="Did you mean 'loud'"):
        m(XS[0], lout=10.0)


def test_a_users_wrapper_hands_on_the_state():
    index = eqx.nn.StateIndex(jnp.array(0))
    m = gx.Chain(a=Doubled(gx.Chain(Tally(index, 1), gx.Remat(Doubled(Tally(index, 2))))))
    assert m.is_stateful() and m.a.is_stateful()
    y, state = m(XS, state=eqx.nn.State(m))
    assert state.get(index) == 12
    assert jnp.allclose(y, 9.0 * (XS + 3.0), rtol=1e-5)


def test_a_users_wrapper_is_given_only_what_it_declares():
    class Negated(gx.Wrapper):
        def __call__(self, x):
            return -super().__call__(x)

    assert jnp.array_equal(gx.Chain(a=Negated(eqx.nn.Identity()))(XS, key=KEY), -XS)
    # Its layer declares a mask that it does not hand on: that must not pass in silence.
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        gx.Chain(a=Negated(lambda x, *, mask=None: x))(XS, mask=1)
