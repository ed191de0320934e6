"""What tests of notes share: layers that fail, and what they leave behind."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from graftax.structure.notes import PathNote

X = jnp.arange(4.0)
KEY = jax.random.key(0)


class Broken(eqx.Module):
    """Raises what it is told to."""

    error: type = eqx.field(static=True, default=ValueError)

    def __call__(self, x):
        raise self.error("broken")


class BrokenOp(eqx.Module):
    def __call__(self, a, b):
        raise ValueError("broken")


def notes_of(error):
    """graftax's notes. JAX may add one of its own, about its traceback."""
    return [note for note in getattr(error, "__notes__", []) if isinstance(note, PathNote)]


def the_note(model, *inputs, error=ValueError, **keywords):
    with pytest.raises(error) as caught:
        model(*inputs, **keywords)
    (note,) = notes_of(caught.value)
    return str(note)
