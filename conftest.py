"""Settings for every test, those in `tests/` and the doctests in `src/` alike.

The import hook that checks graftax's annotations is not here but in `pyproject.toml`: it has to be
in place before this file is read.
"""

import os

import jax
import pytest

# Broadcasting between arrays of different rank hides mistakes in shape.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Several workers that each claim a GPU would starve one another; set JAX_PLATFORMS to test on one.
if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")


@pytest.fixture(autouse=True, scope="session")
def _doctest_names(doctest_namespace):
    """The names a docstring's example may use without importing them."""
    import equinox as eqx

    import graftax as gx

    doctest_namespace.update(eqx=eqx, gx=gx, jax=jax, jnp=jax.numpy)
