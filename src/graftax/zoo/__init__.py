"""Published models as functions that return standard parts, and their weights."""

from .bert import bert as bert, bert_block as bert_block
from .config import ConfigError as ConfigError
from .layers import (
    ClassToken as ClassToken,
    DotProductAttention as DotProductAttention,
    PositionEmbedding as PositionEmbedding,
    Residual as Residual,
    RotaryEmbedding as RotaryEmbedding,
    Scale as Scale,
    Take as Take,
    TokenTypeEmbedding as TokenTypeEmbedding,
    ToTokens as ToTokens,
)
from .pretrained import from_pretrained as from_pretrained
