"""Errors about files."""


class FormatError(ValueError):
    """A file that is damaged, hostile, or of a format that this version does not read."""


class UnsavableError(TypeError):
    """Something in a model that a file cannot hold, named by its path."""
