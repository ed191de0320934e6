"""Fixtures of the image families in `transformers`: ViT, ResNet, ConvNeXt."""

from typing import Any

import numpy as np
import torch
from fixtures_common import Fixture, Tensors, image
from fixtures_hugging_face import call_with, hugging_face, rewrite
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)


def pixels(*shape: int):
    return lambda rng: {"pixel_values": image(rng, *shape)}


def _vit_config(**changes: Any) -> ViTConfig:
    return ViTConfig(
        **{
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "image_size": 16,
            "patch_size": 4,
        }
        | changes
    )


def _larger(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "pixel_values": image(rng, 2, 3, 12, 12),
        "larger.pixel_values": image(rng, 1, 3, 16, 24),
    }


def _interpolated(model: torch.nn.Module, inputs: Tensors) -> Tensors:
    """Also an image larger than those the positions were made for."""
    found = call_with("logits")(model, inputs)
    pixel_values = inputs["larger.pixel_values"]
    embeddings = model.vit.embeddings
    found["larger.position_embeddings"] = embeddings.interpolate_pos_encoding(
        torch.cat([embeddings.cls_token, embeddings.patch_embeddings(pixel_values)], 1),
        *pixel_values.shape[2:],
    )
    found["larger.logits"] = model(pixel_values, interpolate_pos_encoding=True).logits
    return found


def vit() -> list[Fixture]:
    model = call_with("last_hidden_state", "pooler_output")
    logits = call_with("logits")
    published = {
        "architectures": ["ViTForImageClassification"],
        "attention_probs_dropout_prob": 0.0,
        "encoder_stride": 16,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 24,
        "id2label": {str(i): f"class {i}" for i in range(5)},
        "image_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 40,
        "label2id": {f"class {i}": i for i in range(5)},
        "layer_norm_eps": 1e-12,
        "model_type": "vit",
        "num_attention_heads": 3,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": 4,
        "qkv_bias": True,
        "transformers_version": "4.13.0.dev0",
    }
    return [
        hugging_face(
            "base",
            ViTModel,
            _vit_config(),
            pixels(2, 3, 16, 16),
            model,
            note="pooler, gelu, gradients",
            differentiate=("last_hidden_state", "pooler_output"),
        ),
        hugging_face(
            "no_pooler",
            ViTModel,
            _vit_config(
                hidden_size=16,
                num_attention_heads=4,
                image_size=32,
                patch_size=8,
                hidden_act="quick_gelu",
                layer_norm_eps=1e-3,
                num_hidden_layers=3,
            ),
            pixels(2, 3, 32, 32),
            call_with("last_hidden_state"),
            arguments={"add_pooling_layer": False},
            note="no pooler, patches of 8, quick_gelu, another epsilon",
        ),
        hugging_face(
            "pooler_relu",
            ViTModel,
            _vit_config(pooler_output_size=10, pooler_act="relu", num_channels=1),
            pixels(2, 1, 16, 16),
            model,
            note="pooler of another width with relu, one channel",
        ),
        hugging_face(
            "oblong",
            ViTForImageClassification,
            _vit_config(
                image_size=[12, 20],
                patch_size=[4, 5],
                qkv_bias=False,
                hidden_act="gelu_new",
                num_labels=7,
            ),
            pixels(2, 3, 12, 20),
            logits,
            note="image 12 x 20, patches 4 x 5, no bias in query, key, value, gelu_new, 7 labels",
        ),
        hugging_face(
            "interpolated",
            ViTForImageClassification,
            _vit_config(image_size=12, num_labels=5, hidden_act="relu", num_attention_heads=2),
            _larger,
            _interpolated,
            note="relu; also an image of 16 x 24, its positions by bicubic interpolation "
            "(PyTorch's, whose coefficient is -0.75)",
        ),
        hugging_face(
            "published",
            ViTForImageClassification,
            _vit_config(num_labels=5),
            pixels(2, 3, 16, 16),
            logits,
            publish=rewrite(config=published),
            note="as vit-base-patch16-224 is published: an old config.json",
        ),
    ]


def _resnet_config(**changes: Any) -> ResNetConfig:
    return ResNetConfig(
        **{
            "embedding_size": 8,
            "hidden_sizes": [8, 12, 16],
            "depths": [2, 1, 2],
            "layer_type": "basic",
            "num_labels": 5,
        }
        | changes
    )


def resnet() -> list[Fixture]:
    logits = call_with("logits")
    small = pixels(2, 3, 32, 32)
    return [
        hugging_face(
            "basic",
            ResNetForImageClassification,
            _resnet_config(depths=[1, 1, 1]),
            small,
            logits,
            note="basic layers, the first without a shortcut convolution; gradients; training mode",
            differentiate=("logits",),
            train=True,
        ),
        hugging_face(
            "training",
            ResNetForImageClassification,
            _resnet_config(depths=[1, 1], hidden_sizes=[8, 12]),
            pixels(4, 3, 16, 16),
            logits,
            note="a step in training mode: loss, gradients, statistics afterwards",
            differentiate=("logits",),
            train=True,
            step=True,
        ),
        hugging_face(
            "bottleneck",
            ResNetForImageClassification,
            _resnet_config(layer_type="bottleneck", hidden_sizes=[16, 24, 32], depths=[2, 1, 1]),
            small,
            logits,
            note="bottleneck layers, the stride in the 3 x 3 convolution; gradients",
            differentiate=("logits",),
        ),
        hugging_face(
            "basic_deep",
            ResNetForImageClassification,
            _resnet_config(hidden_sizes=[8, 8, 12, 12], depths=[2, 2, 1, 1]),
            pixels(2, 3, 40, 36),
            logits,
            note="four stages of which two keep the width, an oblong image",
        ),
        hugging_face(
            "first_stage",
            ResNetForImageClassification,
            _resnet_config(downsample_in_first_stage=True),
            small,
            logits,
            note="downsample_in_first_stage, basic layers",
        ),
        hugging_face(
            "in_bottleneck",
            ResNetForImageClassification,
            _resnet_config(
                layer_type="bottleneck",
                downsample_in_bottleneck=True,
                hidden_sizes=[12, 16, 24],
                hidden_act="gelu",
                num_channels=1,
            ),
            pixels(2, 1, 32, 32),
            logits,
            note="downsample_in_bottleneck, one channel, gelu (which transformers gives to the "
            "stem and the sums only: inside a layer it is relu all the same)",
        ),
        hugging_face(
            "model",
            ResNetModel,
            _resnet_config(layer_type="bottleneck", hidden_sizes=[16, 24], depths=[1, 2]),
            small,
            call_with("last_hidden_state", "pooler_output"),
            note="no head, so no prefix in the names",
        ),
    ]


def _convnext_config(**changes: Any) -> ConvNextConfig:
    return ConvNextConfig(
        **{"num_stages": 4, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]} | changes
    )


def convnext() -> list[Fixture]:
    return [
        hugging_face(
            "base",
            ConvNextForImageClassification,
            _convnext_config(num_labels=5, depths=[1, 1, 1, 1]),
            pixels(2, 3, 32, 32),
            call_with("logits"),
            note="gelu; gradients",
            differentiate=("logits",),
        ),
        hugging_face(
            "no_scale",
            ConvNextForImageClassification,
            _convnext_config(
                num_stages=2,
                hidden_sizes=[12, 16],
                depths=[2, 1],
                patch_size=2,
                hidden_act="gelu_new",
                layer_scale_init_value=0.0,
                num_labels=3,
                num_channels=1,
                layer_norm_eps=1e-3,
            ),
            pixels(2, 1, 16, 20),
            call_with("logits"),
            note="no layer scale, two stages, patches of 2, gelu_new, one channel, another epsilon",
        ),
        hugging_face(
            "model",
            ConvNextModel,
            _convnext_config(
                hidden_act="relu", num_stages=3, hidden_sizes=[8, 8, 12], depths=[1, 2, 2]
            ),
            pixels(2, 3, 32, 32),
            call_with("last_hidden_state", "pooler_output"),
            note="no head, so no prefix in the names; relu; two stages of one width",
        ),
    ]
