"""Containers, wrappers and the calling convention."""

from .base import StructuralLayer as StructuralLayer
from .chain import Chain as Chain, activations as activations
from .fusion import PairwiseFusion as PairwiseFusion, Repeat as Repeat
from .parallel import Parallel as Parallel, branch as branch
from .skip import SkipConnection as SkipConnection
from .standard import desugar as desugar
from .wrappers import Cast as Cast, Remat as Remat, Vmap as Vmap, Wrapper as Wrapper
