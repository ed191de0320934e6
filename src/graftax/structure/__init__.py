"""Containers, wrappers and the record of a call."""

from .base import StructuralLayer as StructuralLayer
from .beside import Residual as Residual, Then as Then
from .call import Call as Call
from .chain import Chain as Chain, activations as activations
from .fusion import PairwiseFusion as PairwiseFusion, Repeat as Repeat
from .node import Node as Node
from .parallel import Parallel as Parallel, branch as branch
from .skip import SkipConnection as SkipConnection
from .standard import desugar as desugar
from .wrapper import Wrapper as Wrapper
from .wrappers import Cast as Cast, Remat as Remat, Vmap as Vmap
