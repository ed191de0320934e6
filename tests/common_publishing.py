"""Edits of published models that a configuration can express: the fixture, the edit, what it then says."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

import graftax as gx
from common_zoo import fixture

_KEY = jax.random.key(0)


_HEADS = {
    "encoder.*.attention.{query,key,value}": "out",
    "encoder.*.attention.op.attend": "heads",
    "encoder.*.attention.op.output": "in",
}


def pruned(model: Any, groups: int) -> Any:
    """A transformer with the first of so many groups of heads alone, in every block."""
    return gx.take(model, _HEADS, gx.blocks([0], of=groups))


def _more_words(model: Any) -> Any:
    both = gx.select(model, ["embeddings.word", "head"], (eqx.nn.Embedding, eqx.nn.Linear))
    return both.apply(lambda layer, key: gx.expand_vocabulary(layer, 80, key=key), key=_KEY)


def _merged(model: Any) -> Any:
    lora = gx.select(model, "{query,value}", eqx.nn.Linear).apply(
        lambda layer, key: gx.LoRA(layer, rank=2, key=key), key=_KEY
    )
    return gx.merge_lora(gx.select(lora, "lora_b").apply(lambda b: b + 0.1))


def _classes(model: Any, count: int) -> Any:
    width = model.head.in_features
    return gx.select(model, ".head", eqx.nn.Linear).set(eqx.nn.Linear(width, count, key=_KEY))


def _labels(count: int) -> dict[str, Any]:
    names = [f"LABEL_{i}" for i in range(count)]
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


EDITS: dict[str, tuple[str, Callable[[Any], Any], dict[str, Any]]] = {
    "fewer blocks in BERT": (
        "bert/base",
        lambda m: gx.select(m, "encoder[:1]").remove(),
        {"num_hidden_layers": 1, "architectures": ["BertModel"]},
    ),
    "fewer blocks in GPT-2": (
        "gpt2/base",
        lambda m: gx.select(m, "encoder[1:]").remove(),
        {"n_layer": 1},
    ),
    "fewer blocks in Llama": (
        "llama/tied",
        lambda m: gx.select(m, "encoder[1:]").remove(),
        {"num_hidden_layers": 1},
    ),
    "fewer blocks in ViT": (
        "vit/base",
        lambda m: gx.select(m, "encoder[:1]").remove(),
        {"num_hidden_layers": 1},
    ),
    "fewer blocks in ResNet": (
        "resnet/basic_deep",
        lambda m: gx.select(m, "stage1[1:]").remove(),
        {"depths": [1, 2, 1, 1]},
    ),
    "more tokens": (
        "gpt2/untied",
        _more_words,
        {"vocab_size": 80, "tie_word_embeddings": False},
    ),
    "more tokens that are tied": (
        "gpt2/base",
        _more_words,
        {"vocab_size": 80, "tie_word_embeddings": True},
    ),
    "other classes": ("bert/classification", lambda m: _classes(m, 3), _labels(3)),
    "other classes of images": ("resnet/basic", lambda m: _classes(m, 2), _labels(2)),
    "other classes for tokens": ("gpt2/tokens", lambda m: _classes(m, 7), _labels(7)),
    "fewer heads": (
        "llama/gqa",
        lambda m: pruned(m, groups=2),
        {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6},
    ),
    "merged LoRA": ("bert/base", _merged, {"architectures": ["BertModel"]}),
    "another activation": (
        "gpt2/base",
        lambda m: gx.select(m, "act").set(jax.nn.relu),
        {"activation_function": "relu"},
    ),
    "another epsilon": (
        "llama/gqa",
        lambda m: gx.select(m, eqx.nn.RMSNorm).update(eps=1e-3),
        {"rms_norm_eps": 1e-3},
    ),
    "no head": (
        "gpt2/base",
        lambda m: m[:"head"],
        {"architectures": ["GPT2Model"]},
    ),
    "no classifier": (
        "bert/classification",
        lambda m: m[:"dropout"],
        {"architectures": ["BertModel"]},
    ),
    "a classifier on a body": (
        "bert/base",
        lambda m: gx.Chain(
            **dict(m.items()),
            dropout=eqx.nn.Dropout(0.1, inference=True),
            head=eqx.nn.Linear(24, 3, key=_KEY),
        ),
        {"architectures": ["BertForSequenceClassification"], **_labels(3)},
    ),
    "a head for tokens on a body": (
        "gpt2/model",
        lambda m: gx.Chain(
            **dict(m.items()),
            dropout=eqx.nn.Dropout(0.1, inference=True),
            head=gx.Vmap(eqx.nn.Linear(24, 3, key=_KEY)),
        ),
        {"architectures": ["GPT2ForTokenClassification"], **_labels(3)},
    ),
    "no tie": (
        "gpt2/base",
        lambda m: gx.select(m, "head.weight").apply(lambda w: 2 * w),
        {"tie_word_embeddings": False},
    ),
    "no tie in BERT": (
        "bert/masked_lm",
        lambda m: gx.select(m, "head.vocabulary.weight").apply(lambda w: 2 * w),
        {"tie_word_embeddings": False},
    ),
    "larger images": (
        "vit/base",
        lambda m: gx.select(
            gx.select(m, "embeddings.position.weight").apply(
                lambda w: gx.resize_positions(w, (6, 6), prefix=1)
            ),
            "embeddings",
        ).update(image=(24, 24)),
        {"image_size": 24},
    ),
    "half the channels of an MLP": (
        "bert/base",
        lambda m: gx.select(
            gx.select(m, "up", eqx.nn.Linear).apply(
                lambda up: gx.update(up, weight=up.weight[:20], bias=up.bias[:20], out_features=20)
            ),
            "down",
            eqx.nn.Linear,
        ).apply(lambda down: gx.update(down, weight=down.weight[:, :20], in_features=20)),
        {"intermediate_size": 20},
    ),
}


def edited(edit: str) -> tuple[str, Any, dict[str, Any]]:
    """(the fixture, the edited model, what its configuration has to say)."""
    name, change, expected = EDITS[edit]
    return name, change(fixture(name).model), expected


def inputs(name: str, seed: int = 7) -> np.ndarray:
    """Inputs that no fixture has."""
    generator = np.random.default_rng(seed)
    images = fixture(name).io.get("input.pixel_values")
    if images is None:
        return generator.integers(1, 60, (2, 8))
    return generator.normal(size=(2, *images.shape[1:])).astype(np.float32)
