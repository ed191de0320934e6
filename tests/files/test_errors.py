"""What files raise can be caught as what it is: a bad value, or something of the wrong type."""

import jax.numpy as jnp
import pytest

import graftax as gx


def test_a_damaged_file_is_a_value_error(tmp_path):
    (tmp_path / "model").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="model") as error:
        gx.load(tmp_path / "model")
    assert type(error.value) is gx.FormatError


def test_what_cannot_be_saved_is_a_type_error_with_its_path(tmp_path):
    with pytest.raises(TypeError, match=r"'a\.1'") as error:
        gx.save(tmp_path / "model", {"a": [jnp.ones(1), object()]})
    assert type(error.value) is gx.UnsavableError
