"""Fixtures of GPT-2, made with `transformers`."""

from typing import Any

import torch
from fixtures_common import Fixture, Tensors
from fixtures_hugging_face import call_with, decoder_inputs, hugging_face, rewrite
from transformers import (
    GPT2Config,
    GPT2ForQuestionAnswering,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    GPT2Model,
)


def _gpt2_config(**changes: Any) -> GPT2Config:
    base = {"vocab_size": 67, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32}
    # The published end of text, 50256, is outside of so small a vocabulary.
    ends = {"bos_token_id": 66, "eos_token_id": 66}
    return GPT2Config(**base | ends | changes)


def _causal_buffers() -> Tensors:
    triangle = torch.tril(torch.ones(32, 32))[None, None]
    return {f"h.{i}.attn.bias": triangle.clone() for i in range(2)}


def gpt2() -> list[Fixture]:
    logits = call_with("logits")
    published = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 66,
        "embd_pdrop": 0.1,
        "eos_token_id": 66,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 32,
        "n_embd": 24,
        "n_head": 3,
        "n_layer": 2,
        "n_positions": 32,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 67,
    }
    return [
        hugging_face(
            "base",
            GPT2LMHeadModel,
            _gpt2_config(),
            decoder_inputs(67, mask=True, prompts=True),
            logits,
            seed=1,
            note="tied head, gelu_new, padding mask, gradients, greedy continuations",
            differentiate=("logits",),
        ),
        hugging_face(
            "relu",
            GPT2LMHeadModel,
            _gpt2_config(
                n_embd=32,
                n_head=4,
                n_inner=48,
                n_layer=3,
                activation_function="relu",
                layer_norm_epsilon=1e-3,
            ),
            decoder_inputs(67, mask=False, prompts=True),
            logits,
            seed=1,
            note="tied head, relu, n_inner, another epsilon, greedy continuations",
        ),
        hugging_face(
            "model",
            GPT2Model,
            _gpt2_config(n_head=2, activation_function="gelu"),
            decoder_inputs(67, mask=True, prompts=False),
            call_with("last_hidden_state"),
            note="no head, so no prefix in the names; gelu",
        ),
        hugging_face(
            "untied",
            GPT2LMHeadModel,
            _gpt2_config(tie_word_embeddings=False),
            decoder_inputs(67, mask=True, prompts=True),
            logits,
            note="a head of its own, greedy continuations",
        ),
        hugging_face(
            "inverse_layer_scale",
            GPT2LMHeadModel,
            _gpt2_config(scale_attn_by_inverse_layer_idx=True, n_layer=3),
            decoder_inputs(67, mask=True, prompts=False),
            logits,
            note="scale_attn_by_inverse_layer_idx: to be honoured or refused",
        ),
        hugging_face(
            "tokens",
            GPT2ForTokenClassification,
            _gpt2_config(num_labels=4, n_layer=1),
            decoder_inputs(67, mask=True, prompts=False),
            logits,
            note="token classification: 4 classes for each token",
        ),
        hugging_face(
            "questions",
            GPT2ForQuestionAnswering,
            _gpt2_config(n_layer=1),
            decoder_inputs(67, mask=True, prompts=False),
            call_with("start_logits", "end_logits"),
            note="question answering: two scores for each token",
        ),
        hugging_face(
            "published",
            GPT2LMHeadModel,
            _gpt2_config(),
            decoder_inputs(67, mask=True, prompts=True),
            logits,
            publish=rewrite(
                lambda name: name.removeprefix("transformer."), _causal_buffers, published
            ),
            seed=2,
            note="as gpt2 is published: no prefix, causal masks h.N.attn.bias, an old config.json",
        ),
    ]
