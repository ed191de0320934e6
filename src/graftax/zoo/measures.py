"""What a model has in place of the arguments of its constructor: for writing its configuration."""

from collections.abc import Callable, Mapping
from typing import Any

Measures = Mapping[str, Callable[[Any], Any]]
"""From arguments to functions of the model."""


def _attend(model: Any) -> Any:
    return model.encoder[0].attention.op.attend


def _attention_dropout(model: Any) -> float:
    dropout = _attend(model).drop
    return 0.0 if dropout is None else dropout.p


def head_size(model: Any) -> int:
    """The features of each head of a transformer."""
    return model.encoder[0].attention.query.out_features // _attend(model).heads


def outputs(model: Any) -> int:
    """How many scores the head of a model gives."""
    return model.head.weight.shape[0]


def is_tied(path: str) -> Callable[[Any], bool]:
    """Whether the weights at a path are those of the word embeddings."""

    def measure(model: Any) -> bool:
        node = model
        for label in path.split("."):
            node = getattr(node, label)
        return node is model.embeddings.word.weight

    return measure


def stages(model: Any) -> list[Any]:
    """The stages of a convolutional network."""
    return [model[label] for label in model.labels if label.startswith("stage")]


ENCODER: Measures = {
    "depth": lambda model: len(model.encoder),
    "heads": lambda model: _attend(model).heads,
    "inner": lambda model: model.encoder[0].mlp.up.out_features,
    "act": lambda model: model.encoder[0].mlp.act,
    "dropout": lambda model: model.encoder[0].mlp.dropout.p,
    "attention_dropout": _attention_dropout,
    "classes": outputs,
}
"""Of all transformers."""

WORDS: Measures = {
    "vocabulary": lambda model: model.embeddings.word.weight.shape[0],
    "width": lambda model: model.embeddings.word.weight.shape[1],
    "head_dropout": lambda model: model.dropout.p,
}
"""Of language models besides."""
