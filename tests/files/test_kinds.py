"""The kind of an entry is what it holds: no entry fits two kinds, so their order means nothing."""

import itertools

import pytest

import graftax as gx
import graftax.files.decode  # where the kinds are registered
from graftax.files.kinds import KINDS, Kinds


def test_no_entry_fits_two_kinds():
    assert len(KINDS.all) > 15
    for one, other in itertools.combinations(KINDS.all, 2):
        least = one.needs | other.needs
        assert not (one.fits(least) and other.fits(least)), (one.needs, other.needs)


def test_an_entry_has_what_its_kind_needs_and_nothing_unknown():
    kinds = Kinds()
    read = kinds.register("a b", may="c")(lambda file, entry: 1)
    for keys in ("ab", "abc"):
        assert kinds.reader(frozenset(keys)) is read
    for keys in ("", "a", "abd", "abcd", "ac"):
        with pytest.raises(gx.FormatError, match="no known kind"):
            kinds.reader(frozenset(keys))
