"""What structure needs of the rooms above it is there once graftax is imported."""

import pytest

import graftax as gx
from graftax.structure import above


def test_every_place_is_filled_by_importing_graftax():
    empty = [name for name, value in vars(above.Above).items() if value is above._missing]
    places = [name for name in vars(above.Above) if not name.startswith("_")]
    assert len(places) >= 4 and not empty
    assert above.Above.replace_where is gx.replace_where


def test_an_empty_place_says_what_to_import():
    with pytest.raises(ImportError, match="import graftax"):
        above._missing()
