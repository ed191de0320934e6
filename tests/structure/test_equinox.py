"""Equinox and optax work on containers as on any module."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import graftax as gx
from common_containers import Bottleneck, by_hand, linear, model, same_arrays

# --- Equinox ---


def test_tree_at_reaches_by_label():
    m = model()
    zeros = jnp.zeros_like(m.stem.weight)
    edited = eqx.tree_at(lambda m: m.stem.weight, m, zeros)
    assert edited.stem.weight is zeros and edited.stem.bias is m.stem.bias
    assert m.stem.weight is not zeros and edited.block.up is not None
    assert jax.tree.structure(edited) == jax.tree.structure(m)
    by_label = eqx.tree_at(lambda m: m["stem"].weight, m, zeros)
    by_position = eqx.tree_at(lambda m: m[0].weight, m, zeros)
    assert same_arrays(by_label, edited) and same_arrays(by_position, edited)


def test_tree_at_reaches_into_wrappers_op_and_shortcut_and_replaces_whole_layers():
    m = model()
    where = lambda m: (m.block.down.bias, m.block.shortcut.bias, m.heads.op.last.bias)
    edited = eqx.tree_at(where, m, replace_fn=jnp.zeros_like)
    assert all((bias == 0).all() for bias in where(edited))
    assert same_arrays(eqx.tree_at(where, edited, where(m)), m)
    swapped = eqx.tree_at(lambda m: (m.act, m.block), m, (jnp.tanh, linear(4, 4)))
    assert swapped.labels == m.labels and swapped.act is jnp.tanh
    assert isinstance(swapped.block, eqx.nn.Linear)
    part = eqx.tree_at(lambda m: tuple(m[:2]), m, (linear(3, 4, 9), jnp.sin))
    assert part.act is jnp.sin


def test_partition_and_combine_are_inverse():
    m = model()
    for spec in (eqx.is_array, eqx.is_inexact_array, lambda leaf: False, callable):
        selected, rest = eqx.partition(m, spec)
        assert type(selected) is type(rest) is gx.Chain and selected.labels == m.labels
        assert same_arrays(eqx.combine(selected, rest), m)
    x = jnp.arange(3.0)
    arrays, rest = eqx.partition(m, eqx.is_array)
    y = jax.jit(lambda arrays, x: eqx.combine(arrays, rest)(x))(arrays, x)
    np.testing.assert_allclose(y, m(x), rtol=1e-5)


def test_gradients_have_the_labels_of_the_model_and_the_values_of_the_hand_written_one():
    m, x = model(), jnp.linspace(-1, 1, 3)
    written = by_hand(m)
    loss = lambda model: (model(x) ** 2).sum()
    value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss))(m)
    expected, reference = eqx.filter_jit(eqx.filter_value_and_grad(loss))(written)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert type(gradient) is gx.Chain and gradient.labels == m.labels and gradient.act is None
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        by_hand(gradient),
        reference,
    )
    assert all(jnp.abs(leaf).sum() > 0 for leaf in jax.tree.leaves(gradient))


def test_gradients_of_a_part_are_those_of_the_whole():
    m, x = model(), jnp.ones(3)
    spec = jax.tree.map(lambda _: False, m)
    spec = eqx.tree_at(lambda s: s.heads.op.last.bias, spec, True)
    part, rest = eqx.partition(m, spec)
    gradient = eqx.filter_grad(lambda part: eqx.combine(part, rest)(x).sum())(part)
    assert gradient.heads.op.last.bias.tolist() == [1, 1]
    assert len(jax.tree.leaves(gradient)) == 1


def test_inference_mode_reaches_every_dropout():
    drop = eqx.nn.Dropout(0.5)
    m = gx.Chain(
        drop=drop,
        wrapped=gx.Vmap(gx.Remat(drop)),
        cast=gx.Cast(gx.Chain(inner=drop), jnp.bfloat16),
        block=Bottleneck(drop=drop, shortcut=gx.Chain(drop)),
        heads=gx.Parallel(a=drop, b=gx.Repeat(drop=drop, times=2), op=gx.Chain(sum, gx.Vmap(drop))),
        foreign=eqx.nn.Sequential([drop, gx.Chain(drop)]),
    )
    flags = lambda m: [dropout.inference for dropout in gx.select(m, eqx.nn.Dropout)]
    assert flags(m) == [False] * 10
    silent = eqx.nn.inference_mode(m)
    assert flags(silent) == [True] * 10
    assert jax.tree.structure(silent) == jax.tree.structure(m) and silent.labels == m.labels
    assert same_arrays(eqx.nn.inference_mode(silent, value=False), m)
    assert eqx.nn.inference_mode(gx.Vmap(gx.Remat(drop))).layer.layer.inference
    x, key = jnp.ones((2, 8)), jax.random.key(0)
    assert (silent[:2](x) == x).all() and (silent[:2](x, key=key) == x).all()
    assert not (m[:2](x, key=key) == x).all()
    with pytest.raises(RuntimeError, match="Dropout requires a key"):
        m(x)


class WrittenNorm(eqx.Module):
    """A residual block with BatchNorm, written by hand."""

    up: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __call__(self, x, state):
        y, state = self.norm(self.up(x), state)
        return self.head(jax.nn.relu(y) + x), state


def test_make_with_state_gives_a_model_and_the_state_of_the_hand_written_one():
    up, head = linear(3, 3), linear(3, 2, 1)
    norm = lambda: eqx.nn.BatchNorm(3, "batch", mode="batch")

    def make():
        return gx.Chain(block=gx.SkipConnection(up=up, norm=norm(), act=jax.nn.relu), head=head)

    m, state = eqx.nn.make_with_state(make)()
    written, written_state = eqx.nn.make_with_state(lambda: WrittenNorm(up, norm(), head))()
    xs = jax.random.normal(jax.random.key(0), (8, 3))

    @eqx.filter_jit
    def run(model, state):
        return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(xs, state)

    for _ in range(2):
        ys, state = run(m, state)
        expected, written_state = run(written, written_state)
        np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)
    ours = state.substate(m.block.norm).get(m.block.norm.batch_state_index)
    theirs = written_state.get(written.norm.batch_state_index)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-7)

    silent, written_silent = eqx.nn.inference_mode(m), eqx.nn.inference_mode(written)
    assert silent.block.norm.inference
    y, after = silent(xs[0], state)
    np.testing.assert_allclose(y, written_silent(xs[0], written_state)[0], rtol=1e-5, atol=1e-6)
    assert same_arrays(after, state)


def test_tree_serialise_leaves_round_trip(tmp_path):
    m, other = model(0), model(50)
    assert not same_arrays(m, other)
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", m)
    assert same_arrays(eqx.tree_deserialise_leaves(tmp_path / "model.eqx", other), m)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, (m[:2], {"half": model(dtype=jnp.bfloat16)}))
    file.seek(0)
    like = (other[:2], {"half": model(9, dtype=jnp.bfloat16)})
    assert same_arrays(eqx.tree_deserialise_leaves(file, like)[0], m[:2])


def test_tree_serialise_leaves_keeps_the_state():
    make = lambda seed: eqx.nn.make_with_state(gx.Chain)(
        linear=linear(3, 3, seed), norm=eqx.nn.BatchNorm(3, "batch", mode="ema")
    )
    (m, state), like = make(0), make(1)
    xs = jax.random.normal(jax.random.key(0), (8, 3))
    run = jax.vmap(m, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    _, state = run(xs, state)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, (m, state))
    file.seek(0)
    read, read_state = eqx.tree_deserialise_leaves(file, like)
    assert same_arrays(read, m) and same_arrays(read_state, state)
    silent = eqx.nn.inference_mode
    assert (silent(read)(xs[0], read_state)[0] == silent(m)(xs[0], state)[0]).all()


def test_a_wrong_file_is_refused_as_for_any_module():
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, gx.Chain(a=linear(2, 3)))
    file.seek(0)
    with pytest.raises(RuntimeError, match="shape"):
        eqx.tree_deserialise_leaves(file, gx.Chain(a=linear(3, 3)))


def test_filter_eval_shape_and_filter_jit_take_and_return_containers():
    shapes = eqx.filter_eval_shape(model)
    assert shapes.labels == model().labels and shapes.stem.weight.shape == (4, 3)
    built = eqx.filter_jit(lambda: model())()
    assert type(built) is gx.Chain and built.act is jax.nn.gelu
    np.testing.assert_allclose(built.stem.weight, model().stem.weight, rtol=1e-6)
    assert eqx.filter_eval_shape(model(), jnp.ones(3)).shape == (2,)


# --- optax ---


def test_adam_trains_a_container_as_it_trains_the_hand_written_module():
    xs = jax.random.normal(jax.random.key(0), (16, 3))
    ys = jnp.stack([xs.sum(1), xs[:, 0] - xs[:, 1]], axis=1)
    optimiser = optax.adam(1e-2)

    @eqx.filter_jit
    def train(model, state):
        def step(carry, _):
            arrays, state = carry
            loss = lambda m: ((jax.vmap(eqx.combine(m, rest))(xs) - ys) ** 2).mean()
            value, gradient = jax.value_and_grad(loss)(arrays)
            updates, state = optimiser.update(gradient, state, arrays)
            return (optax.apply_updates(arrays, updates), state), value

        arrays, rest = eqx.partition(model, eqx.is_inexact_array)
        (arrays, state), losses = jax.lax.scan(step, (arrays, state), None, length=20)
        return eqx.combine(arrays, rest), state, losses

    m = model()
    init = lambda model: optimiser.init(eqx.filter(model, eqx.is_inexact_array))
    assert init(m)[0].mu.block.shortcut.weight.shape == (4, 4) and init(m)[0].mu.act is None
    trained, state, losses = train(m, init(m))
    written, _, expected = train(by_hand(m), init(by_hand(m)))
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert losses[-1] < 0.7 * losses[0] and type(state[0].nu) is gx.Chain
    assert trained.act is jax.nn.gelu and jax.tree.structure(trained) == jax.tree.structure(m)
    np.testing.assert_allclose(trained.block.up.weight, written.up.weight, rtol=1e-2, atol=1e-3)


def test_an_update_step_outside_jit_keeps_the_container():
    m, x = gx.Chain(a=linear(2, 2), act=jnp.tanh), jnp.ones(2)
    optimiser = optax.sgd(0.1)
    state = optimiser.init(eqx.filter(m, eqx.is_inexact_array))
    gradient = eqx.filter_grad(lambda m: m(x).sum())(m)
    updates, state = optimiser.update(gradient, state, m)
    trained = eqx.apply_updates(m, updates)
    expected = m.a.weight - 0.1 * gradient.a.weight
    np.testing.assert_allclose(trained.a.weight, expected, rtol=1e-6)
    assert trained.act is jnp.tanh and type(trained) is gx.Chain


def test_a_mask_of_labels_freezes_what_it_should():
    m, x = gx.Chain(a=linear(2, 2), b=linear(2, 2, 1)), jnp.ones(2)
    labels = eqx.tree_at(
        lambda t: (t.a.weight, t.a.bias, t.b.weight, t.b.bias), m, ("frozen",) * 2 + ("train",) * 2
    )
    optimiser = optax.partition(
        {"frozen": optax.set_to_zero(), "train": optax.sgd(1.0)}, lambda _: labels
    )
    gradient = jax.grad(lambda m: m(x).sum())(m)
    updates, _ = optimiser.update(gradient, optimiser.init(m), m)
    trained = optax.apply_updates(m, updates)
    assert same_arrays(trained.a, m.a) and not same_arrays(trained.b, m.b)
