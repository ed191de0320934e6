"""Positions as rotations of queries and keys."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class RotaryEmbedding(eqx.Module):
    """Positions as rotations: pairs of features `(i, i + size / 2)` turn by `position * frequency[i]`.

    Source: Su et al., RoFormer, arXiv:2104.09864, in the half-and-half order of Llama's checkpoints.
    """

    theta: float = eqx.field(static=True)
    scaling: float | tuple | None = eqx.field(static=True)

    def __init__(self, theta: float = 10_000.0, scaling: float | tuple | None = None):
        """**Arguments:**

        - `theta`: the base of the frequencies `theta ** (-2 i / size)`.
        - `scaling`: a number that divides all frequencies (Chen et al., arXiv:2306.15595), or Llama
            3's `(factor, low_freq_factor, high_freq_factor, original length)`.
        """
        self.theta, self.scaling = theta, scaling

    def frequencies(self, size: int) -> Float[Array, " half"]:
        """The angle by which each pair turns from one position to the next, in radians."""
        frequencies = self.theta ** (-jnp.arange(0, size, 2) / size)
        if not isinstance(self.scaling, tuple):
            return frequencies if self.scaling is None else frequencies / self.scaling
        factor, low, high, length = self.scaling
        wavelength = 2 * jnp.pi / frequencies
        blend = jnp.clip((length / wavelength - low) / (high - low), 0, 1)
        return frequencies * (blend + (1 - blend) / factor)

    def __call__(
        self, x: Float[Array, "t heads size"], positions: Int[Array, " t"] | None = None
    ) -> Float[Array, "t heads size"]:
        """**Arguments:**

        - `x`: queries or keys.
        - `positions`: the position of each token; 0, 1, ... if None.
        """
        positions = jnp.arange(x.shape[0]) if positions is None else positions
        angles = (positions[:, None] * self.frequencies(x.shape[-1])[None, :])[:, None, :]
        cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
        first, second = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
