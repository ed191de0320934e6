"""Fixtures of BERT, made with `transformers`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixtures_common import Fixture, ids, right_padding
from fixtures_hugging_face import call_with, hugging_face, rewrite
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)


def _bert(vocabulary: int, types: int = 2) -> Callable[[np.random.Generator], dict]:
    def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
        mask = right_padding(2, 9, 9, 6)
        segments = np.array([[0] * 4 + [1] * 5, [0] * 3 + [1] * 3 + [0] * 3], np.int32)
        return {
            "input_ids": ids(rng, vocabulary, 2, 9) * mask,
            "attention_mask": mask,
            "token_type_ids": segments % types,
        }

    return inputs


def _gamma_and_beta(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )


def _bert_config(**changes: Any) -> BertConfig:
    return BertConfig(
        **{
            "vocab_size": 61,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
        }
        | changes
    )


def _save_bin(model: torch.nn.Module, directory: Path) -> None:
    model.config.save_pretrained(directory)
    torch.save(model.state_dict(), directory / "pytorch_model.bin")


def _save_sharded(model: torch.nn.Module, directory: Path) -> None:
    model.save_pretrained(directory, max_shard_size="25KB")


def bert() -> list[Fixture]:
    model = call_with("last_hidden_state", "pooler_output")
    without = call_with("last_hidden_state")
    logits = call_with("logits")
    published = {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 40,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 16,
        "model_type": "bert",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "transformers_version": "4.6.0.dev0",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": 61,
    }
    return [
        hugging_face(
            "base",
            BertModel,
            _bert_config(),
            _bert(61),
            model,
            note="pooler, gelu, padding mask, token types, gradients",
            differentiate=("last_hidden_state", "pooler_output"),
        ),
        hugging_face(
            "no_pooler",
            BertModel,
            _bert_config(
                hidden_size=32,
                num_attention_heads=4,
                num_hidden_layers=3,
                hidden_act="gelu_new",
                layer_norm_eps=1e-3,
                type_vocab_size=1,
            ),
            lambda rng: {"input_ids": ids(rng, 61, 3, 7)},
            without,
            arguments={"add_pooling_layer": False},
            note="no pooler, gelu_new, one token type, another epsilon, ids only",
        ),
        hugging_face(
            "masked_lm",
            BertForMaskedLM,
            _bert_config(hidden_size=20, num_attention_heads=5, hidden_act="relu"),
            _bert(61),
            logits,
            note="masked LM, head tied to the embedding, relu",
            differentiate=("logits",),
        ),
        hugging_face(
            "masked_lm_untied",
            BertForMaskedLM,
            _bert_config(hidden_act="silu", num_attention_heads=2, tie_word_embeddings=False),
            _bert(61),
            logits,
            note="masked LM, head not tied, silu; the bias is cls.predictions.decoder.bias, and "
            "cls.predictions.bias counts for nothing",
        ),
        hugging_face(
            "classification",
            BertForSequenceClassification,
            _bert_config(num_labels=5, num_attention_heads=6, intermediate_size=24),
            _bert(61),
            logits,
            note="sequence classification, 5 labels",
        ),
        hugging_face(
            "padding",
            BertForSequenceClassification,
            _bert_config(num_labels=3, pad_token_id=5),
            lambda rng: {
                "input_ids": np.where(rng.random((3, 9)) < 0.3, np.int32(5), ids(rng, 61, 3, 9))
            },
            logits,
            note="the padding token 5 stands in the text and is seen, but its embedding has no gradient",
            differentiate=("logits",),
        ),
        hugging_face(
            "published",
            BertForPreTraining,
            _bert_config(),
            _bert(61),
            call_with("prediction_logits", "seq_relationship_logits"),
            publish=rewrite(_gamma_and_beta, config=published),
            note="as bert-base-uncased is published: LayerNorm.gamma and .beta, both pretraining "
            "heads, an old config.json whose architectures name only one of them",
        ),
        hugging_face(
            "minilm_like",
            BertModel,
            _bert_config(),
            _bert(61),
            model,
            publish=rewrite(
                extra=lambda: {"embeddings.position_ids": torch.arange(16)[None]},
                config=published | {"architectures": ["BertModel"]},
            ),
            note="as all-MiniLM-L6-v2 is published: an int64 buffer embeddings.position_ids",
        ),
        hugging_face(
            "torch_bin",
            BertModel,
            _bert_config(num_hidden_layers=1),
            _bert(61),
            model,
            save=_save_bin,
            note="pytorch_model.bin, a state_dict written by torch.save",
        ),
        hugging_face(
            "tokens",
            BertForTokenClassification,
            _bert_config(num_labels=5, classifier_dropout=0.3),
            _bert(61),
            logits,
            note="token classification: no pooler, 5 classes for each token",
        ),
        hugging_face(
            "questions",
            BertForQuestionAnswering,
            _bert_config(),
            _bert(61),
            call_with("start_logits", "end_logits"),
            note="question answering: no pooler, two scores for each token",
        ),
        hugging_face(
            "sharded",
            BertModel,
            _bert_config(),
            _bert(61),
            model,
            save=_save_sharded,
            note="two shards with model.safetensors.index.json",
        ),
    ]
