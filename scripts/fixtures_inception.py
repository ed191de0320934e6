"""Fixtures of the GoogLeNet and Inception v3 of `torchvision`.

Their widths are fixed in the program. Here the classes that they are built from divide each width.
"""

import functools
from collections.abc import Callable
from typing import Any

from fixtures_common import Fixture
from fixtures_modules import state_dict_fixture
from torch import nn
from torchvision.models import inception
from torchvision.models.googlenet import BasicConv2d, GoogLeNet, Inception


def _divided(block: type, divisor: int) -> Callable[..., nn.Module]:
    """`block` with its first two widths divided, but for the three channels of an image."""

    def make(inputs: int, outputs: int, **options: Any) -> nn.Module:
        return block(inputs if inputs == 3 else inputs // divisor, outputs // divisor, **options)

    return make


class TinyAux(nn.Module):
    """The names and widths of GoogLeNet's auxiliary heads; at inference they are not run."""

    def __init__(self, inputs: int, labels: int, dropout: float):
        super().__init__()
        self.conv = BasicConv2d(inputs // 16, 4, kernel_size=1)
        self.fc1 = nn.Linear(64, 8)
        self.fc2 = nn.Linear(8, labels)


def _googlenet(name: str, aux: bool, transform: bool, shape: tuple[int, ...], **rest: Any):
    conv = _divided(BasicConv2d, 16)

    def build() -> nn.Module:
        block = functools.partial(Inception, conv_block=conv)
        blocks = [conv, block, TinyAux]
        model = GoogLeNet(5, aux, transform, init_weights=False, blocks=blocks)
        model.fc = nn.Linear(1024 // 16, 5)
        return model

    def widths(branch: nn.Module) -> list[int]:
        return [m.out_channels for m in branch.modules() if isinstance(m, nn.Conv2d)]

    def config(model: nn.Module) -> dict[str, Any]:
        blocks = [n for n, m in model.named_children() if isinstance(m, Inception)]
        return {
            "architectures": ["GoogLeNet"],
            "library_name": "torchvision",
            "model_type": "googlenet",
            "num_channels": 3,
            "stem_sizes": [widths(getattr(model, f"conv{i}"))[0] for i in (1, 2, 3)],
            "block_sizes": {block: widths(getattr(model, block)) for block in blocks},
            "aux_logits": aux,
            "transform_input": transform,
            "num_labels": 5,
        }

    return state_dict_fixture(
        "googlenet",
        name,
        build,
        config,
        shape,
        stages=tuple(f"inception{block}" for block in ("3a", "3b", "4a", "4e", "5a", "5b")),
        made_by="torchvision.models.GoogLeNet(blocks=...), each width divided by 16",
        **rest,
    )


def torchvision_googlenet() -> list[Fixture]:
    return [
        _googlenet("base", False, False, (1, 3, 32, 40), note="no auxiliary heads"),
        _googlenet(
            "published",
            True,
            True,
            (1, 3, 33, 30),
            note="as googlenet is published: transform_input, and auxiliary heads in the file "
            "that inference does not run (here with other widths); an image of odd size",
        ),
    ]


INCEPTION = {
    "architectures": ["Inception3"],
    "library_name": "torchvision",
    "model_type": "inception_v3",
    "width_divisor": 32,
    "aux_logits": False,
    "transform_input": True,
    "num_labels": 5,
}


def torchvision_inception() -> list[Fixture]:
    conv = _divided(inception.BasicConv2d, 32)
    kinds = {c: getattr(inception, f"Inception{c}") for c in "ABCDE"}
    make = {c: functools.partial(kind, conv_block=conv) for c, kind in kinds.items()}

    def whole() -> nn.Module:
        classes = [conv, *make.values(), inception.InceptionAux]
        model = inception.Inception3(5, False, True, classes, init_weights=False)
        model.fc = nn.Linear(2048 // 32, 5)
        return model

    def blocks() -> nn.Module:
        model = nn.Sequential()
        sizes = {"A": (192, 32), "B": (256,), "C": (736, 128), "D": (768,), "E": (1280,)}
        for letter, widths in sizes.items():
            model.add_module(f"Mixed_{letter.lower()}", make[letter](*widths))
        model.add_module("avgpool", nn.AdaptiveAvgPool2d((1, 1)))
        model.add_module("flatten", nn.Flatten())
        model.add_module("fc", nn.Linear(2048 // 32, 5))
        return model

    return [
        state_dict_fixture(
            "inception",
            "v3",
            whole,
            lambda model: INCEPTION,
            (1, 3, 75, 75),
            stages=("Mixed_5b", "Mixed_6a", "Mixed_6b", "Mixed_7a", "Mixed_7b"),
            tracked=False,
            max_bytes=220_000,
            made_by="torchvision.models.Inception3(inception_blocks=...), each width divided by 32",
            note="transform_input; five kinds of block",
        ),
        state_dict_fixture(
            "inception",
            "blocks",
            blocks,
            lambda model: INCEPTION | {"model_type": "inception_v3_blocks"},
            (1, 6, 19, 23),
            stages=tuple(f"Mixed_{letter}" for letter in "abcde"),
            made_by="torchvision.models.inception's InceptionA to InceptionE in a row, then the "
            "mean and a linear layer; each width divided by 32",
            note="maps large enough to tell 1 x 7 from 7 x 1, and 1 x 3 from 3 x 1, in every block",
        ),
    ]
