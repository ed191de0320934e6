"""The state of an edited model."""

from typing import Any

import equinox as eqx

from ..paths.search import Match
from .names import Name
from .state import (
    check_is_state,
    check_markers,
    indices,
    init_of,
    is_taken,
    marker_of,
    new_state,
    with_marker,
)


def extend_state(
    state: eqx.nn.State, model: Any, donor: eqx.nn.State | None = None
) -> eqx.nn.State:
    """The state of an edited model: kept where the layer was kept, initial where it is new.

    **Arguments:**

    - `state`: the state of the model before the edit.
    - `model`: the model after it.
    - `donor`: the state of the model that grafted layers were taken from, if these had been
        separated from their initial state by `eqx.nn.make_with_state`.

    **Returns:**

    An `eqx.nn.State` with exactly the entries that `model` uses.

    **Raises:**

    - `ValueError`: a grafted layer has no initial state and no `donor` knows it, or two layers would
        share their state because they were joined by other means than an edit.
    - `TypeError`: `state` or `donor` is no state.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx
    >>> norm = lambda: eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
    >>> model, state = eqx.nn.make_with_state(gx.Chain)(norm=norm())
    >>> model = gx.select(model, "norm").insert_after(again=norm())
    >>> state = gx.extend_state(state, model)
    >>> len(state.get(model.again.batch_state_index))
    2

    ```
    """
    check_is_state("extend_state(state, model, donor=None)", "state", state)
    if donor is not None:
        check_is_state("extend_state(state, model, donor=None)", "donor", donor)
    check_markers(model)
    return new_state(
        (marker_of(match.node), _value(match, state, donor)) for match in indices(model)
    )


def _value(match: Match, state: eqx.nn.State, donor: eqx.nn.State | None) -> Any:
    index, marker = match.node, marker_of(match.node)
    source: eqx.nn.State | None = state
    places: list[tuple[eqx.nn.State | None, Any]] = [(state, marker)]
    while isinstance(marker, Name):
        # What came from elsewhere was known by its earlier names there.
        source, marker = (source if marker.copied else donor), marker.origin
        places.append((source, marker))
    for source, known_as in places:
        if source is not None:
            try:
                return source.get(with_marker(index, known_as))
            except KeyError:
                pass
    if is_taken(index):
        raise ValueError(
            f"The layer at {match.path!r} is new to this state, and its own initial state was taken "
            "from it by eqx.nn.make_with_state. Give the state it was taken to as donor=..."
        )
    return init_of(index)
