"""Where layers stand in no order, so that none can be put before or behind another."""

from typing import Any

from ..paths.edit import at, place
from ..paths.search import Match
from ..structure.parallel import Parallel
from ..structure.signature import is_binary

THEN = " `.then(label=layer)` puts a layer behind it."


def check_order(model: Any, match: Match) -> None:
    """Raise `ValueError` if a match is a branch: branches have no neighbours."""
    parent = _parent(model, match)
    if isinstance(parent, Parallel):
        raise ValueError(
            f"{match.path!r} is a branch of a {type(parent).__name__}: the branches stand side by side, "
            f"and none is before or after another.{THEN}"
        )


def check_run_once(model: Any, match: Match) -> None:
    """Raise `ValueError` if a match is an `op` that is folded: what is behind it would be folded too."""
    parent = _parent(model, match)
    if not isinstance(parent, Parallel) or match.keys[-1] != "op" or not is_binary(match.node):
        return
    if len(parent) != 2 or parent.init is not None:
        raise ValueError(
            f"{match.path!r} is a function of two arguments, which {type(parent).__name__} folds over "
            f"its {len(parent)} branches: a layer behind it would run after each step. Give it an op "
            "that takes the tuple, as `sum` does, or put the layer behind the Parallel."
        )


def _parent(model: Any, match: Match) -> Any:
    address = place(match)
    return at(model, address[:-1]) if address else None
