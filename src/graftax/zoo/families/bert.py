"""BERT: Devlin et al., arXiv:1810.04805. MiniLM and its like are the same model, smaller."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...structure import Chain, Parallel, Vmap, Wrapper
from ..embeddings import PositionEmbedding, TokenTypeEmbedding
from ..family import Checkpoint, Family, Names, Settings, with_prefix
from ..keys import ACTIVATION, CLASSES, EPSILON, FLAG, RATE, SIZE, TOKEN, Key, one_of
from ..layers import Take
from ..measures import ENCODER, WORDS, is_tied
from ..trunk import (
    attention,
    encoder,
    layer_norm,
    mlp,
    post_norm_block,
    tied_to_words,
    token_head,
    word_embedding,
)


def bert(
    *,
    vocabulary: int,
    width: int,
    depth: int,
    heads: int,
    inner: int,
    act: Callable[..., Any],
    positions: int = 512,
    types: int = 2,
    eps: float = 1e-12,
    dropout: float = 0.1,
    attention_dropout: float | None = None,
    padding: int | None = 0,
    head: str | None = "pooler",
    classes: int = 2,
    head_dropout: float | None = None,
    tied: bool = True,
    key: PRNGKeyArray,
) -> Chain | Wrapper:
    """BERT on one sequence: token ids `(t,)` to what the head gives.

    Called as `model(ids, mask=..., token_types=..., key=...)`, with `mask` `(t,)`, True where a token
    is no padding. `model[:"pooler"]` or `model[:"head"]` is the body, with `(t, width)`.

    **Arguments:**

    - `vocabulary`, `positions`, `types`: the sizes of the three embeddings.
    - `width`, `depth`, `heads`, `inner`: of a token, the encoder, each attention, each MLP.
    - `act`: the activation in each MLP.
    - `eps`: of each LayerNorm.
    - `dropout`: after the embeddings and before each residual.
    - `attention_dropout`: of the probabilities with which a token sees another; as `dropout` if None.
    - `padding`: the id of the padding token, whose embedding is not trained; None if all are.
    - `head`: None for `(t, width)`; `"pooler"` for `(width,)`; `"classifier"` for `(classes,)`;
        `"vocabulary"` for masked-token scores `(t, vocabulary)`; `"tokens"` for scores of each token,
        `(t, classes)`; `"questions"` for scores that the answer begins and ends there, `(t, 2)`.
    - `classes`, `head_dropout`: of a classifier, and before it; as `dropout` if None.
    - `tied`: whether masked-token scores share their matrix with the embeddings.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: another head, or heads that do not share the width evenly.
    """
    words, places, kinds, blocks, last = jax.random.split(key, 5)
    block = functools.partial(
        bert_block,
        width,
        heads,
        inner,
        act,
        eps=eps,
        dropout=dropout,
        attention_dropout=dropout if attention_dropout is None else attention_dropout,
    )
    parts: dict[str, Callable[..., Any]] = {
        "embeddings": Parallel(
            word=word_embedding(vocabulary, width, padding=padding, key=words),
            position=PositionEmbedding(positions, width, key=places),
            token_type=TokenTypeEmbedding(types, width, key=kinds),
            op=Chain(add=sum, norm=layer_norm(width, eps), dropout=eqx.nn.Dropout(dropout)),
        ),
        "encoder": encoder([block] * depth, key=blocks),
    }
    if head is None:
        return Chain(parts)
    k1, k2 = jax.random.split(last)
    head_dropout = dropout if head_dropout is None else head_dropout
    if head == "vocabulary":
        scores = _vocabulary_head(width, vocabulary, act, eps, key=k1)
        return tied_to_words(Chain({**parts, "head": scores}), "head.vocabulary.weight", tied)
    if head not in ("pooler", "classifier"):
        own = token_head(head, width, classes=classes, dropout=head_dropout, key=k2)
        return Chain({**parts, **own})
    parts["pooler"] = Chain(
        first=Take(0), dense=eqx.nn.Linear(width, width, key=k1), act=jax.numpy.tanh
    )
    if head == "classifier":
        parts["dropout"] = eqx.nn.Dropout(head_dropout)
        parts["head"] = eqx.nn.Linear(width, classes, key=k2)
    return Chain(parts)


def bert_block(
    width: int,
    heads: int,
    inner: int,
    act: Callable[..., Any],
    *,
    eps: float,
    dropout: float,
    attention_dropout: float = 0.0,
    key: PRNGKeyArray,
) -> Chain:
    """One block, `(t, width)` to `(t, width)`, its norms after the residuals."""
    k1, k2 = jax.random.split(key)
    return post_norm_block(
        attention(width, heads, dropout=dropout, attention_dropout=attention_dropout, key=k1),
        mlp(width, inner, act, dropout=dropout, key=k2),
        lambda: layer_norm(width, eps),
    )


def _vocabulary_head(
    width: int, vocabulary: int, act: Callable[..., Any], eps: float, *, key: PRNGKeyArray
) -> Chain:
    k1, k2 = jax.random.split(key)
    return Chain(
        dense=Vmap(eqx.nn.Linear(width, width, key=k1)),
        act=act,
        norm=layer_norm(width, eps),
        vocabulary=Vmap(eqx.nn.Linear(width, vocabulary, key=k2)),
    )


_DROPOUT = Key("hidden_dropout_prob", RATE, 0.1)
_KEYS = {
    "vocabulary": Key("vocab_size", SIZE),
    "width": Key("hidden_size", SIZE),
    "depth": Key("num_hidden_layers", SIZE, blocks={"encoder.{i}": "encoder.layer.{i}"}),
    "heads": Key("num_attention_heads", SIZE),
    "inner": Key("intermediate_size", SIZE),
    "act": Key("hidden_act", ACTIVATION, "gelu"),
    "positions": Key("max_position_embeddings", SIZE, 512),
    "types": Key("type_vocab_size", SIZE, 2),
    "eps": Key("layer_norm_eps", EPSILON, 1e-12),
    "dropout": _DROPOUT,
    "attention_dropout": Key("attention_probs_dropout_prob", RATE, 0.1),
    "padding": Key("pad_token_id", TOKEN, 0),
    "head_dropout": Key("classifier_dropout", RATE, _DROPOUT, heads=("classifier", "tokens")),
    "tied": Key("tie_word_embeddings", FLAG, True, heads=("vocabulary",)),
    "classes": CLASSES,
}
_RENAME = {
    "embeddings.op.norm": "embeddings.LayerNorm",
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "encoder.{i}.attention.op.output": "encoder.layer.{i}.attention.output.dense",
    "encoder.{i}.attention.{p}": "encoder.layer.{i}.attention.self.{p}",
    "encoder.{i}.norm1": "encoder.layer.{i}.attention.output.LayerNorm",
    "encoder.{i}.mlp.up": "encoder.layer.{i}.intermediate.dense",
    "encoder.{i}.mlp.down": "encoder.layer.{i}.output.dense",
    "encoder.{i}.norm2": "encoder.layer.{i}.output.LayerNorm",
}
_HEAD = {
    ".head.dense": "cls.predictions.transform.dense",
    ".head.norm": "cls.predictions.transform.LayerNorm",
    ".head.vocabulary": "cls.predictions.decoder",
}
_DECODER_BIAS = "cls.predictions.decoder.bias"
# The first checkpoints were converted from TensorFlow, which calls them so.
_OLD_NORMS = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def _names(settings: Settings, checkpoint: Checkpoint) -> Names:
    head = settings["head"]
    rename = _RENAME | with_prefix(checkpoint.prefix, "embeddings", "encoder", "pooler")
    # Where the decoder's own bias was saved, it is the one that counts; a tied decoder has none.
    is_own = not settings["tied"] if checkpoint.is_new else _DECODER_BIAS in checkpoint.names
    if not is_own:
        rename[".head.vocabulary.bias"] = "cls.predictions.bias"
    rename |= _HEAD | {".head": "qa_outputs" if head == "questions" else "classifier"}
    if not checkpoint.is_new and any(name.endswith(".gamma") for name in checkpoint.names):
        rename |= _OLD_NORMS
    # A buffer, a second copy of a bias, and the head that only pretraining needs.
    ignore = ("embeddings.position_ids", "cls.predictions.bias", "cls.seq_relationship.{p}")
    is_pooled = head in ("pooler", "classifier")
    return Names(rename, ignore if is_pooled else (*ignore, "pooler.dense.{p}"))


# Of the first implementation, in TensorFlow, whose pooler was to be another than it became.
_UNUSED = (
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
)

FAMILY = Family(
    build=bert,
    keys=_KEYS,
    heads={
        "BertModel": "pooler",
        "BertForSequenceClassification": "classifier",
        "BertForMaskedLM": "vocabulary",
        "BertForPreTraining": "vocabulary",
        "BertForTokenClassification": "tokens",
        "BertForQuestionAnswering": "questions",
    },
    names=_names,
    measures={
        **ENCODER,
        **WORDS,
        "positions": lambda model: model.embeddings.position.weight.shape[0],
        "types": lambda model: model.embeddings.token_type.weight.shape[0],
        "eps": lambda model: model.encoder[0].norm1.eps,
        "padding": lambda model: model.embeddings.word.padding,
        "tied": is_tied("head.vocabulary.weight"),
    },
    body="embeddings|encoder",
    # It has a head for pairs of sentences besides.
    incomplete=("BertForPreTraining",),
    prefixes={None: "bert."},
    unused=_UNUSED,
    fixed=(
        Key("position_embedding_type", one_of("absolute"), "absolute"),
        Key("is_decoder", one_of(False), False),
        Key("add_cross_attention", one_of(False), False),
    ),
)
