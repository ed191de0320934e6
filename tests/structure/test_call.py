"""The record of a call: linear work, one place for all children, wrappers that know of nothing."""

import functools
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx

PACKAGE = str(Path(gx.__file__).parent)
X = jnp.arange(1.0, 5.0)


def masked(x, *, mask):
    return x * mask


def own_calls(run):
    """How many Python functions of graftax are called by `run`."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    # The caches are filled first: they outlive one call.
    run()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def chain(layer):
    return gx.Chain(inner=layer)


NESTINGS = {
    "chain": chain,
    "parallel": lambda layer: gx.Parallel(inner=layer, op=lambda outputs: outputs[0]),
    "skip": lambda layer: gx.SkipConnection(inner=layer, op=lambda pair: pair[0]),
    "fusion": lambda layer: gx.PairwiseFusion(layer, op=lambda pair: pair[0]),
    "repeat": lambda layer: gx.Repeat(layer, 1),
    "wrapper": lambda layer: gx.Wrapper(chain(layer)),
    "remat": lambda layer: gx.Remat(chain(layer)),
    "residual": lambda layer: gx.Residual(chain(layer), first=lambda x: x),
    "then": lambda layer: gx.Then(chain(layer), behind=lambda x: x),
    "wrappers alone": gx.Wrapper,
    "op": lambda layer: gx.Parallel(a=lambda x: x, op=gx.Chain(first=lambda xs: xs[0], rest=layer)),
}


@pytest.mark.parametrize("context", [{}, {"mask": 2.0}], ids=["plain", "mask"])
@pytest.mark.parametrize("nest", NESTINGS.values(), ids=NESTINGS.keys())
def test_what_graftax_itself_does_in_tracing_is_linear_in_depth(nest, context):
    def calls(depth):
        leaf = masked if context else jnp.tanh
        model = functools.reduce(lambda layer, _: nest(layer), range(depth), gx.Chain(leaf=leaf))
        x = X if nest is not NESTINGS["fusion"] else (X,)
        return own_calls(lambda: jax.eval_shape(lambda x: model(x, **context), x))

    few, more, most = calls(4), calls(8), calls(16)
    assert most - more <= 2.02 * (more - few)
    assert most < 16 * 120


def test_a_chain_32_deep_takes_few_calls_of_graftax():
    deep = functools.reduce(lambda layer, _: chain(layer), range(32), gx.Chain(leaf=masked))
    assert own_calls(lambda: jax.eval_shape(lambda x: deep(x, mask=2.0), X)) < 1_500


# --- A wrapper of a user's own, as the docs have it ---


class Doubled(gx.Wrapper):
    """Twice what the layer gives."""

    def forward(self, call, *inputs):
        return 2 * call(self.layer, *inputs)


class Counter(eqx.Module):
    """Counts its calls, and adds how many there were before."""

    index: eqx.nn.StateIndex

    def __init__(self):
        self.index = eqx.nn.StateIndex(jnp.array(0.0))

    def __call__(self, x, state):
        count = state.get(self.index)
        return x + count, state.set(self.index, count + 1)


class Noise(eqx.Module):
    def __call__(self, x, *, key):
        return x + jax.random.normal(key, x.shape)


PLACES = {
    "alone": lambda layer: layer,
    "chain": lambda layer: gx.Chain(a=layer),
    "parallel": lambda layer: gx.Parallel(a=layer, op=lambda outputs: outputs[0]),
    "op": lambda layer: gx.Parallel(a=lambda x: x, op=gx.Chain(get=lambda xs: xs[0], a=layer)),
    "skip": lambda layer: gx.SkipConnection(a=layer, op=lambda pair: pair[0]),
    "shortcut": lambda layer: gx.SkipConnection(
        a=lambda x: x, shortcut=layer, op=lambda pair: pair[1]
    ),
    "fusion": lambda layer: gx.Chain(
        gx.PairwiseFusion(layer, op=lambda pair: pair[0]), lambda ys: ys[0]
    ),
    "repeat": lambda layer: gx.Repeat(layer, 1),
    "remat": gx.Remat,
    "cast": lambda layer: gx.Cast(layer, jnp.float32),
    "then": lambda layer: gx.Then(layer, behind=lambda x: x),
    "behind": lambda layer: gx.Then(lambda x: x, behind=layer),
    "residual": lambda layer: gx.Chain(gx.Residual(layer), lambda x: x - X),
    "vmap": lambda layer: gx.Chain(lambda x: x[None], gx.Vmap(layer), lambda ys: ys[0]),
    "Sequential": lambda layer: eqx.nn.Sequential([layer]),
    "inside Sequential inside": lambda layer: gx.Chain(a=eqx.nn.Sequential([gx.Chain(b=layer)])),
}


@pytest.mark.parametrize("around", PLACES.values(), ids=PLACES.keys())
def test_a_users_wrapper_hands_on_the_state_wherever_it_stands(around):
    model, state = eqx.nn.make_with_state(lambda: around(Doubled(Counter())))()
    y, state = model(X, state)
    assert jnp.array_equal(y, 2 * X)
    y, state = eqx.filter_jit(model)(X, state)
    assert jnp.array_equal(y, 2 * (X + 1))


@pytest.mark.parametrize("around", PLACES.values(), ids=PLACES.keys())
def test_a_users_wrapper_hands_on_keys_and_keywords_wherever_it_stands(around):
    key = jax.random.key(0)
    if around is not PLACES["Sequential"]:
        assert jnp.array_equal(around(Doubled(masked))(X, mask=3.0), 6 * X)
    noisy = around(Doubled(Noise()))
    y = noisy(X, key=key)
    assert not jnp.allclose(y, 2 * X)
    plain = around(Noise())(X, key=key)
    # The wrapper has no path, so it draws what the layer alone draws there.
    if around is not PLACES["residual"]:
        assert jnp.allclose(y, 2 * plain, atol=1e-5)


def test_a_users_wrapper_works_under_vmap_and_grad_and_on_a_layer_without_state_in_a_stateful_model():
    def build():
        return gx.Chain(
            scale=Doubled(eqx.nn.Linear(4, 4, key=jax.random.key(0))), count=Doubled(Counter())
        )

    model, state = eqx.nn.make_with_state(build)()
    xs = jnp.stack([X, 2 * X])
    ys, _ = jax.vmap(model, in_axes=(0, None), out_axes=(0, None))(xs, state)
    assert jnp.allclose(ys[1], 4 * (model.scale.layer(2 * X)), atol=1e-5)

    def loss(model):
        return model(X, state)[0].sum()

    gradient = eqx.filter_grad(loss)(model)
    assert jnp.allclose(gradient.scale.bias, 4.0)


def test_a_pure_call_threads_the_state_through_a_scan():
    class Often(gx.Wrapper):
        """The layer three times, as one program."""

        def forward(self, call, x):
            pure = call.pure()

            def step(carry, _):
                x, state = carry
                return pure(self.layer, (x,), state, None), None

            (y, call.state), _ = jax.lax.scan(step, (x, call.state), length=3)
            return y

    model, state = eqx.nn.make_with_state(lambda: gx.Chain(a=Often(Counter())))()
    y, state = model(X, state)
    assert jnp.array_equal(y, X + 0 + 1 + 2)
    assert float(state.get(model.a.layer.index)) == 3


def test_the_record_says_where_it_is():
    seen = []

    class Spy(gx.Wrapper):
        """Notes its path."""

        def forward(self, call, *inputs):
            seen.append((call.path, call.context))
            return call(self.layer, *inputs)

    model = gx.Chain(a=gx.Parallel(Spy(masked), op=gx.Chain(b=Spy(lambda ys: ys[0]))))
    model(X, mask=1.0)
    assert seen == [(("a", 0), {"mask": 1.0}), (("a", "op", "b"), {"mask": 1.0})]


# --- Keywords that plain functions declare ---


def test_settings_of_plain_functions_are_no_context():
    exact = functools.partial(jax.nn.gelu, approximate=False)
    model = gx.Chain(a=jax.nn.gelu, b=exact, c=lambda x, slope=2.0: slope * x, d=masked)
    for keyword in ("approximate", "slope"):
        with pytest.raises(
            TypeError, match=f"No layer of this Chain takes the keyword '{keyword}'"
        ):
            model(X, mask=1.0, **{keyword: True})


def test_a_plain_function_takes_what_it_cannot_do_without():
    def pooled(x, mask):
        return (x * mask).sum()

    assert float(gx.Chain(a=gx.Chain(pool=pooled))(X, mask=X)) == 30.0
    scaled = functools.partial(lambda scale, x, shift: scale * x + shift, 2.0)
    assert jnp.array_equal(gx.Chain(a=scaled)(X, shift=1.0), 2 * X + 1)
    with pytest.raises(TypeError, match="takes the keyword 'x'"):
        gx.Chain(a=scaled)(X, x=1.0, shift=1.0)
    bound = functools.partial(pooled, mask=2.0)
    with pytest.raises(TypeError, match="takes the keyword 'mask'"):
        gx.Chain(a=bound)(X, mask=1.0)


@pytest.mark.parametrize(
    "layer",
    [
        jnp.var,  # where=, mean=, correction=
        functools.partial(jnp.sum, keepdims=True),
        sorted,  # key=, reverse=
        max,
        jax.nn.softmax,
        functools.partial(masked, mask=2.0),
        eqx.Partial(masked, mask=2.0),
        jax.tree_util.Partial(masked, mask=2.0),
    ],
)
def test_functions_of_python_and_jax_and_bound_keywords_take_nothing_from_the_context(layer):
    model = gx.Chain(a=layer)
    for keyword in ("where", "correction", "reverse", "keepdims", "axis", "mask"):
        with pytest.raises(TypeError, match=keyword):
            model(X, **{keyword: None})


def test_a_random_key_is_no_sorting_key():
    assert gx.Chain(a=sorted)([3, 1, 2], key=jax.random.key(0)) == [1, 2, 3]
    assert gx.Chain(a=max)([3, 1, 2], key=jax.random.key(0)) == 3


def test_a_module_takes_what_its_call_names():
    class Layer(eqx.Module):
        def __call__(self, x, scale=1.0, *, shift=0.0):
            return scale * x + shift

    assert jnp.array_equal(gx.Chain(a=gx.Chain(b=Layer()))(X, scale=3.0, shift=1.0), 3 * X + 1)


# --- Two layers of one marker ---


def two_models(inference=False):
    def build():
        norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
        return gx.Chain(norm=eqx.nn.inference_mode(norm, inference))

    return eqx.nn.make_with_state(build)(), eqx.nn.make_with_state(build)()


@pytest.mark.parametrize("jitted", [False, True])
def test_two_separated_models_in_one_container_do_not_share_a_state(jitted):
    (a, state), (b, _) = two_models(inference=True)
    joined = gx.Chain(one=a, two=b)
    run = eqx.filter_jit(joined) if jitted else joined
    with pytest.raises(ValueError, match=r"'one\.norm\.b.*' and 'two\.norm\.b.*' have one"):
        run(X, state)


def test_a_layer_that_stands_twice_before_the_state_is_separated_gets_two_states():
    norm = Counter()
    model, state = eqx.nn.make_with_state(lambda: gx.Chain(a=norm, b=norm))()
    y, state = model(X, state)
    assert jnp.array_equal(y, X)
    y, state = model(X, state)
    assert jnp.array_equal(y, X + 2)


@pytest.mark.parametrize("wrap", [lambda m: m, gx.Remat, lambda m: gx.Cast(m, jnp.float32)])
def test_a_layer_that_is_run_again_is_not_two_layers(wrap):
    model, state = eqx.nn.make_with_state(lambda: wrap(gx.Repeat(wrap(Counter()), 3)))()
    y, _ = model(X, state)
    assert jnp.array_equal(y, X + 0 + 1 + 2)


# --- The state that a model holds ---


def norms(seed):
    """A model in inference mode that holds its statistics, and the same separated from them."""

    def build():
        norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="ema", inference=True)
        model = gx.Chain(lin=eqx.nn.Linear(4, 4, key=jax.random.key(seed)), norm=norm)
        mean = jax.random.normal(jax.random.key(seed + 1), (4,))
        return gx.select(model, "norm.ema_state_index.init").set((mean, jnp.exp(mean)))

    return build(), eqx.nn.make_with_state(build)()


WRAPS = {
    "none": lambda layer: layer,
    "remat": gx.Remat,
    "cast": lambda layer: gx.Cast(layer, jnp.float32),
    "sequential": lambda layer: eqx.nn.Sequential([layer]),
    "chain": lambda layer: gx.Chain(inner=layer),
    "skip": lambda layer: gx.SkipConnection(inner=layer),
    "parallel": lambda layer: gx.Parallel(a=layer, b=jnp.tanh, op=sum),
    "repeat": lambda layer: gx.Repeat(layer, 2),
}


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("wrap", WRAPS)
def test_in_inference_mode_a_model_that_holds_its_statistics_needs_no_state(wrap, jitted):
    held, (model, state) = norms(0)
    held, model = (gx.select(m, "norm").apply(WRAPS[wrap]) for m in (held, model))
    expected, _ = model(X, state)
    run = eqx.filter_jit(held) if jitted else held
    assert jnp.allclose(run(X), expected, atol=1e-6)
    batch = jnp.stack([X, 2 * X])
    both, _ = jax.vmap(model, in_axes=(0, None), out_axes=(0, None))(batch, state)
    assert jnp.allclose(jax.vmap(run)(batch), both, atol=1e-6)


def test_two_models_that_hold_their_statistics_use_each_its_own():
    (_, (a, state_a)), (_, (b, state_b)) = norms(0), norms(2)
    joined = gx.Chain(one=gx.with_state(a, state_a), two=gx.with_state(b, state_b))
    h, _ = a(X, state_a)
    assert jnp.allclose(joined(X), b(h, state_b)[0], atol=1e-6)
    separated, state = eqx.nn.make_with_state(lambda: joined)()
    assert jnp.allclose(separated(X, state)[0], joined(X), atol=1e-6)
    # With a state it would be one for both: that is refused, however they were joined.
    for model in (
        joined,
        gx.Chain(one=a, two=gx.Remat(b)),
        eqx.tree_at(lambda m: m.one, joined, a),
    ):
        for run in (model, eqx.filter_jit(model), eqx.filter_jit(gx.Parallel(x=model))):
            with pytest.raises(ValueError, match="and would share their state"):
                run(X, state_a)


def test_statistics_held_get_no_gradient_and_are_not_changed_in_training():
    held, _ = norms(0)
    grads = eqx.filter_grad(lambda model: jnp.sum(model(X) ** 2))(held)
    assert bool(jnp.any(grads.lin.weight != 0)) and bool(jnp.any(grads.norm.weight != 0))
    assert not any(jnp.any(leaf != 0) for leaf in grads.norm.ema_state_index.init)
    training = eqx.nn.inference_mode(held, value=False)
    for call in (lambda: training(X), lambda: held(X, inference=False)):
        with pytest.raises(
            TypeError, match=r"^BatchNorm keeps a state: call the model as model\(x, state"
        ):
            call()
    assert jnp.allclose(training(X, inference=True), held(X))
