"""What Equinox keeps in the metadata of a field. These fail by name when it keeps it elsewhere."""

import dataclasses
from typing import Any

import equinox as eqx
import jax

from graftax.paths.fields import converter_of, dynamic_fields, is_static


class Layer(eqx.Module):
    weight: Any = eqx.field(converter=float)
    size: int = eqx.field(static=True)
    layer: Any = None


def fields(cls: type) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(cls)}


def test_equinox_marks_a_static_field_in_its_metadata():
    assert [name for name, field in fields(Layer).items() if is_static(field)] == ["size"]
    assert len(jax.tree.leaves(Layer(1, 2, 3))) == 2
    assert is_static(fields(eqx.nn.Linear)["in_features"])
    assert not is_static(fields(eqx.nn.Linear)["weight"])


def test_equinox_keeps_the_converter_of_a_field_in_its_metadata():
    assert converter_of(fields(Layer)["weight"]) is float
    assert converter_of(fields(Layer)["layer"]) is None
    assert isinstance(Layer(1, 2).weight, float)
    convert = converter_of(fields(eqx.nn.Dropout)["p"])
    assert convert is None or callable(convert)


def test_jax_marks_a_static_field_of_a_dataclass_likewise():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Record:
        a: Any
        size: int = dataclasses.field(metadata={"static": True})

    assert dynamic_fields(Record) == ("a",)
    assert len(jax.tree.leaves(Record(1, 2))) == 1


def test_the_fields_that_are_children_come_in_order_but_for_the_one_asked_for():
    assert dynamic_fields(Layer) == ("weight", "layer")
    assert dynamic_fields(Layer, "layer") == ("weight",)
