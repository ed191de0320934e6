"""Positions as rotations of queries and keys, and the ways to stretch them to longer sequences."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Length = Int[Array, ""] | int
"""How long a sequence is: 1 + its largest position."""


class RotaryEmbedding(eqx.Module):
    """Positions as rotations: pairs of features `(i, i + size / 2)` turn by `position * frequency[i]`.

    A subclass has other frequencies, which may depend on the length of the sequence.

    Source: Su et al., RoFormer, arXiv:2104.09864, in the half-and-half order of Llama's checkpoints.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> queries = jnp.ones((5, 2, 8))
    >>> turned = gx.zoo.RotaryEmbedding()(queries)
    >>> bool((turned[0] == queries[0]).all())
    True

    ```
    """

    theta: float = eqx.field(static=True)
    scaling: float | tuple[Any, ...] | None = eqx.field(static=True)

    def __init__(self, theta: float = 10_000.0, scaling: float | tuple[Any, ...] | None = None):
        """**Arguments:**

        - `theta`: the base of the frequencies `theta ** (-2 i / size)`.
        - `scaling`: a number that divides all frequencies (Chen et al., arXiv:2306.15595), or Llama
            3's `(factor, low_freq_factor, high_freq_factor, original length)`.
        """
        self.theta, self.scaling = theta, scaling

    def frequencies(self, size: int, length: Length = 0) -> Float[Array, " half"]:
        """The angle by which each pair turns from one position to the next, in radians.

        **Arguments:**

        - `size`: of a head; the number of features.
        - `length`: of the sequence.
        """
        frequencies = _frequencies(self.theta, size)
        if not isinstance(self.scaling, tuple):
            return frequencies if self.scaling is None else frequencies / self.scaling
        factor, low, high, original = self.scaling
        wavelength = 2 * jnp.pi / frequencies
        blend = jnp.clip((original / wavelength - low) / (high - low), 0, 1)
        return frequencies * (blend + (1 - blend) / factor)

    def magnitude(self) -> float:
        """What turned queries and keys are multiplied with."""
        return 1.0

    def __call__(
        self, x: Float[Array, "t heads size"], positions: Int[Array, " t"] | None = None
    ) -> Float[Array, "t heads size"]:
        """**Arguments:**

        - `x`: queries or keys.
        - `positions`: the position of each token; 0, 1, ... if None.
        """
        positions = jnp.arange(x.shape[0]) if positions is None else positions
        # Of no tokens at all, the length is 0.
        frequencies = self.frequencies(x.shape[-1], 1 + jnp.max(positions, initial=-1))
        angles = (positions[:, None] * frequencies[None, :])[:, None, :]
        cos, sin = (
            (self.magnitude() * turn(angles)).astype(x.dtype) for turn in (jnp.cos, jnp.sin)
        )
        first, second = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class DynamicRotary(RotaryEmbedding):
    """Rotations that slow down as the sequence grows beyond the length of training.

    The base of a sequence of length `t` is `theta * (factor * t / length - factor + 1) ** (size / (size
    - 2))`, and `theta` up to `length`. Each sequence by its own length, where PyTorch's goes by the
    longest of a batch.

    Source: bloc97 and emozilla, dynamically scaled RoPE, 2023, as `transformers` has it.
    """

    factor: float = eqx.field(static=True)
    length: int = eqx.field(static=True)

    def __init__(self, theta: float = 10_000.0, *, factor: float, length: int):
        """**Arguments:**

        - `theta`: the base of the frequencies.
        - `factor`: how much the base grows with the length.
        - `length`: the number of positions in training.
        """
        super().__init__(theta)
        self.factor, self.length = factor, length

    def frequencies(self, size: int, length: Length = 0) -> Float[Array, " half"]:
        """As of `RotaryEmbedding`, for a sequence of this length."""
        stretch = self.factor * jnp.maximum(length, self.length) / self.length - (self.factor - 1)
        return _frequencies(self.theta * stretch ** (size / (size - 2)), size)


class YarnRotary(RotaryEmbedding):
    """Rotations of which the slow ones are slowed down further, and the fast ones stay.

    Source: Peng et al., YaRN, arXiv:2309.00071.
    """

    factor: float = eqx.field(static=True)
    length: int = eqx.field(static=True)
    fast: float = eqx.field(static=True)
    slow: float = eqx.field(static=True)
    whole: bool = eqx.field(static=True)
    attention_factor: float = eqx.field(static=True)

    def __init__(
        self,
        theta: float = 10_000.0,
        *,
        factor: float,
        length: int,
        fast: float = 32.0,
        slow: float = 1.0,
        whole: bool = True,
        attention_factor: float | None = None,
    ):
        """**Arguments:**

        - `theta`: the base of the frequencies.
        - `factor`: what the slow frequencies are divided by.
        - `length`: the number of positions in training.
        - `fast`, `slow`: how often a pair turns in `length` positions that stays as it is, and one that
            is divided by the whole factor.
        - `whole`: whether the pairs where the blend begins and ends are rounded to whole ones.
        - `attention_factor`: what queries and keys are multiplied with; `1 + ln(factor) / 10` if None.
        """
        super().__init__(theta)
        self.factor, self.length, self.fast, self.slow = factor, length, fast, slow
        self.whole = whole
        if attention_factor is None:
            attention_factor = yarn_magnitude(factor)
        self.attention_factor = attention_factor

    def frequencies(self, size: int, length: Length = 0) -> Float[Array, " half"]:
        """As of `RotaryEmbedding`; the length does not matter."""
        low, high = (self._pair(turns, size) for turns in (self.fast, self.slow))
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        # Where they are the same pair, the blend is a step.
        width = high - low if high != low else 0.001
        kept = 1 - jnp.clip((jnp.arange(size // 2) - low) / width, 0, 1)
        frequencies = _frequencies(self.theta, size)
        return frequencies * (kept + (1 - kept) / self.factor)

    def _pair(self, turns: float, size: int) -> float:
        """The pair that turns so often in the length of training, as a fraction."""
        return size * math.log(self.length / (turns * 2 * math.pi)) / (2 * math.log(self.theta))

    def magnitude(self) -> float:
        """As of `RotaryEmbedding`."""
        return self.attention_factor


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    """By how much YaRN makes queries and keys larger for sequences `factor` times as long."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


class LongRotary(RotaryEmbedding):
    """Rotations slowed down pair by pair, in one way for short sequences and in another for long ones.

    Each sequence by its own length, where PyTorch's goes by the longest of a batch.

    Source: Ding et al., LongRoPE, arXiv:2402.13753.
    """

    short: tuple[float, ...] = eqx.field(static=True)
    long: tuple[float, ...] = eqx.field(static=True)
    length: int = eqx.field(static=True)
    attention_factor: float = eqx.field(static=True)

    def __init__(
        self,
        theta: float = 10_000.0,
        *,
        short: tuple[float, ...],
        long: tuple[float, ...],
        length: int,
        attention_factor: float = 1.0,
    ):
        """**Arguments:**

        - `theta`: the base of the frequencies.
        - `short`, `long`: what the frequency of each pair is divided by, in sequences of up to `length`
            and in longer ones.
        - `length`: the number of positions in training.
        - `attention_factor`: what queries and keys are multiplied with.
        """
        super().__init__(theta)
        self.short, self.long, self.length = tuple(short), tuple(long), length
        self.attention_factor = attention_factor

    def frequencies(self, size: int, length: Length = 0) -> Float[Array, " half"]:
        """As of `RotaryEmbedding`, for a sequence of this length."""
        if not len(self.short) == len(self.long) == size // 2:
            raise ValueError(
                f"A head of {size} features has {size // 2} pairs; there are {len(self.short)} factors for "
                f"short sequences and {len(self.long)} for long ones."
            )
        factors = jnp.where(
            jnp.asarray(length) > self.length, jnp.asarray(self.long), jnp.asarray(self.short)
        )
        return _frequencies(self.theta, size) / factors

    def magnitude(self) -> float:
        """As of `RotaryEmbedding`."""
        return self.attention_factor


def _frequencies(theta: float | Float[Array, ""], size: int) -> Float[Array, " half"]:
    return theta ** (-jnp.arange(0, size, 2) / size)
