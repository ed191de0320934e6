"""Fixtures of Llama, made with `transformers`."""

from typing import Any

import numpy as np
import torch
from fixtures_common import Fixture, Tensors, ids
from fixtures_hugging_face import call_with, decoder_inputs, hugging_face, rewrite
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForTokenClassification,
)


def _llama_config(**changes: Any) -> LlamaConfig:
    return LlamaConfig(
        **{
            "vocab_size": 67,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 40,
            "max_position_embeddings": 64,
        }
        | changes
    )


def _rope(theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_theta": theta, "rope_type": "default"} | more


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "beta_fast": 4.0,
    "beta_slow": 0.5,
    "original_max_position_embeddings": 32,
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2],
    "long_factor": [1.5, 2.5, 4.0],
    "original_max_position_embeddings": 8,
}


def _old_llama_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 40,
        "max_position_embeddings": 64,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.31.0",
        "use_cache": True,
        "vocab_size": 67,
    } | changes


def _inverse_frequencies() -> Tensors:
    values = 1.0 / (10000.0 ** (torch.arange(0, 6, 2).float() / 6))
    return {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": values.clone() for i in range(2)}


def llama() -> list[Fixture]:
    logits = call_with("logits")
    both = decoder_inputs(67, mask=True, prompts=True)
    plain = decoder_inputs(67, mask=False, prompts=True)
    return [
        hugging_face(
            "gqa",
            LlamaForCausalLM,
            _llama_config(),
            both,
            logits,
            note="4 heads share 2 keys, untied head, padding mask, gradients, greedy continuations",
            differentiate=("logits",),
        ),
        hugging_face(
            "padding",
            LlamaForCausalLM,
            _llama_config(pad_token_id=5, num_hidden_layers=1),
            lambda rng: {
                "input_ids": np.where(rng.random((3, 9)) < 0.3, np.int32(5), ids(rng, 61, 3, 9))
            },
            logits,
            note="the padding token 5 stands in the text and is seen, but its embedding has no gradient",
            differentiate=("logits",),
        ),
        hugging_face(
            "tied",
            LlamaForCausalLM,
            _llama_config(
                num_key_value_heads=1,
                tie_word_embeddings=True,
                rope_parameters=_rope(500.0),
                rms_norm_eps=1e-3,
                num_hidden_layers=3,
            ),
            plain,
            logits,
            seed=137,
            note="4 heads share 1 key, tied head, rope_theta 500, another epsilon",
        ),
        hugging_face(
            "head_dim",
            LlamaForCausalLM,
            _llama_config(
                head_dim=12, attention_bias=True, mlp_bias=True, hidden_act="gelu_pytorch_tanh"
            ),
            both,
            logits,
            seed=33,
            note="head_dim 12 where hidden_size / heads is 6, biases, gelu_pytorch_tanh",
        ),
        hugging_face(
            "llama3_rope",
            LlamaForCausalLM,
            _llama_config(head_dim=16, rope_parameters=_rope(10000.0) | LLAMA3),
            plain,
            logits,
            seed=3,
            note="rope_type llama3; its 8 frequencies lie in all three of its ranges",
        ),
        hugging_face(
            "linear_rope",
            LlamaForCausalLM,
            _llama_config(rope_parameters=_rope(10000.0, rope_type="linear", factor=4.0)),
            plain,
            logits,
            seed=34,
            note="rope_type linear: to be honoured or refused",
        ),
        hugging_face(
            "dynamic_rope",
            LlamaForCausalLM,
            _llama_config(
                num_hidden_layers=1,
                max_position_embeddings=6,
                rope_parameters=_rope(1000.0, rope_type="dynamic", factor=4.0),
            ),
            decoder_inputs(67, mask=False, prompts=False),
            logits,
            note="rope_type dynamic: the 9 tokens are more than the 6 positions",
        ),
        hugging_face(
            "yarn_rope",
            LlamaForCausalLM,
            _llama_config(num_hidden_layers=1, head_dim=16, rope_parameters=_rope(1000.0) | YARN),
            decoder_inputs(67, mask=False, prompts=False),
            logits,
            note="rope_type yarn: of its 8 frequencies some are kept, some divided, some between",
        ),
        hugging_face(
            "longrope",
            LlamaForCausalLM,
            _llama_config(num_hidden_layers=1, rope_parameters=_rope(10000.0) | LONGROPE),
            decoder_inputs(67, mask=False, prompts=False),
            logits,
            note="rope_type longrope: the 9 tokens are more than the 8 positions of training",
        ),
        hugging_face(
            "tokens",
            LlamaForTokenClassification,
            _llama_config(num_hidden_layers=1, num_labels=4),
            decoder_inputs(67, mask=True, prompts=False),
            logits,
            note="token classification: 4 classes for each token",
        ),
        hugging_face(
            "questions",
            LlamaForQuestionAnswering,
            _llama_config(num_hidden_layers=1),
            decoder_inputs(67, mask=True, prompts=False),
            call_with("start_logits", "end_logits"),
            note="question answering: two scores for each token; another prefix than the other classes",
        ),
        hugging_face(
            "published_2",
            LlamaForCausalLM,
            _llama_config(num_key_value_heads=4),
            both,
            logits,
            publish=rewrite(extra=_inverse_frequencies, config=_old_llama_config()),
            seed=2,
            note="as Llama 1 and 2 are published: no rope_theta and no num_key_value_heads in "
            "config.json, buffers rotary_emb.inv_freq",
        ),
        hugging_face(
            "published_3",
            LlamaForCausalLM,
            _llama_config(
                head_dim=16, tie_word_embeddings=True, rope_parameters=_rope(5000.0) | LLAMA3
            ),
            both,
            logits,
            publish=rewrite(
                config=_old_llama_config(
                    attention_bias=False,
                    head_dim=16,
                    mlp_bias=False,
                    num_key_value_heads=2,
                    pretraining_tp=1,
                    rope_scaling=LLAMA3,
                    rope_theta=5000.0,
                    tie_word_embeddings=True,
                )
            ),
            seed=209,
            note="as Llama 3.2 is published: rope_theta and rope_scaling at the top of config.json",
        ),
    ]
