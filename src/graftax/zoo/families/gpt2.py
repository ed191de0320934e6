"""GPT-2: Radford et al., Language Models are Unsupervised Multitask Learners, 2019."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...files import Layout
from ...structure import Chain, Parallel, Wrapper
from ..embeddings import PositionEmbedding
from ..family import Checkpoint, Family, Names, Settings, with_prefix
from ..keys import ACTIVATION, CLASSES, EPSILON, FLAG, RATE, SIZE, Key, flag_as, one_of
from ..measures import ENCODER, WORDS, is_tied
from ..trunk import (
    attention,
    decoder,
    encoder,
    layer_norm,
    mlp,
    pre_norm_block,
    word_embedding,
)


def gpt2(
    *,
    vocabulary: int,
    width: int,
    depth: int,
    heads: int,
    inner: int | None = None,
    act: Callable[..., Any] = jax.nn.gelu,
    positions: int = 1024,
    eps: float = 1e-5,
    dropout: float = 0.1,
    embedding_dropout: float = 0.1,
    attention_dropout: float = 0.1,
    scale: float | None = None,
    scale_by_depth: bool = False,
    head: str | None = "vocabulary",
    tied: bool = True,
    classes: int = 2,
    head_dropout: float = 0.1,
    key: PRNGKeyArray,
) -> Chain | Wrapper:
    """GPT-2 on one sequence: token ids `(t,)` to scores for the token after each, `(t, vocabulary)`.

    Called as `model(ids, mask=..., positions=..., key=...)`, where `mask` `(t,)` is True where a token
    is no padding. `model[:"head"]` is the body, with `(t, width)`.

    **Arguments:**

    - `vocabulary`, `positions`: the sizes of the two embeddings.
    - `width`, `depth`, `heads`, `inner`: of a token, the encoder, each attention, each MLP; `inner` is
        `4 * width` if None.
    - `act`: the activation in each MLP.
    - `eps`: of each LayerNorm.
    - `dropout`, `embedding_dropout`: before each residual, and after the embeddings.
    - `attention_dropout`: of the probabilities with which a token sees another.
    - `scale`: what the scores of attention are multiplied with; 1 / sqrt(head size) if None.
    - `scale_by_depth`: whether these scores are divided by 1, 2, ... from block to block besides.
    - `head`: `"vocabulary"`; `"tokens"` for scores of each token, `(t, classes)`; `"questions"` for
        scores that the answer begins and ends there, `(t, 2)`; or None for `(t, width)`.
    - `tied`: whether the head for the vocabulary shares its matrix with the embeddings.
    - `classes`, `head_dropout`: of the head for tokens, and before it.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: another head, or heads that do not share the width evenly.
    """
    inner = 4 * width if inner is None else inner
    words, places, last, blocks = jax.random.split(key, 4)
    block = functools.partial(
        gpt2_block,
        width,
        heads,
        inner,
        act,
        eps=eps,
        dropout=dropout,
        attention_dropout=attention_dropout,
    )
    scales = _scales(scale, width // heads, depth) if scale_by_depth else [scale] * depth
    body = {
        "embeddings": Parallel(
            word=word_embedding(vocabulary, width, key=words),
            position=PositionEmbedding(positions, width, key=places),
            op=Chain(add=sum, dropout=eqx.nn.Dropout(embedding_dropout)),
        ),
        "encoder": encoder([functools.partial(block, scale=each) for each in scales], key=blocks),
        "norm": layer_norm(width, eps),
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


def _scales(scale: float | None, head_size: int, depth: int) -> list[float]:
    base = head_size**-0.5 if scale is None else scale
    return [base / (i + 1) for i in range(depth)]


def gpt2_block(
    width: int,
    heads: int,
    inner: int,
    act: Callable[..., Any],
    *,
    eps: float,
    dropout: float,
    attention_dropout: float = 0.0,
    scale: float | None = None,
    key: PRNGKeyArray,
) -> Chain:
    """One block, `(t, width)` to `(t, width)`, its norms inside the residuals."""
    k1, k2 = jax.random.split(key)
    attend = attention(
        width,
        heads,
        causal=True,
        scale=scale,
        dropout=dropout,
        attention_dropout=attention_dropout,
        key=k1,
    )
    return pre_norm_block(
        attend,
        mlp(width, inner, act, dropout=dropout, key=k2),
        lambda: layer_norm(width, eps),
    )


def _conv1d(name: str, part: int = 0, of: int = 1) -> Layout:
    # OpenAI's layers hold their matrices as (in, out).
    return Layout(name, transpose=True, part=part, of=of)


_RENAME = {
    ".embeddings.word": "wte",
    ".embeddings.position": "wpe",
    ".encoder.{i}.attention.norm1": "h.{i}.ln_1",
    ".encoder.{i}.attention.query": _conv1d("h.{i}.attn.c_attn", 0, 3),
    ".encoder.{i}.attention.key": _conv1d("h.{i}.attn.c_attn", 1, 3),
    ".encoder.{i}.attention.value": _conv1d("h.{i}.attn.c_attn", 2, 3),
    ".encoder.{i}.attention.op.output": _conv1d("h.{i}.attn.c_proj"),
    ".encoder.{i}.mlp.norm2": "h.{i}.ln_2",
    ".encoder.{i}.mlp.up": _conv1d("h.{i}.mlp.c_fc"),
    ".encoder.{i}.mlp.down": _conv1d("h.{i}.mlp.c_proj"),
    ".norm": "ln_f",
}
_KEYS = {
    "vocabulary": Key("vocab_size", SIZE),
    "width": Key("n_embd", SIZE),
    "depth": Key("n_layer", SIZE, blocks={"encoder.{i}": "h.{i}"}),
    "heads": Key("n_head", SIZE),
    "inner": Key("n_inner", SIZE, None),
    "act": Key("activation_function", ACTIVATION, "gelu_new"),
    "positions": Key("n_positions", SIZE, 1024),
    "eps": Key("layer_norm_epsilon", EPSILON, 1e-5),
    "dropout": Key("resid_pdrop", RATE, 0.1),
    "embedding_dropout": Key("embd_pdrop", RATE, 0.1),
    "attention_dropout": Key("attn_pdrop", RATE, 0.1),
    "scale": Key("scale_attn_weights", flag_as(None, 1.0), True),
    "scale_by_depth": Key("scale_attn_by_inverse_layer_idx", FLAG, False),
    "tied": Key("tie_word_embeddings", FLAG, True, heads=("vocabulary",)),
    "classes": CLASSES,
    "head_dropout": Key(
        "classifier_dropout", RATE, Key("hidden_dropout", RATE, 0.1), heads=("tokens",)
    ),
}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    head = {"tokens": "classifier", "questions": "qa_outputs"}.get(settings["head"], "lm_head")
    rename = _RENAME | {".head": head} | with_prefix(checkpoint.prefix, "wte", "wpe", "h", "ln_f")
    # Buffers: the causal mask, and what it puts in place of a score.
    return Names(rename, ("h.{i}.attn.bias", "h.{i}.attn.masked_bias"))


FAMILY = Family(
    build=gpt2,
    keys=_KEYS,
    heads={
        "GPT2LMHeadModel": "vocabulary",
        "GPT2Model": None,
        "GPT2ForTokenClassification": "tokens",
        "GPT2ForQuestionAnswering": "questions",
    },
    names=_names,
    measures={
        **ENCODER,
        **WORDS,
        "positions": lambda model: model.embeddings.position.weight.shape[0],
        "embedding_dropout": lambda model: model.embeddings.op.dropout.p,
        "eps": lambda model: model.norm.eps,
        "tied": is_tied("head.weight"),
    },
    body="wte|wpe|h|ln_f",
    prefixes={None: "transformer."},
    fixed=(Key("add_cross_attention", one_of(False), False),),
    # It only says in which precision scores are computed, and ours is float32 always.
    unused=("reorder_and_upcast_attn",),
)
