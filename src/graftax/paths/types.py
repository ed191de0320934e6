"""Types for annotations."""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from typing import Self as Self

    # To type checkers that of jaxtyping is no known type, so that `PyTree[Foo]` may stand anywhere.
    PyTree: TypeAlias = Any
else:
    from jaxtyping import PyTree as PyTree

    # What checks annotations at run time sees one function at a time, and no class around it.
    Self = Any
