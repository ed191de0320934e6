"""Types for annotations."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self as Self
else:
    # What checks annotations at run time sees one function at a time, and no class around it.
    Self = Any
