import importlib.util

import hypothesis

# What compares with PyTorch itself runs where it is installed: `make live` sees to that.
collect_ignore = [] if importlib.util.find_spec("torch") else ["live"]

# Read by type checkers, and run by nobody: `make typecheck`.
collect_ignore += ["typing"]

# No deadline: the first example of a property pays for JAX's compilation, the others do not.
hypothesis.settings.register_profile("graftax", deadline=None, print_blob=True)
hypothesis.settings.load_profile("graftax")
