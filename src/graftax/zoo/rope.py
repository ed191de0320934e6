"""Rotary positions as configurations describe them, in the words of old and new `transformers`."""

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from .config import Config
from .keys import FACTOR, FLAG, NUMBER, SIZE, Key, numbers, one_of
from .rotary import DynamicRotary, LongRotary, RotaryEmbedding, YarnRotary, yarn_magnitude


class _Rope(NamedTuple):
    """What rotary positions are made from."""

    values: Config
    """The part of a configuration that is about them."""
    theta: float
    head_size: int
    positions: int
    """How many positions the model has."""
    original: int
    """How many of them there were in training."""

    def number(self, name: str, default: float | None = None) -> float | None:
        """A number above 0 that may be left out."""
        return self.values.value(Key(name, FACTOR, default))


def rotary(config: Config, head_size: int) -> RotaryEmbedding:
    """What turns queries and keys.

    **Arguments:**

    - `config`: the configuration.
    - `head_size`: the number of features of a head.

    **Raises:**

    - `ConfigError`: a kind that is not supported, or one whose values cannot be followed.
    """
    config.value(_PARTIAL)
    theta = config.value(_THETA)
    positions = config.value(Key("max_position_embeddings", SIZE, 2048))
    # The newer name first; the base moved into it.
    parts = [config.part(key) for key in ("rope_parameters", "rope_scaling")]
    values = next((part for part in parts if part), None)
    if values is None:
        return RotaryEmbedding(theta)
    values.value(_PARTIAL)
    # As `transformers` does, the one of the whole model before the one among the rotary values.
    outer, inner = config.value(_ORIGINAL), values.value(_ORIGINAL)
    original = outer or inner or positions
    theta = values.value(_THETA._replace(default=theta))
    return _KINDS[_kind(values)](_Rope(values, theta, head_size, positions, original))


_THETA = Key("rope_theta", FACTOR, 10_000.0)
_PARTIAL = Key("partial_rotary_factor", one_of(1.0), 1.0)
_ORIGINAL = Key("original_max_position_embeddings", SIZE, None)


def _kind(values: Config) -> str:
    """The kind of rotary positions, under its old name or the new one."""
    old, new = (values.value(Key(name, one_of(*_KINDS), None)) for name in ("type", "rope_type"))
    if old and new and old != new:
        raise values.error("rope_type", f", but type={old!r}: they say the same where both stand.")
    return new or old or "default"


def _linear(rope: _Rope) -> RotaryEmbedding:
    return RotaryEmbedding(rope.theta, rope.values.value(Key("factor", FACTOR)))


def _dynamic(rope: _Rope) -> RotaryEmbedding:
    if rope.head_size < 4:
        raise rope.values.error("rope_type", f"; heads of {rope.head_size} features are too small.")
    factor = rope.values.value(Key("factor", FACTOR))
    return DynamicRotary(rope.theta, factor=factor, length=rope.positions)


def _llama3(rope: _Rope) -> RotaryEmbedding:
    names = ("factor", "low_freq_factor", "high_freq_factor")
    factor, low, high = (rope.values.value(Key(name, FACTOR)) for name in names)
    if low >= high:
        raise rope.values.error("high_freq_factor", f"; it should be above low_freq_factor={low}.")
    return RotaryEmbedding(rope.theta, (factor, low, high, rope.original))


def _yarn(rope: _Rope) -> RotaryEmbedding:
    if rope.theta <= 1:
        raise rope.values.error("rope_type", f"; with rope_theta={rope.theta} no pair is slow.")
    factor = rope.number("factor") or rope.positions / rope.original
    scale, all_scales = (
        rope.values.value(Key(name, NUMBER, None)) for name in ("mscale", "mscale_all_dim")
    )
    attention = rope.number("attention_factor")
    if attention is None and scale and all_scales:
        below = yarn_magnitude(factor, all_scales)
        if below == 0:
            raise rope.values.error("mscale_all_dim", "; it makes queries and keys infinite.")
        attention = yarn_magnitude(factor, scale) / below
    return YarnRotary(
        rope.theta,
        factor=factor,
        length=rope.original,
        fast=rope.values.value(Key("beta_fast", FACTOR, 32.0)),
        slow=rope.values.value(Key("beta_slow", FACTOR, 1.0)),
        whole=rope.values.value(Key("truncate", FLAG, True)),
        attention_factor=attention,
    )


def _longrope(rope: _Rope) -> RotaryEmbedding:
    pairs = rope.head_size // 2
    short, long = (
        rope.values.value(Key(name, numbers(pairs))) for name in ("short_factor", "long_factor")
    )
    factor = rope.number("factor") or rope.positions / rope.original
    attention = rope.number("attention_factor")
    if attention is None:
        attention = 1.0
        if factor > 1 and rope.original > 1:
            attention = math.sqrt(1 + math.log(factor) / math.log(rope.original))
    return LongRotary(
        rope.theta, short=short, long=long, length=rope.original, attention_factor=attention
    )


_KINDS: Final[Mapping[str, Callable[[_Rope], RotaryEmbedding]]] = {
    "default": lambda rope: RotaryEmbedding(rope.theta),
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
