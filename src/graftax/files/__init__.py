"""Models in files: saved with their structure, and weights of others by name."""

from .errors import FormatError as FormatError, UnsavableError as UnsavableError
from .needed import types_of as types_of
from .rename import Layout as Layout
from .report import Report as Report, WeightsError as WeightsError
from .saving import load as load, save as save
from .weights import export_weights as export_weights, load_weights as load_weights
