"""What is done to layers: adapters, small integers, folding, resizing."""

from .adapters import adapter as adapter
from .fold import fold_batch_norm as fold_batch_norm
from .lora import LoRA as LoRA, merge_lora as merge_lora
from .quantization import QuantizedLinear as QuantizedLinear, quantize as quantize
from .resize import expand_vocabulary as expand_vocabulary, resize_positions as resize_positions
