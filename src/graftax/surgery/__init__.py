"""Selections, dispatch, ties, adapters: what is done to a model."""

from .dispatch import Dispatch as Dispatch, dispatch as dispatch
from .graft import extend_state as extend_state
from .hints import MatchError as MatchError, NoMatchError as NoMatchError
from .label_fn import label_fn as label_fn
from .lora import LoRA as LoRA
from .select import replace_where as replace_where, select as select
from .selection import Selection as Selection
from .tie import tie as tie
from .update import update as update
