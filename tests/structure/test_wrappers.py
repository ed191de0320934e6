"""Vmap, Remat, Cast and a user's own Wrapper: not there for paths, and faithful when called."""

import copy
import io
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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


# --- Vmap ---


def test_vmap_maps_over_the_leading_axis():
    m = gx.Vmap(CHAIN)
    for run in (m, eqx.filter_jit(m), jax.tree.map(lambda leaf: leaf, m)):
        ys = run(XS)
        assert ys.shape == (5, 3)
        for i in range(5):
            assert jnp.allclose(ys[i], CHAIN(XS[i]), atol=1e-6)


def test_vmap_in_vmap_maps_over_two_axes():
    xs = jnp.stack([XS, 2 * XS])
    expected = jax.vmap(jax.vmap(STEM))(xs)
    assert jnp.array_equal(gx.Vmap(gx.Vmap(STEM))(xs), expected)
    assert jnp.allclose(jax.vmap(gx.Vmap(STEM))(xs), expected, atol=1e-6)


def test_vmap_takes_and_gives_any_pytree():
    m = gx.Vmap(lambda x: {"sum": x["a"] + x["b"][0].sum(), "pair": (x["a"], x["a"])})
    a, b = jnp.arange(4.0), jnp.ones((4, 2))
    y = m({"a": a, "b": [b]})
    assert jnp.array_equal(y["sum"], a + 2.0) and jnp.array_equal(y["pair"][1], a)


def test_vmap_takes_arrays_of_numpy():
    assert jnp.array_equal(gx.Vmap(jnp.sum)(np.ones((3, 2), np.float32)), jnp.full(3, 2.0))


@pytest.mark.parametrize(
    ("inputs", "shapes"),
    [
        ((jnp.ones(3), jnp.ones(4)), r"\[\(3,\), \(4,\)\]"),
        ((jnp.ones(3), jnp.array(1.0)), r"\[\(3,\), \(\)\]"),
        ((jnp.array(1.0),), r"\[\(\)\]"),
        (({},), r"\[\]"),
    ],
    ids=["unequal", "a scalar among arrays", "scalar", "no array"],
)
def test_vmap_needs_one_leading_axis_that_all_inputs_share(inputs, shapes):
    with pytest.raises(ValueError, match=f"Vmap maps over the leading axis.*shapes {shapes}"):
        gx.Vmap(lambda x: x)(*inputs)


def test_vmap_gives_each_element_a_key_of_its_own():
    m = gx.Chain(a=gx.Vmap(gx.Chain(b=lambda x, *, key: jax.random.key_data(key))))
    keys = jax.random.split(folded(KEY, "a"), 5)
    expected = [jax.random.key_data(folded(key, "b")).tolist() for key in keys]
    assert m(XS, key=KEY).tolist() == expected
    assert len({tuple(data) for data in expected}) == 5
    assert eqx.filter_jit(m)(XS, key=KEY).tolist() == expected


def test_dropout_in_a_vmap_differs_between_elements():
    ys = gx.Vmap(eqx.nn.Dropout())(jnp.ones((4, 64)), key=KEY)
    assert len({tuple(y.tolist()) for y in ys}) == 4


def test_vmap_gives_the_same_context_to_all_elements():
    bias = jnp.arange(3.0)
    m = gx.Chain(a=gx.Vmap(lambda x, *, bias: x + bias))
    assert jnp.array_equal(m(XS, bias=bias), XS + bias[None])


def norm(mode="batch"):
    return eqx.nn.BatchNorm(4, axis_name="batch", mode=mode, momentum=0.9)


class ByHand(eqx.Module):
    """`Linear`, `BatchNorm`, `tanh`, `Linear`, as one writes it in Equinox."""

    stem: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __call__(self, x, state):
        y, state = self.norm(self.stem(x), state)
        return self.head(jnp.tanh(y)), state


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("wrap", [lambda m: m, gx.Remat, gx.Wrapper], ids=["", "Remat", "Wrapper"])
def test_batch_norm_in_a_named_vmap_is_that_of_equinox(mode, wrap):
    make = lambda: gx.Chain(
        batch=wrap(
            gx.Vmap(
                gx.Chain(stem=STEM, norm=wrap(norm(mode)), act=jnp.tanh, head=HEAD),
                axis_name="batch",
            )
        )
    )
    model, state = eqx.nn.make_with_state(make)()
    hand, hand_state = eqx.nn.make_with_state(ByHand)(STEM, norm(mode), HEAD)

    @eqx.filter_value_and_grad(has_aux=True)
    def ours(model, state):
        ys, state = model(XS, state=state)
        return jnp.sum(ys**2), (ys, state)

    @eqx.filter_value_and_grad(has_aux=True)
    def theirs(hand, state):
        run = jax.vmap(hand, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        ys, state = run(XS, state)
        return jnp.sum(ys**2), (ys, state)

    for _ in range(2):
        (_, (ys, state)), grad = eqx.filter_jit(ours)(model, state)
        (_, (hand_ys, hand_state)), hand_grad = eqx.filter_jit(theirs)(hand, hand_state)
        assert jnp.allclose(ys, hand_ys, atol=1e-5)
        leaves = lambda tree: jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
        for a, b in zip(leaves(grad), leaves(hand_grad), strict=True):
            assert jnp.allclose(a, b, atol=1e-4)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(hand_state), strict=True):
            assert a.shape == b.shape and jnp.allclose(a, b, atol=1e-5)

    quiet, hand_quiet = eqx.nn.inference_mode((model, hand))
    ys, state = quiet(XS, state=state)
    hand_run = jax.vmap(hand_quiet, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    assert jnp.allclose(ys, hand_run(XS, hand_state)[0], atol=1e-5)


def test_a_state_that_would_differ_between_elements_is_an_error_with_its_path():
    class Sum(eqx.Module):
        index: eqx.nn.StateIndex

        def __call__(self, x, state):
            return x, state.set(self.index, x.sum())

    model, state = eqx.nn.make_with_state(
        lambda: gx.Chain(a=gx.Vmap(Sum(eqx.nn.StateIndex(jnp.zeros(())))))
    )()
    with pytest.raises(ValueError, match="out_axes") as caught:
        model(XS, state=state)
    assert any(note.startswith("In a: Vmap(Sum)") for note in caught.value.__notes__)


def test_vmap_is_stateful_as_its_layer():
    assert gx.Vmap(norm(), axis_name="batch").is_stateful()
    assert not gx.Vmap(STEM).is_stateful()


# --- Remat ---


def primitives(jaxpr):
    """The names of all primitives, at any depth."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inside in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: isinstance(leaf, jax.extend.core.Jaxpr)
        ):
            inside = getattr(inside, "jaxpr", inside)
            if isinstance(inside, jax.extend.core.Jaxpr):
                yield from primitives(inside)


def test_remat_computes_its_insides_again_in_the_backward_pass():
    slow = gx.Chain(a=gx.Chain(jnp.sin, jnp.exp))
    count = lambda m: list(
        primitives(jax.make_jaxpr(jax.grad(lambda x: m(x).sum()))(XS[0]).jaxpr)
    ).count("sin")
    assert count(slow) == 1
    assert count(gx.Chain(a=gx.Remat(slow.a))) == 2


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_remat_with_a_key_has_the_gradient_of_the_layer(p):
    inside = gx.Chain(stem=STEM, drop=eqx.nn.Dropout(p), act=jnp.tanh)
    loss = lambda m, x: jnp.sum(m(x, key=KEY) ** 2)
    ours = eqx.filter_grad(loss)(gx.Chain(a=gx.Remat(inside)), XS[0])
    theirs = eqx.filter_grad(loss)(gx.Chain(a=inside), XS[0])
    assert jnp.allclose(ours.a.stem.weight, theirs.a.stem.weight, atol=1e-6)
    assert jnp.abs(ours.a.stem.weight).max() > 0


def test_remat_takes_context_that_is_no_array_and_gives_any_pytree():
    m = gx.Remat(gx.Chain(a=lambda x, *, mode: {"y": x, "mode": mode}))
    y = m(XS, mode="loud")
    assert jnp.array_equal(y["y"], XS) and y["mode"] == "loud"


# --- Cast ---


def cast(tree, dtype):
    is_floating = lambda leaf: eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if is_floating(leaf) else leaf, tree)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, "float16", np.float16])
def test_cast_runs_the_layer_in_another_precision(dtype):
    m, x = gx.Cast(CHAIN, dtype), XS[0]
    expected = cast(CHAIN, dtype)(cast(x, dtype))
    for run in (m, jax.tree.map(lambda leaf: leaf, m)):
        y = run(x)
        assert y.dtype == jnp.dtype(dtype)
        assert jnp.array_equal(y, expected)
    assert jnp.allclose(eqx.filter_jit(m)(x), expected, atol=0.02)
    assert not jnp.array_equal(m(x).astype(jnp.float32), CHAIN(x))


def test_what_cast_stores_and_its_gradient_keep_their_precision():
    m = gx.Chain(a=gx.Cast(STEM, jnp.bfloat16), b=lambda y: y.astype(jnp.float32))
    assert m.a.weight is STEM.weight
    gradient = eqx.filter_grad(lambda m: m(XS[0]).sum())(m)
    assert gradient.a.weight.dtype == jnp.float32
    rounded = XS[0].astype(jnp.bfloat16).astype(jnp.float32)
    assert jnp.array_equal(gradient.a.weight, jnp.broadcast_to(rounded, (4, 3)))


def test_cast_leaves_alone_what_is_no_floating_point_number():
    x = {
        "int": jnp.arange(3),
        "bool": jnp.array([True]),
        "complex": jnp.ones(2, jnp.complex64),
        "key": KEY,
        "text": "text",
        "float": 1.5,
        "array": jnp.ones(2),
        "numpy": np.ones(2, np.float32),
        "numpy scalar": np.float32(1.0),
    }
    y = gx.Cast(gx.Chain(), jnp.bfloat16)(x)
    for name in ("int", "bool", "complex", "key", "text", "float"):
        assert y[name] is x[name]
    for name in ("array", "numpy", "numpy scalar"):
        assert y[name].dtype == jnp.bfloat16


def test_the_innermost_cast_wins():
    inner = gx.Chain(a=jnp.sin, b=gx.Cast(jnp.cos, jnp.float32))
    y = gx.Cast(inner, jnp.float16)(XS[0])
    assert y.dtype == jnp.float32
    assert jnp.array_equal(y, jnp.cos(jnp.sin(XS[0].astype(jnp.float16)).astype(jnp.float32)))


def test_the_state_of_a_cast_layer_keeps_its_precision():
    make = lambda: gx.Chain(a=gx.Cast(gx.Vmap(norm(), axis_name="batch"), jnp.bfloat16))
    model, state = eqx.nn.make_with_state(make)()
    before = [leaf.dtype for leaf in jax.tree.leaves(state)]
    y, state = model(jax.random.normal(KEY, (6, 4)), state=state)
    assert y.dtype == jnp.bfloat16
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == before


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (jnp.int32, "floating-point dtype; got int32"),
        (jnp.complex64, "floating-point dtype; got complex64"),
        (bool, "floating-point dtype; got bool"),
        ("no dtype", "takes a dtype, e.g. jnp.bfloat16; got 'no dtype'"),
    ],
)
def test_cast_takes_floating_point_dtypes_only(dtype, message):
    with pytest.raises(TypeError, match=message):
        gx.Cast(STEM, dtype)


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
