"""The path grammar, patterns, walking and rebuilding. Knows of pytrees only."""

from .errors import PatternError as PatternError
from .functor import children as children, rebuild as rebuild
from .path import walk as walk
