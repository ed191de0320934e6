"""Rotations: what each kind does to the frequencies, and that positions count by their distance alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_zoo import close
from graftax.zoo import DynamicRotary, LongRotary, RotaryEmbedding, YarnRotary

SHORT, LONG = (1.0, 1.5, 2.0), (2.0, 4.0, 8.0)
KINDS = [
    RotaryEmbedding(theta=50.0),
    RotaryEmbedding(scaling=4.0),
    RotaryEmbedding(scaling=(8.0, 1.0, 4.0, 32)),
    DynamicRotary(factor=4.0, length=8),
    YarnRotary(factor=4.0, length=32),
    LongRotary(short=SHORT, long=LONG, length=8, attention_factor=1.5),
]


@pytest.mark.parametrize("rotary", KINDS)
def test_the_first_position_turns_nothing(rotary):
    x = jax.random.normal(jax.random.key(0), (1, 2, 6))
    close(rotary(x), rotary.magnitude() * x, 1e-7)


@pytest.mark.parametrize("rotary", KINDS)
def test_scores_depend_on_distances_alone(rotary):
    query, key = jax.random.normal(jax.random.key(0), (2, 5, 1, 6))

    def scores(first):
        # One more position, so that all are as long.
        positions = jnp.append(first + jnp.arange(5), 20)
        turned = [rotary(jnp.concatenate([x, x[:1]]), positions)[:5] for x in (query, key)]
        return jnp.einsum("qhi,khi->qk", *turned)

    close(scores(7), scores(0))


@pytest.mark.parametrize("rotary", KINDS)
def test_of_no_tokens_none_are_turned(rotary):
    assert rotary(jnp.zeros((0, 2, 6))).shape == (0, 2, 6)


@pytest.mark.parametrize("rotary", KINDS)
def test_the_dtype_stays(rotary):
    assert rotary(jnp.ones((3, 1, 6), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("rotary", KINDS)
def test_what_is_saved_turns_as_before(rotary, tmp_path):
    attend = gx.zoo.DotProductAttention(2, rotary=rotary)
    gx.save(tmp_path / "model", gx.Chain(attend=attend))
    loaded = gx.load(tmp_path / "model")
    assert repr(loaded.attend) == repr(attend)
    x = jax.random.normal(jax.random.key(0), (12, 2, 6))
    assert (loaded.attend.rotary(x) == rotary(x)).all()


def test_a_feature_and_its_partner_turn_by_the_position_times_their_frequency():
    x = np.asarray(jax.random.normal(jax.random.key(1), (4, 3, 6)))
    found = RotaryEmbedding(theta=100.0)(jnp.asarray(x))
    for i in range(3):
        turn = np.exp(1j * np.arange(4) * 100.0 ** (-2 * i / 6))
        pair = (x[..., i] + 1j * x[..., i + 3]) * turn[:, None]
        close(found[..., i], pair.real)
        close(found[..., i + 3], pair.imag)


def test_linear_scaling_is_positions_divided():
    x = jax.random.normal(jax.random.key(2), (3, 1, 8))
    positions = jnp.array([0, 5, 9])
    scaled = RotaryEmbedding(scaling=4.0)(x, 4 * positions)
    close(scaled, RotaryEmbedding()(x, positions))


def test_llama_3_scaling_divides_the_low_frequencies_and_keeps_the_high_ones():
    plain = np.asarray(RotaryEmbedding().frequencies(16))
    scaled = np.asarray(RotaryEmbedding(scaling=(8.0, 1.0, 4.0, 32)).frequencies(16))
    turns = 32 * plain / (2 * np.pi)
    kept, divided = turns > 4, turns < 1
    assert kept.any()
    assert divided.any()
    assert (~kept & ~divided).any()
    close(scaled[kept], plain[kept], 0)
    close(scaled[divided], plain[divided] / 8, 1e-9)
    between = ~kept & ~divided
    assert (scaled[between] < plain[between]).all()
    assert (scaled[between] > plain[between] / 8).all()


def base(rotary, size, length):
    """The base that the frequencies of a sequence have."""
    return float(rotary.frequencies(size, length)[1] ** (-size / 2))


@pytest.mark.parametrize("length", [1, 7, 8])
def test_dynamic_rotations_are_the_plain_ones_up_to_the_length_of_training(length):
    rotary = DynamicRotary(100.0, factor=4.0, length=8)
    close(rotary.frequencies(6, length), RotaryEmbedding(100.0).frequencies(6), 1e-7)


def test_the_base_of_dynamic_rotations_grows_with_the_sequence():
    rotary = DynamicRotary(100.0, factor=4.0, length=8)
    # At twice the length, 4 * 2 - 3 = 5 times as much, to the power of 6 / 4.
    close(base(rotary, 6, 16), 100 * 5**1.5, 1e-4)
    x = jax.random.normal(jax.random.key(0), (16, 1, 6))
    close(rotary(x), RotaryEmbedding(100 * 5**1.5)(x))
    jitted = jax.jit(lambda x, positions: rotary(x, positions))
    close(
        jitted(x[:2], jnp.array([3, 15])), RotaryEmbedding(100 * 5**1.5)(x[:2], jnp.array([3, 15]))
    )


def test_yarn_keeps_fast_pairs_divides_slow_ones_and_blends_between():
    plain = np.asarray(RotaryEmbedding(1000.0).frequencies(32))
    rotary = YarnRotary(1000.0, factor=8.0, length=64, fast=4.0, slow=0.5, whole=False)
    ratio = np.asarray(rotary.frequencies(32)) / plain
    turns = 64 * plain / (2 * np.pi)
    # The blend is linear in the number of the pair, between those that turn 4 and 0.5 times.
    first, last = (32 * np.log(64 / (n * 2 * np.pi)) / (2 * np.log(1000)) for n in (4, 0.5))
    kept = 1 - np.clip((np.arange(16) - first) / (last - first), 0, 1)
    close(ratio, kept + (1 - kept) / 8)
    assert (ratio[turns > 4] == 1).all()
    close(ratio[turns < 0.5], np.full((turns < 0.5).sum(), 1 / 8))
    assert ((ratio < 1) & (ratio > 0.126)).any()


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 1.0), (8.0, 1 + 0.1 * np.log(8))])
def test_yarn_makes_queries_and_keys_larger_by_its_factor(factor, expected):
    assert YarnRotary(factor=factor, length=64).magnitude() == pytest.approx(expected)
    assert YarnRotary(factor=factor, length=64, attention_factor=1.25).magnitude() == 1.25


@pytest.mark.parametrize(("length", "factors"), [(8, SHORT), (9, LONG)])
def test_long_rotations_have_other_factors_beyond_the_length_of_training(length, factors):
    rotary = LongRotary(short=SHORT, long=LONG, length=8)
    x = jax.random.normal(jax.random.key(0), (length, 1, 6))
    close(rotary.frequencies(6, length), RotaryEmbedding().frequencies(6) / np.array(factors), 1e-7)
    angles = np.arange(length)[:, None] * np.asarray(RotaryEmbedding().frequencies(6)) / factors
    turned = (np.asarray(x[:, 0, :3]) + 1j * np.asarray(x[:, 0, 3:])) * np.exp(1j * angles)
    close(rotary(x)[:, 0, :3], turned.real)
    close(rotary(x)[:, 0, 3:], turned.imag)


def test_factors_for_another_size_of_head_are_refused():
    rotary = LongRotary(short=SHORT, long=LONG, length=8)
    with pytest.raises(ValueError, match="of 8 features has 4 pairs; there are 3 factors"):
        rotary(jnp.ones((2, 1, 8)))
