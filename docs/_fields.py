"""The constructors that a class is given for its fields, for the API page. An extension of griffe.

An Equinox module without an `__init__`, or a NamedTuple, takes its fields as arguments, and a layer made
from one of Equinox's those of that one. The page is made without importing the package, so somebody has
to say so.
"""

import inspect

import equinox as eqx
import griffe

_MAKERS = ("Module", "NamedTuple", "StatefulLayer")


class Fields(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **_) -> None:
        for member in list(_classes(pkg)):
            if "__init__" in member.all_members:
                continue
            if inherited := _of_equinox(member):
                member.set_member("__init__", inherited)
            elif _takes_fields(member):
                member.set_member("__init__", _constructor(member))


def _classes(module: griffe.Module):
    for member in module.members.values():
        if member.is_alias:
            continue
        if member.is_class:
            yield member
        elif member.is_module:
            yield from _classes(member)


def _of_equinox(cls: griffe.Class) -> griffe.Function | None:
    for base in cls.bases:
        layer = getattr(eqx.nn, str(base).rpartition(".")[2], None)
        if inspect.isclass(layer) and "__init__" in vars(layer) and not inspect.isabstract(layer):
            given = inspect.signature(layer.__init__).parameters.values()
            kinds = {kind.value: kind for kind in griffe.ParameterKind}
            parameters = [
                griffe.Parameter(
                    each.name,
                    kind=kinds[each.kind.description],
                    default=None if each.default is each.empty else repr(each.default),
                )
                for each in given
            ]
            return griffe.Function(
                "__init__", parameters=griffe.Parameters(*parameters), parent=cls
            )
    return None


def _takes_fields(cls: griffe.Class) -> bool:
    family = [cls, *cls.mro()]
    return any(str(base).rpartition(".")[2] in _MAKERS for each in family for base in each.bases)


def _constructor(cls: griffe.Class) -> griffe.Function:
    kind = griffe.ParameterKind.positional_or_keyword
    parameters = [griffe.Parameter("self", kind=kind)]
    for each in [*reversed(cls.mro()), cls]:
        for field in each.attributes.values():
            if field.annotation is not None and "ClassVar" not in str(field.annotation):
                default = None if field.value is None else str(field.value)
                if default and default.startswith("eqx.field("):
                    default = _default(field.value)
                parameters.append(
                    griffe.Parameter(
                        field.name, annotation=field.annotation, kind=kind, default=default
                    )
                )
    return griffe.Function("__init__", parameters=griffe.Parameters(*parameters), parent=cls)


def _default(call: griffe.ExprCall) -> str | None:
    """Of `eqx.field(static=True, default=1)`, the 1."""
    given = {each.name: str(each.value) for each in call.arguments if hasattr(each, "name")}
    return given.get("default")
