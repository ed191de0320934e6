"""Fixtures of the U-Net of Ronneberger et al. (2015), which neither library has.

With padded convolutions and BatchNorm, as it is used today; upsampling by a transposed convolution
or bilinear.
"""

import itertools
from typing import Any

import torch
from fixtures_common import Fixture
from fixtures_modules import state_dict_fixture
from torch import nn


class DoubleConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, bias: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.conv1(x)).relu()
        return self.norm2(self.conv2(x)).relu()


class Decoder(nn.Module):
    def __init__(self, inputs: int, outputs: int, bilinear: bool, bias: bool):
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            self.block = DoubleConv(inputs + outputs, outputs, bias)
        else:
            self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
            self.block = DoubleConv(2 * outputs, outputs, bias)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.block(torch.cat([skip, self.up(x)], 1))


class UNet(nn.Module):
    """The last of `sizes` is the bottleneck's; the decoders come deepest first."""

    def __init__(self, channels: int, sizes: list[int], labels: int, bilinear: bool, bias: bool):
        super().__init__()
        pairs = list(itertools.pairwise([channels, *sizes]))
        self.encoder = nn.ModuleList(DoubleConv(a, b, bias) for a, b in pairs[:-1])
        self.bottleneck = DoubleConv(*pairs[-1], bias)
        ups = itertools.pairwise(reversed(sizes))
        self.decoder = nn.ModuleList(Decoder(a, b, bilinear, bias) for a, b in ups)
        self.head = nn.Conv2d(sizes[0], labels, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for encoder in self.encoder:
            x = encoder(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for decoder in self.decoder:
            x = decoder(x, skips.pop())
        return self.head(x)


def _unet(
    name: str,
    channels: int,
    sizes: list[int],
    labels: int,
    *,
    bilinear: bool,
    bias: bool,
    shape: tuple[int, ...],
    **rest: Any,
) -> Fixture:
    config = {
        "architectures": ["UNet"],
        "model_type": "unet",
        "num_channels": channels,
        "hidden_sizes": sizes,
        "upsample": "bilinear" if bilinear else "transposed",
        "conv_bias": bias,
        "num_labels": labels,
    }
    levels = range(len(sizes) - 1)
    return state_dict_fixture(
        "unet",
        name,
        lambda: UNet(channels, sizes, labels, bilinear, bias),
        lambda model: config,
        shape,
        stages=(*(f"encoder.{i}" for i in levels), "bottleneck", *(f"decoder.{i}" for i in levels)),
        made_by="UNet in scripts/fixtures_unet.py",
        **rest,
    )


def unet() -> list[Fixture]:
    return [
        _unet(
            "transposed",
            3,
            [4, 8, 16],
            2,
            bilinear=False,
            bias=False,
            shape=(1, 3, 16, 24),
            note="transposed convolutions, no bias before BatchNorm; gradients",
            differentiate=("logits",),
        ),
        _unet(
            "bilinear",
            1,
            [4, 6, 8, 12],
            3,
            bilinear=True,
            bias=True,
            shape=(2, 1, 16, 16),
            note="bilinear upsampling (align_corners=False), a bias before BatchNorm, deeper",
        ),
    ]
