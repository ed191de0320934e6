import importlib.util
import resource

import hypothesis
import jax
import pytest

# What compares with PyTorch itself runs where it is installed: `make live` sees to that.
collect_ignore = [] if importlib.util.find_spec("torch") else ["live"]

# Read by type checkers, and run by nobody: `make typecheck`.
collect_ignore += ["typing"]

# No deadline: the first example of a property pays for JAX's compilation, the others do not.
hypothesis.settings.register_profile("graftax", deadline=None, print_blob=True)
hypothesis.settings.load_profile("graftax")


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory():
    """JAX keeps every program it compiled: some thousand tests would hold several gigabytes of them."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 1_500_000:  # kilobytes
        jax.clear_caches()
