"""Fixtures of the ResNet and DenseNet of `torchvision`."""

import re
from typing import Any

from fixtures_common import Fixture
from fixtures_modules import state_dict_fixture
from torch import nn
from torchvision.models import densenet, resnet


class TinyResNet(resnet.ResNet):
    """torchvision's ResNet at the given widths, which are those inside a block."""

    def __init__(self, block: type, depths: list[int], widths: list[int], labels: int):
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes = widths[0]
        self.dilation, self.groups, self.base_width = 1, 1, 64
        self.conv1 = nn.Conv2d(3, self.inplanes, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layer = self._make_layer(block, width, depth, stride=1 if i == 0 else 2)
            setattr(self, f"layer{i + 1}", layer)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(self.inplanes, labels)


def _resnet(name: str, kind: str, depths: list[int], widths: list[int], **rest: Any) -> Fixture:
    block = {"basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck}[kind]
    config = {
        "architectures": ["ResNet"],
        "library_name": "torchvision",
        "model_type": "resnet",
        "layer_type": kind,
        "num_channels": 3,
        "embedding_size": widths[0],
        "hidden_sizes": [width * block.expansion for width in widths],
        "depths": depths,
        "num_labels": 5,
    }
    return state_dict_fixture(
        "resnet",
        name,
        lambda: TinyResNet(block, depths, widths, 5),
        lambda model: config,
        (2, 3, 32, 32),
        stages=("maxpool", "layer1", "layer2", "layer3", "layer4"),
        made_by="torchvision.models.resnet.ResNet, its widths divided by 8 or more",
        **rest,
    )


def torchvision_resnet() -> list[Fixture]:
    return [
        _resnet(
            "torchvision_basic",
            "basic",
            [2, 1, 1, 1],
            [8, 10, 12, 16],
            tracked=False,
            note="torchvision's names, as of resnet18; without num_batches_tracked, as files from "
            "before PyTorch 0.4.1 are",
        ),
        _resnet(
            "torchvision_bottleneck",
            "bottleneck",
            [1, 2, 1, 1],
            [4, 4, 6, 8],
            note="torchvision's names, as of resnet50",
        ),
    ]


def _densenet(name: str, growth: int, blocks: tuple[int, ...], first: int, size: int, **rest: Any):
    config = {
        "architectures": ["DenseNet"],
        "library_name": "torchvision",
        "model_type": "densenet",
        "growth_rate": growth,
        "block_config": list(blocks),
        "num_init_features": first,
        "bn_size": size,
        "num_labels": 5,
    }
    return state_dict_fixture(
        "densenet",
        name,
        lambda: densenet.DenseNet(growth, blocks, first, bn_size=size, num_classes=5),
        lambda model: config,
        (2, 3, 32, 32),
        stages=("features.pool0", *(f"features.denseblock{i + 1}" for i in range(len(blocks)))),
        made_by=f"torchvision.models.DenseNet({growth}, {blocks}, {first}, bn_size={size})",
        **rest,
    )


def torchvision_densenet() -> list[Fixture]:
    return [
        _densenet("base", 4, (2, 2, 1, 2), 8, 2, note="four blocks"),
        _densenet("three_blocks", 6, (1, 2, 3), 12, 4, note="three blocks, bottlenecks of 4 x 6"),
        _densenet(
            "published",
            4,
            (2, 1, 1, 1),
            8,
            2,
            tracked=False,
            to_file=lambda name: re.sub(r"(denselayer\d+\.[a-z]+)([12])\.", r"\1.\2.", name),
            from_file=lambda name: re.sub(r"(denselayer\d+\.[a-z]+)\.([12])\.", r"\1\2.", name),
            note="as densenet121 is published: denselayer1.norm.1.weight, which torchvision "
            "renames to norm1, and no num_batches_tracked",
        ),
    ]
