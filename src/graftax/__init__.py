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

# Files
from .files import FormatError as FormatError  # isort: split
from .files import Layout as Layout
from .files import Report as Report
from .files import UnsavableError as UnsavableError
from .files import WeightsError as WeightsError
from .files import export_weights as export_weights
from .files import load as load
from .files import load_weights as load_weights
from .files import save as save

# Pretrained models
from . import zoo as zoo  # isort: split

__all__ = [
    "Cast",
    "Chain",
    "Dispatch",
    "FormatError",
    "Layout",
    "LoRA",
    "MatchError",
    "NoMatchError",
    "PairwiseFusion",
    "Parallel",
    "PatternError",
    "Remat",
    "Repeat",
    "Report",
    "Selection",
    "SkipConnection",
    "StructuralLayer",
    "UnsavableError",
    "Vmap",
    "WeightsError",
    "Wrapper",
    "activations",
    "branch",
    "children",
    "desugar",
    "dispatch",
    "export_weights",
    "extend_state",
    "label_fn",
    "load",
    "load_weights",
    "rebuild",
    "replace_where",
    "save",
    "select",
    "tie",
    "update",
    "walk",
    "zoo",
]
