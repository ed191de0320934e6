"""Label the blocks of a model, find them by path, and operate on them."""

# Structure
from .structure import (
    Chain,
    Parallel,
    SkipConnection,
    PairwiseFusion,
    Repeat,
    branch,
    activations,
    Vmap,
    Remat,
    Cast,
    Residual,
    Then,
    Wrapper,
    StructuralLayer,
    Node,
    Call,
    desugar,
)

# Paths and patterns
from .paths import (
    walk,
    children,
    rebuild,
    PatternError,
)

# Select and operate
from .surgery import (
    select,
    Selection,
    replace_where,
    update,
    NoMatchError,
    MatchError,
    dispatch,
    Dispatch,
    tie,
    label_fn,
    partition,
    each,
    extend_state,
    with_state,
)

# Operations on layers
from .operations import (
    take,
    take_from,
    blocks,
    LoRA,
    merge_lora,
    adapter,
    quantize,
    QuantizedLinear,
    fold_batch_norm,
    expand_vocabulary,
    resize_positions,
)

# Files
from .files import (
    save,
    load,
    types_of,
    load_weights,
    export_weights,
    Layout,
    Report,
    FormatError,
    UnsavableError,
    WeightsError,
)

# Pretrained models
from . import zoo

__all__ = [
    # Structure
    "Chain",
    "Parallel",
    "SkipConnection",
    "PairwiseFusion",
    "Repeat",
    "branch",
    "activations",
    "Vmap",
    "Remat",
    "Cast",
    "Residual",
    "Then",
    "Wrapper",
    "StructuralLayer",
    "Node",
    "Call",
    "desugar",
    # Paths and patterns
    "walk",
    "children",
    "rebuild",
    "PatternError",
    # Select and operate
    "select",
    "Selection",
    "replace_where",
    "update",
    "NoMatchError",
    "MatchError",
    "dispatch",
    "Dispatch",
    "tie",
    "label_fn",
    "partition",
    "each",
    "extend_state",
    "with_state",
    # Operations on layers
    "take",
    "take_from",
    "blocks",
    "LoRA",
    "merge_lora",
    "adapter",
    "quantize",
    "QuantizedLinear",
    "fold_batch_norm",
    "expand_vocabulary",
    "resize_positions",
    # Files
    "save",
    "load",
    "types_of",
    "load_weights",
    "export_weights",
    "Layout",
    "Report",
    "FormatError",
    "UnsavableError",
    "WeightsError",
    # Pretrained models
    "zoo",
]
