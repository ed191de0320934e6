"""Llama: Touvron et al., arXiv:2302.13971 and arXiv:2307.09288; Llama 3: arXiv:2407.21783."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from ...structure import Chain, Wrapper
from ..config import Config
from ..family import Checkpoint, Family, Names, Settings, with_prefix
from ..keys import ACTIVATION, CLASSES, EPSILON, FLAG, RATE, SIZE, TOKEN, Key
from ..measures import ENCODER, WORDS, head_size, is_tied
from ..rope import rotary
from ..rotary import RotaryEmbedding
from ..trunk import attention, decoder, encoder, gated_mlp, pre_norm_block, rms_norm, word_embedding


def llama(
    *,
    vocabulary: int,
    width: int,
    depth: int,
    heads: int,
    inner: int,
    kv_heads: int | None = None,
    head_size: int | None = None,
    act: Callable[..., Any] = jax.nn.silu,
    rotary: Callable[..., Any] | None = None,
    eps: float = 1e-6,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    attention_dropout: float = 0.0,
    padding: int | None = None,
    head: str | None = "vocabulary",
    tied: bool = False,
    classes: int = 2,
    head_dropout: float = 0.1,
    key: PRNGKeyArray,
) -> Chain | Wrapper:
    """Llama on one sequence: token ids `(t,)` to scores for the token after each, `(t, vocabulary)`.

    Called as `model(ids, mask=..., positions=...)`, where `mask` `(t,)` is True where a token is no
    padding. `model[:"head"]` is the body, with `(t, width)`.

    **Arguments:**

    - `vocabulary`: the number of tokens.
    - `width`, `depth`, `heads`, `inner`: of a token, the encoder, each attention, each MLP.
    - `kv_heads`: the number of key and value heads, a divisor of `heads`; `heads` if None.
    - `head_size`: of a head; `width // heads` if None.
    - `act`: the activation of the gate in each MLP.
    - `rotary`: how positions turn queries and keys; `RotaryEmbedding()` if None.
    - `eps`: of each RMSNorm.
    - `attention_bias`, `mlp_bias`: whether the linear layers there have a bias.
    - `attention_dropout`: of the probabilities with which a token sees another.
    - `padding`: the id of the padding token, whose embedding is not trained; None if all are.
    - `head`: `"vocabulary"`; `"tokens"` for scores of each token, `(t, classes)`; `"questions"` for
        scores that the answer begins and ends there, `(t, 2)`; or None for `(t, width)`.
    - `tied`: whether the head for the vocabulary shares its matrix with the embeddings.
    - `classes`, `head_dropout`: of the head for tokens, and before it.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: another head, or heads that do not share the width evenly.
    """
    words, last, blocks = jax.random.split(key, 3)
    block = functools.partial(
        llama_block,
        width,
        heads,
        inner,
        act,
        kv_heads=kv_heads,
        head_size=head_size,
        rotary=RotaryEmbedding() if rotary is None else rotary,
        eps=eps,
        attention_bias=attention_bias,
        mlp_bias=mlp_bias,
        attention_dropout=attention_dropout,
    )
    body = {
        "embeddings": Chain(word=word_embedding(vocabulary, width, padding=padding, key=words)),
        "encoder": encoder([block] * depth, key=blocks),
        "norm": rms_norm(width, eps),
    }
    return decoder(
        body,
        head,
        width=width,
        vocabulary=vocabulary,
        tied=tied,
        classes=classes,
        dropout=head_dropout,
        key=last,
    )


def llama_block(
    width: int,
    heads: int,
    inner: int,
    act: Callable[..., Any],
    *,
    kv_heads: int | None = None,
    head_size: int | None = None,
    rotary: Callable[..., Any] | None,
    eps: float,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    attention_dropout: float = 0.0,
    key: PRNGKeyArray,
) -> Chain:
    """One block, `(t, width)` to `(t, width)`, its norms inside the residuals."""
    k1, k2 = jax.random.split(key)
    attend = attention(
        width,
        heads,
        head_size=head_size,
        kv_heads=kv_heads,
        bias=attention_bias,
        causal=True,
        rotary=rotary,
        attention_dropout=attention_dropout,
        key=k1,
    )
    feed = gated_mlp(width, inner, act, bias=mlp_bias, key=k2)
    return pre_norm_block(attend, feed, lambda: rms_norm(width, eps))


_RENAME = {
    ".embeddings.word": "embed_tokens",
    ".encoder.{i}.attention.norm1": "layers.{i}.input_layernorm",
    ".encoder.{i}.attention.query": "layers.{i}.self_attn.q_proj",
    ".encoder.{i}.attention.key": "layers.{i}.self_attn.k_proj",
    ".encoder.{i}.attention.value": "layers.{i}.self_attn.v_proj",
    ".encoder.{i}.attention.op.output": "layers.{i}.self_attn.o_proj",
    ".encoder.{i}.mlp.norm2": "layers.{i}.post_attention_layernorm",
    ".encoder.{i}.mlp.gate": "layers.{i}.mlp.gate_proj",
    ".encoder.{i}.mlp.up": "layers.{i}.mlp.up_proj",
    ".encoder.{i}.mlp.op.down": "layers.{i}.mlp.down_proj",
}
_KEYS = {
    "vocabulary": Key("vocab_size", SIZE),
    "width": Key("hidden_size", SIZE),
    "depth": Key("num_hidden_layers", SIZE, blocks={"encoder.{i}": "layers.{i}"}),
    "heads": Key("num_attention_heads", SIZE),
    "inner": Key("intermediate_size", SIZE),
    "kv_heads": Key("num_key_value_heads", SIZE, None),
    "head_size": Key("head_dim", SIZE, None),
    "act": Key("hidden_act", ACTIVATION, "silu"),
    "eps": Key("rms_norm_eps", EPSILON, 1e-6),
    "attention_bias": Key("attention_bias", FLAG, False),
    "mlp_bias": Key("mlp_bias", FLAG, False),
    "attention_dropout": Key("attention_dropout", RATE, 0.0),
    "padding": Key("pad_token_id", TOKEN, None),
    "tied": Key("tie_word_embeddings", FLAG, False, heads=("vocabulary",)),
    "classes": CLASSES,
    "head_dropout": Key(
        "classifier_dropout", RATE, Key("hidden_dropout", RATE, 0.1), heads=("tokens",)
    ),
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    head = {"tokens": "score", "questions": "qa_outputs"}.get(settings["head"], "lm_head")
    rename = (
        _RENAME | {".head": head} | with_prefix(checkpoint.prefix, "embed_tokens", "layers", "norm")
    )
    # The frequencies that follow from the configuration.
    return Names(rename, ("rotary_emb.inv_freq",))


def _settle(config: Config, settings: Settings) -> Settings:
    width, heads = settings["width"], settings["heads"]
    head_size = settings["head_size"] or width // heads
    if head_size % 2:
        raise config.error("head_dim", f"; a head of {head_size} features has no pairs to turn.")
    return settings | {"rotary": rotary(config, head_size)}


FAMILY = Family(
    build=llama,
    keys=_KEYS,
    heads={
        "LlamaForCausalLM": "vocabulary",
        "LlamaModel": None,
        "LlamaForTokenClassification": "tokens",
        "LlamaForQuestionAnswering": "questions",
    },
    names=_names,
    measures={
        **ENCODER,
        **WORDS,
        "act": lambda model: model.encoder[0].mlp.op.multiply.act,
        "kv_heads": lambda model: model.encoder[0].attention.op.attend.kv_heads,
        "head_size": head_size,
        "padding": lambda model: model.embeddings.word.padding,
        "eps": lambda model: model.norm.eps,
        "tied": is_tied("head.weight"),
    },
    body="embed_tokens|layers|norm",
    prefixes={None: "model.", "questions": "transformer."},
    settle=_settle,
)
