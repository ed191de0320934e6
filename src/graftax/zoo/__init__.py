"""Published models as functions that return standard parts, and their weights."""

from ..structure import Residual as Residual
from . import cuts as cuts
from .attention import DotProductAttention as DotProductAttention
from .config import ConfigError as ConfigError
from .convolution import (
    Append as Append,
    Normalize as Normalize,
    Pixelwise as Pixelwise,
    Scale as Scale,
    ToTokens as ToTokens,
    Upsample as Upsample,
)
from .embeddings import (
    ClassToken as ClassToken,
    Embedding as Embedding,
    PositionEmbedding as PositionEmbedding,
    TokenTypeEmbedding as TokenTypeEmbedding,
)
from .families.bert import bert as bert, bert_block as bert_block
from .families.convnext import convnext as convnext, convnext_block as convnext_block
from .families.densenet import (
    dense_layer as dense_layer,
    densenet as densenet,
    transition as transition,
)
from .families.googlenet import googlenet as googlenet, inception_block as inception_block
from .families.gpt2 import gpt2 as gpt2, gpt2_block as gpt2_block
from .families.inception import (
    inception as inception,
    inception_a as inception_a,
    inception_b as inception_b,
    inception_c as inception_c,
    inception_d as inception_d,
    inception_e as inception_e,
)
from .families.llama import llama as llama, llama_block as llama_block
from .families.resnet import basic_block as basic_block, bottleneck as bottleneck, resnet as resnet
from .families.unet import double_convolution as double_convolution, unet as unet
from .families.vit import vit as vit, vit_block as vit_block
from .generation import generate as generate
from .images import (
    AvgPool2d as AvgPool2d,
    Conv2d as Conv2d,
    ImageSize as ImageSize,
    MaxPool2d as MaxPool2d,
)
from .layers import (
    DropPath as DropPath,
    Take as Take,
)
from .norms import BatchNorm as BatchNorm
from .pretrained import from_pretrained as from_pretrained
from .publishing import save_pretrained as save_pretrained
from .rotary import (
    DynamicRotary as DynamicRotary,
    LongRotary as LongRotary,
    RotaryEmbedding as RotaryEmbedding,
    YarnRotary as YarnRotary,
)
