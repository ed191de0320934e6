"""Fields in the form that a constructor gives them, and what follows from them.

Equinox's layers turn their arguments into fields: `stride=2` becomes `(2, 2)`, `shape=8` becomes `(8,)`.
Nothing says how, but their constructors do. So the constructor is run again, with the fields of a
layer for its arguments and without computing anything (`jax.eval_shape`): what it makes is the *form*
of the layer. A field that was changed takes its value from the form; the arrays of the layer must have
the shapes of those in the form. For example, `update(conv, stride=2)` runs
`Conv2d(in_channels=3, ..., stride=2)`, whose `stride` is `(2, 2)`; `update(conv, groups=3)` finds there a
weight of another shape, and is refused.

The other way, from arrays to sizes, is `sizes_of`: `update(linear, weight=w)` changes `out_features`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..paths.errors import listed
from ..paths.fields import dynamic_fields, is_static
from ..paths.path import join
from ..paths.tree import level_of, shallow_copy, values_of
from ..structure.wrapper import unwrap
from .hints import described
from .parts import is_array
from .sizes import sizes_of

Arguments = dict[str, Any]
Shape = tuple[int, ...]
Pair = tuple[str, Shape | None, Shape | None]
"""A path, the shape of the array there, and its shape in the form; None where there is no array."""


def in_form(old: Any, new: Any, given: Collection[str]) -> Any:
    """`new`, which is `old` with the given fields changed, as its constructor would have made it.

    Only for layers whose constructor is Equinox's or graftax's own, and takes nothing but fields.
    Raises `ValueError` for fields that contradict each other.
    """
    cls = _constructor(type(old))
    before = _arguments(cls, old)
    if before is None:
        return new
    new = _with_sizes(old, new, given)
    after = _arguments(cls, new) or {}
    try:
        was = _form(cls, before)
    except Exception:
        return new  # It was made in a way of its own, which says nothing of what is right.
    asked = _spelled(before, after, given)
    try:
        form = _form(cls, after)
        new = _with_forms(cls, old, new, form, after, given)
        if any(after[name] is not before[name] for name in given if name in after):
            new = _with_consequences(cls, new, (was, form), given)
    except Exception as error:
        raise ValueError(f"There is no {cls.__name__} with {asked}: {error}") from None
    # Stacked weights have further axes in front, the same for all.
    front = None if _gives_arrays(type(old), given) else _front(_pairs(old, was, ""))
    if faults := set(_misfits(new, form, front)) - set(_misfits(old, was)):
        path, have, want = min(faults)
        raise ValueError(
            f"{path} of {cls.__name__} is {_shown(have)}, and must be {_shown(want)} with {asked}. Give "
            "what belongs together in one update."
        )
    return new


def _spelled(before: Arguments, after: Arguments, given: Collection[str]) -> str:
    """The arguments that were changed, for a message; all if it was none of them."""
    changed = [name for name in after if name in given or after[name] is not before.get(name)]
    shown = ((name, after[name]) for name in changed or after if name != "key")
    return listed(f"{n}={described(v) if callable(v) else repr(v)}" for n, v in shown)


def _constructor(cls: type) -> Any:
    """The class whose `__init__` makes the layers of a class."""
    return next(each for each in cls.__mro__ if "__init__" in vars(each))


def _arguments(cls: Any, layer: Any) -> Arguments | None:
    """What a constructor would be given for this layer. None if it is not known, or takes more."""
    if cls.__module__.split(".")[0] not in ("equinox", "graftax"):
        return None
    values = values_of(layer)
    arguments: Arguments = {}
    for name, is_required in _parameters(cls):
        if name in values and not is_array(values[name]):
            arguments[name] = values[name]
        elif name == "key":
            arguments[name] = None
        elif is_required:
            return None
    return arguments


@functools.lru_cache(maxsize=1024)
def _parameters(cls: Any) -> list[tuple[str, bool]]:
    """The parameters of a constructor: name, and whether it has no default."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [(each.name, each.default is inspect.Parameter.empty) for each in parameters]


def _form(cls: Any, arguments: Arguments) -> Any:
    """The layer that a constructor makes, with shapes for arrays."""
    try:
        return _form_once(cls, tuple((name, type(v), v) for name, v in arguments.items()))
    except TypeError:
        return _new_form(
            cls, arguments
        )  # An argument that cannot be hashed, or what is wrong with one.


@functools.lru_cache(maxsize=1024)
def _form_once(cls: Any, arguments: tuple[Any, ...]) -> Any:
    return _new_form(cls, {name: value for name, _, value in arguments})


def _new_form(cls: Any, arguments: Arguments) -> Any:
    return eqx.filter_eval_shape(lambda: _made(cls, arguments))


def _made(cls: Any, arguments: Arguments) -> Any:
    given = arguments | ({"key": jax.random.key(0)} if "key" in arguments else {})
    return cls(**given)


def _with_sizes(old: Any, new: Any, given: Collection[str]) -> Any:
    """With the sizes that the arrays say, if it was arrays that were given."""
    if not _gives_arrays(type(old), given):
        return new
    before, values = sizes_of(old), values_of(new)
    sizes = {
        name: size
        for name, size in sizes_of(new).items()
        # In a part of a model None may stand for a bias that is in the other part.
        if name not in given
        and size != (before.get(name) if size in (True, False) else values[name])
    }
    return shallow_copy(new, **sizes) if sizes else new


def _gives_arrays(cls: type, given: Collection[str]) -> bool:
    return not set(dynamic_fields(cls)).isdisjoint(given)


def _with_forms(
    cls: Any, old: Any, new: Any, form: Any, arguments: Arguments, given: Collection[str]
) -> Any:
    """With the given fields as the constructor makes them."""
    values, changed = values_of(new), {}
    for field in dataclasses.fields(cls):
        name, made = field.name, getattr(form, field.name)
        if name not in given:
            continue
        if is_static(field):
            if name not in arguments and made != values[name]:
                raise ValueError(f"its {name} is {made!r}, not {values[name]!r}")
            changed[name] = made
        elif is_array(made) and type(values[name]) in _NUMBERS:
            changed[name] = jnp.asarray(values[name], getattr(values_of(old)[name], "dtype", None))
        # What is like the old is in form: it may be the old.
        elif name in arguments and _structure(values[name]) != _structure(getattr(old, name)):
            changed[name] = getattr(_made(cls, arguments), name)
    return shallow_copy(new, **changed)


_NUMBERS = (list, tuple, float, int, complex)
"""What `jax.numpy` makes an array of."""


def _with_consequences(cls: Any, new: Any, forms: tuple[Any, Any], given: Collection[str]) -> Any:
    """With the fields that the constructor makes of several arguments, or leaves out."""
    was, form = forms
    changed = {
        field.name: made
        for field in dataclasses.fields(cls)
        if field.name not in given
        and not _has_arrays(made := getattr(form, field.name))
        and made != getattr(was, field.name)
    }
    return shallow_copy(new, **changed)


def _has_arrays(tree: Any) -> bool:
    return any(map(is_array, jax.tree.leaves(tree)))


def _structure(tree: Any) -> Any:
    """A tree without its numbers, and with one and the same for all that is no array."""
    leaf = lambda x: (x.shape, x.dtype) if is_array(x) else ()
    leaves, structure = jax.tree.flatten(tree)
    return [leaf(each) for each in leaves], structure


def _misfits(layer: Any, form: Any, front: Shape | None = None) -> list[Pair]:
    """Where the arrays of a layer have other shapes than those of a form, behind the same axes in front."""
    pairs = list(_pairs(layer, form, ""))
    front = _front(pairs) if front is None else front
    wanted = ((path, have, None if want is None else (*front, *want)) for path, have, want in pairs)
    return [(path, have, want) for path, have, want in wanted if have != want]


def _front(pairs: Iterable[Pair]) -> Shape:
    known = [(have, want) for _, have, want in pairs if have is not None and want is not None]
    return known[0][0][: len(known[0][0]) - len(known[0][1])] if known else ()


def _pairs(layer: Any, form: Any, path: str) -> Iterator[Pair]:
    layer = unwrap(layer)
    if is_array(form):
        if layer is None or is_array(layer):
            yield path, None if layer is None else layer.shape, form.shape
    elif form is None and is_array(layer):
        yield path, layer.shape, None
    elif layer is None:
        yield from ((path, None, leaf.shape) for leaf in jax.tree.leaves(form) if is_array(leaf))
    elif isinstance(layer, type(form)):
        ours = dict(zip(level_of(layer).keys, level_of(layer).children, strict=True))
        theirs = dict(zip(level_of(form).keys, level_of(form).children, strict=True))
        if isinstance(form, tuple) and len(ours) != len(theirs):
            yield path, (len(ours),), (len(theirs),)
        else:
            for key in (key for key in theirs if key in ours):
                yield from _pairs(ours[key], theirs[key], join(path, key))


def _shown(shape: Shape | None) -> str:
    return "None" if shape is None else f"of shape {shape}"
