"""Errors about files."""


class FormatError(ValueError):
    """A file that is damaged, hostile, or of a format that this version does not read."""


class UnsavableError(TypeError):
    """Something in a model that a file cannot hold, named by its path."""


class Unstorable(Exception):
    """Why a value cannot stand in a file: the end of a sentence that begins with its path."""
