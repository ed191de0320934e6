"""Equinox's state: the one file that touches `StateIndex` and its marker.

To explain how this works. A layer with state, `eqx.nn.BatchNorm` for one, holds a `StateIndex` for each
value that it keeps from call to call. An index is two things: a *marker*, which is the key under which an
`eqx.nn.State` knows the value, and *init*, the value itself for as long as the model holds it. When a
layer is built, its marker is an `object()`, which nothing else equals. `eqx.nn.make_with_state` replaces
it by text (the class of the model and the path), moves the values into a state, and leaves `TAKEN` in the
model. From then on a marker is a *name*: who has it, reads and writes that value.

So three questions are asked of markers, and all answers follow from that:

- *Is a value in the model or in a state?* `is_taken`. `with_state` moves values back into the model;
  `held_state` lends those in a model to one call.
- *What becomes of a name in an edit?* `markers.py`: who was there keeps it, who comes gets another.
- *Do two places have one name?* Two indices with one `object()` are one layer, built once, that stands
  twice: they share on purpose, and still do under `jit`, because markers are static. Two with one *text*
  are an accident, since `make_with_state` never gives a name twice: two models of one class were joined,
  or a layer was taken out of a model and put in twice. Under `jit` these cannot be told apart, so both
  are errors, at the call and in `extend_state`. To share on purpose, `graftax.tie` the layers: a tied
  model holds the index once.

A worked example:

    a, state_a = make_with_state(Chain)(norm=BatchNorm(3, ...))   # marker: "Chain.layers.norm.counter"
    b, state_b = make_with_state(Chain)(norm=BatchNorm(3, ...))   # the same text, of another layer

    Chain(one=a, two=b)(x, state_a)                 # refused: two.norm would use the values of one.norm

    c = select(a, "norm").insert_after(norm2=b.norm)
    # c.norm:  "Chain.layers.norm.counter"                              kept: state_a serves it
    # c.norm2: "norm2.counter#1, from Chain.layers.norm.counter"        in no state so far
    extend_state(state_a, c, donor=state_b)
    # c.norm: what state_a has. c.norm2: not in state_a; under its earlier name in state_b, the donor.
"""

import functools
from collections.abc import Iterable
from typing import Any, TypeVar

import equinox as eqx
import jax

from ..paths.edit import edited
from ..paths.search import Match, search_all
from ..paths.tree import any_type, shallow_copy
from ..structure.above import Above
from .names import in_states

M = TypeVar("M")

# --- Accessors: what other files ask instead of touching `StateIndex` ---


@functools.lru_cache(maxsize=4096)
def is_index_type(cls: Any) -> bool:
    """Whether nodes of this type are `StateIndex`es."""
    return issubclass(cls, eqx.nn.StateIndex)


def is_index(node: Any) -> bool:
    """Whether a node is a `StateIndex`: the place of one value of a state."""
    return is_index_type(type(node))


def has_state(tree: Any) -> bool:
    """Whether a `StateIndex` stands anywhere in the tree."""
    return any_type(tree, is_index_type)


def marker_of(index: Any) -> Any:
    """Under what a state knows the value: text once a model was separated, else a bare `object()`."""
    return index.marker


def with_marker(index: Any, marker: Any) -> Any:
    """The index under another name."""
    return shallow_copy(index, marker=marker)


def init_of(index: Any) -> Any:
    """The value that the model itself holds; `TAKEN` if it was taken out."""
    return index.init


def with_init(index: Any, init: Any) -> Any:
    """The index with another value, or `TAKEN`, in the model."""
    return shallow_copy(index, init=init)


def new_index(marker: Any, init: Any) -> Any:
    """A `StateIndex` with this marker that holds this value, or `TAKEN`."""
    return shallow_copy(eqx.nn.StateIndex(None), marker=marker, init=init)


TAKEN: Any = eqx.nn.delete_init_state(eqx.nn.StateIndex(None)).init
"""What Equinox leaves where `make_with_state` took the value out; it has no public name."""


def is_taken(index: Any) -> bool:
    """Whether the value was taken out of the model, into a state."""
    return type(index.init) is type(TAKEN)


def new_state(values: Iterable[tuple[Any, Any]]) -> eqx.nn.State:
    """The state of these (marker, value) pairs."""
    return eqx.nn.State([new_index(marker, value) for marker, value in values])


def indices(tree: Any) -> list[Match]:
    """Every `StateIndex` in the tree, in the order of a walk; of tied ones, each."""
    return search_all(tree, is_index)


def index_leaves(tree: Any) -> list[Any]:
    """Every `StateIndex` as JAX sees the tree: of tied ones, one."""
    return [leaf for leaf in jax.tree.leaves(tree, is_leaf=is_index) if is_index(leaf)]


def state_places(layer: Any) -> list[tuple[Any, Any]]:
    """(marker, index) of every value of state that the layer stores."""
    return [(marker_of(index), index) for index in index_leaves(layer)]


def statistics_mask(tree: Any) -> Any:
    """A tree of bools, True at the leaves that a `StateIndex` holds: values of a state, not parameters."""

    def inside(node: Any) -> Any:
        return jax.tree.map(lambda _: True, node) if is_index(node) else False

    return jax.tree.map(inside, tree, is_leaf=is_index)


# --- Two places, one name ---


def check_markers(model: Any) -> None:
    """Raise `ValueError` if two layers have one name in the state, and so would share its value.

    To be asked of every model that is given a state: the names in it are then known to be in use.
    """
    texts = [marker for marker, _ in state_places(model) if isinstance(marker, str)]
    if len(set(texts)) != len(texts):
        raise ValueError(_shared(model))
    in_states.note(texts)


def _shared(model: Any) -> str:
    places: dict[str, list[str]] = {}
    for match in indices(model):
        if isinstance(marker := marker_of(match.node), str):
            places.setdefault(marker, []).append(match.path)
    marker, paths = next((m, paths) for m, paths in places.items() if len(paths) > 1)
    return (
        f"The layers at {paths[0]!r} and {paths[1]!r} have one state marker, {str(marker)!r}, and would "
        "share their state. Put one of them in by an edit, as in select(model, ...).set(layer): that "
        "gives it a marker of its own. If they are meant to share, graftax.tie them."
    )


# --- Values in the model, values in a state ---


def check_is_state(call: str, name: str, given: Any) -> None:
    """Raise `TypeError` for an argument of this name, in a call of this form, that is no state."""
    if not isinstance(given, eqx.nn.State):
        raise TypeError(f"{call} takes an eqx.nn.State as {name}; got a {type(given).__name__}.")


def value_of(index: Any, state: eqx.nn.State | None, path: str = "") -> Any:
    """What a state holds, or the model if it was not separated from its state.

    Raises `ValueError` if the state is needed, or is another model's.
    """
    where = f" at {path!r}" if path else ""
    if state is not None:
        try:
            return state.get(index)
        except KeyError:
            raise ValueError(
                f"The state given is not that of this model: it knows nothing of {index.marker!r}{where}. "
                "For a model that was edited, take graftax.extend_state(state, model)."
            ) from None
    if is_taken(index):
        raise ValueError(
            f"The running statistics of this model{where} are in its state, which "
            "eqx.nn.make_with_state took out of it: give state=..."
        )
    return index.init


StateValues = list[tuple[Any, Any]]
"""Pairs of a `StateIndex` and the value at it."""


def with_state_values(
    model: M, values: StateValues, state: eqx.nn.State | None
) -> tuple[M, eqx.nn.State | None]:
    """`(model, state)` with other values of state: in the state if there is one, else in the model."""
    if state is not None:
        # Of a copy, because Equinox makes the state that it updates unusable.
        copy = jax.tree.map(lambda leaf: leaf, state)
        return model, copy.update(new_state((marker_of(index), value) for index, value in values))
    new = {marker_of(index): value for index, value in values}
    edits = {
        match.address: lambda index: with_init(index, new[marker_of(index)])
        for match in indices(model)
        if marker_of(match.node) in new
    }
    return edited(model, edits), None


def with_state(model: M, state: eqx.nn.State) -> M:
    """The model with the values of its state inside: the inverse of `eqx.nn.make_with_state`.

    `eqx.nn.make_with_state(lambda: with_state(model, state))()` is `(model, state)` again. Running
    statistics are then read, sliced, reset and set by path, like any array, and in inference mode the
    model is called without a state. They are no parameters all the same: they get no gradient, and are
    left out of `Selection.partition` and `Selection.mask`.

    **Arguments:**

    - `model`: a model that was separated from its state, edited since or not.
    - `state`: its state.

    **Returns:**

    The model; the state itself stays as it is.

    **Raises:**

    - `ValueError`: the state is not that of this model: a layer is missing in it, or it has values that
        no layer takes; or two layers would share one value by accident.
    - `TypeError`: `state` is no state.

    Source: `eqx.nn.make_with_state`.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx
    >>> norm = eqx.nn.BatchNorm(2, axis_name="batch", mode="batch")
    >>> model, state = eqx.nn.make_with_state(gx.Chain)(norm=norm)
    >>> model = gx.with_state(model, state)
    >>> gx.select(model, "norm.batch_state_index.init.*").paths
    ('norm.batch_state_index.init.0', 'norm.batch_state_index.init.1')
    >>> model = gx.select(model, "norm.batch_state_index.init[0]").apply(lambda mean: mean + 3)
    >>> model, state = eqx.nn.make_with_state(lambda: model)()
    >>> state.get(model.norm.batch_state_index)[0].tolist()
    [3.0, 3.0]

    ```
    """
    check_is_state("with_state(model, state)", "state", state)
    check_markers(model)
    found = indices(model)
    _check_all_taken(state, {marker_of(match.node) for match in found})
    values = {match.address: value_of(match.node, state, match.path) for match in found}
    return edited(
        model,
        {place: lambda index, new=new: with_init(index, new) for place, new in values.items()},
    )


def _check_all_taken(state: eqx.nn.State, markers: set[Any]) -> None:
    _, known = state.tree_flatten()
    if unwanted := [marker for marker in known if marker not in markers]:
        raise ValueError(
            f"The state given holds {unwanted[0]!r}, which no layer of this model takes. For a model that "
            "was edited, take graftax.extend_state(state, model)."
        )


# A call asks these, see `structure.above`.
Above.has_state = staticmethod(has_state)
Above.check_markers = staticmethod(check_markers)
