"""Selections, dispatch, ties, adapters: what is done to a model."""

from .adapter import adapter as adapter
from .batch_norm import fold_batch_norm as fold_batch_norm
from .dispatch import Dispatch as Dispatch, dispatch as dispatch
from .graft import extend_state as extend_state
from .hints import MatchError as MatchError, NoMatchError as NoMatchError
from .label_fn import label_fn as label_fn
from .lora import LoRA as LoRA, merge_lora as merge_lora
from .quantize import QuantizedLinear as QuantizedLinear, quantize as quantize
from .resize import expand_vocabulary as expand_vocabulary, resize_positions as resize_positions
from .select import replace_where as replace_where, select as select
from .selection import Selection as Selection
from .tie import tie as tie
from .update import update as update
