"""The placeholder of `eqx.nn.Shared`: private to Equinox, and touched in one file."""

import equinox as eqx

import common_named as named
import graftax as gx
from common_files import linear
from graftax.files.shared import SharedNode


def test_equinox_still_leaves_a_placeholder_in_the_place_of_what_is_shared():
    shared = eqx.nn.Shared((linear(2, 2), linear(2, 2, 1)), named.where, named.get)
    assert type(shared.pytree[1].weight) is SharedNode
    assert SharedNode is not int and not vars(shared.pytree[1].weight)


def test_what_is_shared_is_shared_again(tmp_path):
    shared = eqx.nn.Shared((linear(2, 2), linear(2, 2, 1)), named.where, named.get)
    gx.save(tmp_path / "f", shared)
    loaded = gx.load(tmp_path / "f", gx.types_of(shared))
    first, second = loaded()
    assert first.weight is second.weight and (first.weight == shared()[0].weight).all()
