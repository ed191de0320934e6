"""Chain and activations: the laws, against hand-written Equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import graftax as gx
from common_containers import (
    Affine,
    build,
    containers,
    double,
    evaluate,
    increment,
    linear,
    same_arrays,
    square,
    without_annotation_checks,
)


class MLP(eqx.Module):
    """The hand-written model that the chains below must agree with."""

    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __call__(self, x):
        return self.down(jax.nn.gelu(self.up(x)))


def models(dtype=None):
    up, down = linear(3, 5, 0, dtype), linear(5, 2, 1, dtype)
    return MLP(up, down), gx.Chain(up=up, act=jax.nn.gelu, down=down)


# --- The law ---


def test_a_chain_is_its_layers_in_order():
    m = gx.Chain(linear(3, 5), jnp.tanh, linear(5, 2))
    x = jnp.arange(3.0)
    assert (m(x) == m[2](m[1](m[0](x)))).all()
    pair = gx.Chain(linear(3, 5), jnp.tanh)
    assert (pair(x) == pair[1](pair[0](x))).all()


def test_labelled_and_positional_forms_agree_to_the_bit():
    layers = {"up": linear(3, 5), "act": jnp.tanh, "down": linear(5, 2)}
    x = jnp.arange(3.0)
    expected = layers["down"](jnp.tanh(layers["up"](x)))
    for m in (gx.Chain(**layers), gx.Chain(*layers.values()), gx.Chain(layers)):
        assert (m(x) == expected).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_chain_is_the_hand_written_module_to_the_bit_in_every_dtype(dtype):
    reference, m = models(dtype)
    x = jnp.linspace(-1, 1, 3, dtype=dtype)
    assert m(x).dtype == dtype
    assert same_arrays(m(x), reference(x))
    xs = jnp.linspace(-1, 1, 12, dtype=dtype).reshape(4, 3)
    run = lambda model: eqx.filter_jit(eqx.filter_vmap(model))(xs)
    assert same_arrays(run(m), run(reference))


def test_gradients_are_those_of_the_hand_written_module():
    reference, m = models()
    x = jnp.linspace(-1, 1, 3)
    loss = lambda model, x: jnp.sum(model(x) ** 2)
    for transform in (lambda f: f, eqx.filter_jit):
        of_reference = transform(eqx.filter_grad(loss))(reference, x)
        of_chain = transform(eqx.filter_grad(loss))(m, x)
        assert same_arrays((of_chain.up, of_chain.down), (of_reference.up, of_reference.down))
        assert of_chain.act is None and float(jnp.abs(of_chain.up.weight).sum()) > 0
    assert same_arrays(jax.grad(lambda x: loss(m, x))(x), jax.grad(lambda x: loss(reference, x))(x))


def test_a_chain_agrees_with_eqx_sequential():
    layers = [linear(3, 5), eqx.nn.Lambda(jnp.tanh), linear(5, 2)]
    x = jnp.arange(3.0)
    assert (gx.Chain(layers)(x) == eqx.nn.Sequential(layers)(x)).all()


def test_an_ensemble_is_built_and_run_by_filter_vmap():
    def make(key):
        k1, k2 = jax.random.split(key)
        return gx.Chain(up=eqx.nn.Linear(2, 3, key=k1), down=eqx.nn.Linear(3, 1, key=k2))

    keys = jax.random.split(jax.random.key(0), 4)
    ensemble = eqx.filter_vmap(make)(keys)
    assert ensemble.up.weight.shape == (4, 3, 2) and ensemble.labels == ("up", "down")
    x = jnp.ones(2)
    outputs = eqx.filter_vmap(lambda m: m(x))(ensemble)
    np.testing.assert_allclose(outputs, jnp.stack([make(key)(x) for key in keys]), rtol=1e-6)


@given(containers(), st.integers(-3, 3))
@settings(max_examples=200)
def test_nested_containers_compute_what_their_definitions_say(spec, x):
    m = build(spec)
    assert m(x) == evaluate(m, x)
    assert jax.tree.map(lambda leaf: leaf, m)(x) == evaluate(m, x)


def test_nesting_a_chain_in_a_chain_changes_nothing():
    assert gx.Chain(gx.Chain(double, square), increment)(3) == 37
    assert gx.Chain(a=gx.Chain(b=gx.Chain(c=gx.Chain(d=double))))(3) == 6


# --- Few children ---


@pytest.mark.parametrize(
    "x",
    [3, None, {"a": 1}, (1, 2), "text", np.arange(3), jnp.arange(3.0, dtype=jnp.bfloat16)],
    ids=str,
)
def test_the_empty_chain_is_the_identity_on_anything(x):
    assert gx.Chain()(x) is x
    assert gx.Chain(gx.Chain(), gx.Chain({}))(x) is x


def test_the_empty_chain_is_the_identity_under_transformations():
    m, x = gx.Chain(), jnp.arange(3.0)
    assert (eqx.filter_jit(m)(x) == x).all() and (jax.vmap(m)(x) == x).all()
    assert (jax.jacobian(m)(x) == jnp.eye(3)).all()
    state = eqx.nn.State(eqx.nn.BatchNorm(2, "batch", mode="batch"))
    y, after = m(x, state)
    assert y is x and after is state
    assert jax.tree.leaves(m) == []


def test_a_chain_of_one_is_its_child():
    assert gx.Chain(double)(3) == gx.Chain(only=double)(3) == double(3)


# --- Inputs ---


def test_a_tuple_goes_through_whole_and_several_inputs_are_one_tuple():
    m = gx.Chain(swap=lambda pair: (pair[1], pair[0]), count=len)
    assert m((1, 2)) == m(1, 2) == 2
    assert m[:1](1, 2) == (2, 1) and gx.Chain()(1, 2, 3) == (1, 2, 3)
    assert gx.Chain(sum)([1, 2, 3]) == 6


def test_the_input_of_a_chain_is_positional_so_that_x_can_be_a_keyword():
    m = gx.Chain(scale=lambda value, *, x=1: value * x)
    assert m(3, x=5) == 15
    with pytest.raises(TypeError, match=r"^Chain was called without an input"):
        m(x=5)


def test_a_container_without_an_input_is_refused():
    for m in (
        gx.Chain(),
        gx.Parallel(double),
        gx.SkipConnection(double),
        gx.PairwiseFusion(double),
    ):
        with pytest.raises(TypeError, match=f"^{type(m).__name__} was called without an input"):
            m()


# --- The base, and classes of one's own ---


def test_the_base_is_abstract_and_stateful_as_equinox_says():
    with pytest.raises(TypeError, match="abstract"):
        gx.StructuralLayer(double)
    for cls in (gx.Chain, gx.Parallel, gx.SkipConnection, gx.PairwiseFusion, gx.Repeat):
        assert issubclass(cls, gx.StructuralLayer)
        assert issubclass(cls, eqx.nn.StatefulLayer) and issubclass(cls, eqx.Module)
    norm = eqx.nn.BatchNorm(3, "batch", mode="batch")
    assert not gx.Chain(linear(2, 2)).is_stateful()
    assert gx.Chain(a=gx.SkipConnection(double, shortcut=norm)).is_stateful()
    assert gx.Chain(gx.Parallel(double, op=gx.Chain(norm))).is_stateful()


def test_a_subclass_with_a_docstring_is_a_type_with_the_same_forward_pass():
    class Encoder(gx.Chain):
        """A chain with a name."""

    m = Encoder(up=linear(3, 4), act=jnp.tanh)
    x = jnp.ones(3)
    assert isinstance(m, Encoder) and isinstance(m, gx.Chain) and type(m) is Encoder
    assert (m(x) == gx.Chain(up=m.up, act=m.act)(x)).all()
    assert type(jax.tree.map(lambda leaf: leaf, m)) is Encoder
    assert jax.tree.structure(m) != jax.tree.structure(gx.Chain(up=m.up, act=m.act))


def test_a_subclass_that_builds_its_own_layers():
    class Mlp(gx.Chain):
        """An MLP of a given width."""

        def __init__(self, width, *, key):
            k1, k2 = jax.random.split(key)
            up = eqx.nn.Linear(2, width, key=k1)
            super().__init__(up=up, act=jnp.tanh, down=eqx.nn.Linear(width, 2, key=k2))

    m, x = Mlp(5, key=jax.random.key(0)), jnp.ones(2)
    assert m.labels == ("up", "act", "down")
    assert (m(x) == m.down(jnp.tanh(m.up(x)))).all()
    assert (eqx.filter_jit(m)(x) == eqx.filter_jit(m[:])(x)).all()
    assert eqx.filter_grad(lambda m: m(x).sum())(m).up.weight.shape == (5, 2)


# --- activations ---


def test_activations_are_the_outputs_of_the_prefixes():
    m = gx.Chain(up=linear(3, 5), act=jnp.tanh, down=linear(5, 2))
    x = jnp.arange(3.0)
    outputs = gx.activations(m, x)
    assert list(outputs) == ["up", "act", "down"]
    for i, y in enumerate(outputs.values()):
        assert (y == m[: i + 1](x)).all()
    assert (outputs["down"] == m(x)).all()
    assert list(gx.activations(gx.Chain(*m), x)) == [0, 1, 2]


@given(containers(), st.integers(-3, 3))
@settings(max_examples=50)
def test_law_of_activations(spec, x):
    m = gx.Chain(*build(spec))
    outputs = gx.activations(m, x)
    assert list(outputs.items()) == [(i, m[: i + 1](x)) for i in range(len(m))]


def test_activations_of_few_and_of_many_inputs():
    assert gx.activations(gx.Chain(), 3) == {}
    assert gx.activations(gx.Chain(only=double), 3) == {"only": 6}
    assert gx.activations(gx.Chain(add=sum, twice=double), 1, 2) == {"add": 3, "twice": 6}
    assert gx.activations(gx.Chain(inner=gx.Chain(a=double, b=square)), 3) == {"inner": 36}


def test_activations_are_pure_and_work_under_transformations():
    m = gx.Chain(up=linear(3, 5), act=jnp.tanh)
    xs = jnp.linspace(-1, 1, 12).reshape(4, 3)
    under = eqx.filter_jit(jax.vmap(lambda x: gx.activations(m, x)))(xs)
    assert list(under) == ["up", "act"]
    np.testing.assert_allclose(under["act"], jax.vmap(m)(xs), rtol=1e-6)
    through = eqx.filter_grad(lambda m: gx.activations(m, xs[0])["act"].sum())(m)
    directly = eqx.filter_grad(lambda m: m(xs[0]).sum())(m)
    assert same_arrays(through, directly)


def test_activations_take_state_key_and_context_as_the_model_does():
    m, state = eqx.nn.make_with_state(gx.Chain)(
        norm=eqx.nn.BatchNorm(3, "batch", mode="batch"),
        drop=eqx.nn.Dropout(0.5),
        scale=lambda x, *, factor=1: factor * x,
    )
    xs, key = jnp.arange(12.0).reshape(4, 3), jax.random.key(0)
    clone = lambda state: jax.tree.map(lambda leaf: leaf, state)

    def run(call, *args, **keywords):
        batched = lambda x: call(x, *args, key=key, factor=3, **keywords)
        return jax.vmap(batched, axis_name="batch", out_axes=(0, None))(xs)

    outputs, after = run(lambda *a, **k: gx.activations(m, *a, **k), clone(state))
    y, expected = run(m, clone(state))
    _, by_keyword = run(lambda *a, **k: gx.activations(m, *a, **k), state=clone(state))
    assert list(outputs) == ["norm", "drop", "scale"]
    assert (outputs["scale"] == y).all() and (outputs["scale"] == 3 * outputs["drop"]).all()
    assert same_arrays(after, expected) and same_arrays(by_keyword, expected)
    assert not same_arrays(after, state)


def test_activations_of_what_is_no_chain_are_refused():
    with without_annotation_checks():
        for model in (gx.Parallel(double), linear(2, 2), double):
            name = type(model).__name__
            with pytest.raises(TypeError, match=f"^activations takes a Chain, not a {name}"):
                gx.activations(model, 3)
        with pytest.raises(TypeError, match="No layer of this Chain takes the keyword 'mask'"):
            gx.activations(gx.Chain(double), 3, mask=1)
        with pytest.raises(TypeError, match=r"^Chain was called without an input"):
            gx.activations(gx.Chain(double))


def test_activations_keep_the_notes_of_a_failing_layer():
    with pytest.raises(TypeError) as caught:
        gx.activations(gx.Chain(up=linear(3, 5), down=linear(4, 2)), jnp.ones(3))
    notes = [note for note in caught.value.__notes__ if note.startswith("In ")]
    assert notes == ["In down: Linear was given f32[5]"]


def test_layers_with_parameters_that_are_python_numbers_work():
    m = gx.Chain(a=Affine(2, 1), b=Affine(3, 0))
    assert m(1) == 9 and jax.tree.leaves(m) == [2, 1, 3, 0]
