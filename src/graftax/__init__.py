"""Label the blocks of a model, find them by path, and operate on them."""

# Structure
# Paths and patterns
from .paths import PatternError as PatternError  # isort: split

from .paths import children as children, rebuild as rebuild, walk as walk
from .structure import (
    Cast as Cast,
    Chain as Chain,
    PairwiseFusion as PairwiseFusion,
    Parallel as Parallel,
    Remat as Remat,
    Repeat as Repeat,
    SkipConnection as SkipConnection,
    StructuralLayer as StructuralLayer,
    Vmap as Vmap,
    Wrapper as Wrapper,
    activations as activations,
    branch as branch,
    desugar as desugar,
)

# Select and operate
from .surgery import Dispatch as Dispatch  # isort: split

from .surgery import (
    LoRA as LoRA,
    MatchError as MatchError,
    NoMatchError as NoMatchError,
    Selection as Selection,
    dispatch as dispatch,
    extend_state as extend_state,
    label_fn as label_fn,
    replace_where as replace_where,
    select as select,
    tie as tie,
    update as update,
)

__all__ = [
    "Cast",
    "Chain",
    "Dispatch",
    "LoRA",
    "MatchError",
    "NoMatchError",
    "PairwiseFusion",
    "Parallel",
    "PatternError",
    "Remat",
    "Repeat",
    "Selection",
    "SkipConnection",
    "StructuralLayer",
    "Vmap",
    "Wrapper",
    "activations",
    "branch",
    "children",
    "desugar",
    "dispatch",
    "extend_state",
    "label_fn",
    "rebuild",
    "replace_where",
    "select",
    "tie",
    "update",
    "walk",
]
