"""What is done to layers: adapters, small integers, folding, resizing."""

from . import axis_compound as axis_compound, axis_rules as axis_rules
from .adapters import adapter as adapter
from .axes import take_from as take_from
from .fold import fold_batch_norm as fold_batch_norm
from .index import blocks as blocks
from .lora import LoRA as LoRA, merge_lora as merge_lora
from .quantization import QuantizedLinear as QuantizedLinear, quantize as quantize
from .resize import expand_vocabulary as expand_vocabulary, resize_positions as resize_positions
from .slicing import take as take
