import hypothesis

# No deadline: the first example of a property pays for JAX's compilation, the others do not.
hypothesis.settings.register_profile("graftax", deadline=None, print_blob=True)
hypothesis.settings.load_profile("graftax")
