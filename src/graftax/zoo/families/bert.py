"""BERT: Devlin et al., arXiv:1810.04805. MiniLM and its like are the same model, smaller."""

from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax

from ...structure import Chain, Parallel, Vmap
from ...surgery import tie
from ..config import Config, Recipe
from ..layers import PositionEmbedding, Residual, Take, TokenTypeEmbedding
from ..trunk import activation, attention, layer_norm, mlp


def bert(
    *,
    vocabulary: int,
    width: int,
    depth: int,
    heads: int,
    inner: int,
    act: Callable,
    positions: int = 512,
    types: int = 2,
    eps: float = 1e-12,
    dropout: float = 0.1,
    head: str | None = "pooler",
    classes: int = 2,
    tied: bool = True,
    key: Any,
) -> Any:
    """BERT on one sequence: token ids `(t,)` to what the head gives.

    Called as `model(ids, mask=..., token_types=..., key=...)`, with `mask` `(t,)`, True where a token
    is no padding. `model[:"pooler"]` or `model[:"head"]` is the body, with `(t, width)`.

    **Arguments:**

    - `vocabulary`, `positions`, `types`: the sizes of the three embeddings.
    - `width`, `depth`, `heads`, `inner`: of a token, the encoder, each attention, each MLP.
    - `act`: the activation in each MLP.
    - `eps`: of each LayerNorm.
    - `dropout`: after the embeddings and before each residual.
    - `head`: None for `(t, width)`; `"pooler"` for `(width,)`; `"classifier"` for `(classes,)`;
        `"vocabulary"` for masked-token scores `(t, vocabulary)`.
    - `tied`: whether these scores share their matrix with the embeddings.
    - `classes`: of the classifier.
    - `key`: a random key.
    """
    keys = jax.random.split(key, depth + 4)
    parts: dict[str, Any] = {
        "embeddings": Parallel(
            word=Vmap(eqx.nn.Embedding(vocabulary, width, key=keys[0])),
            position=PositionEmbedding(positions, width, key=keys[1]),
            token_type=TokenTypeEmbedding(types, width, key=keys[2]),
            op=Chain(add=sum, norm=layer_norm(width, eps), dropout=eqx.nn.Dropout(dropout)),
        ),
        "encoder": Chain(
            [
                bert_block(width, heads, inner, act, eps=eps, dropout=dropout, key=k)
                for k in keys[4:]
            ]
        ),
    }
    k1, k2 = jax.random.split(keys[3])
    if head in ("pooler", "classifier"):
        parts["pooler"] = Chain(
            first=Take(0), dense=eqx.nn.Linear(width, width, key=k1), act=jax.numpy.tanh
        )
    if head == "classifier":
        parts["head"] = eqx.nn.Linear(width, classes, key=k2)
    if head != "vocabulary":
        return Chain(parts)
    parts["head"] = Chain(
        dense=Vmap(eqx.nn.Linear(width, width, key=k1)),
        act=act,
        norm=layer_norm(width, eps),
        vocabulary=Vmap(eqx.nn.Linear(width, vocabulary, key=k2)),
    )
    model = Chain(parts)
    return tie(model, "embeddings.word.weight", "head.vocabulary.weight") if tied else model


def bert_block(
    width: int, heads: int, inner: int, act: Callable, *, eps: float, dropout: float, key: Any
) -> Chain:
    """One block, `(t, width)` to `(t, width)`, its norms after the residuals."""
    k1, k2 = jax.random.split(key)
    return Chain(
        attention=Residual(attention(width, heads, dropout=dropout, key=k1)),
        norm1=layer_norm(width, eps),
        mlp=Residual(mlp(width, inner, act, dropout=dropout, key=k2)),
        norm2=layer_norm(width, eps),
    )


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
_PREFIX = {".embeddings": "bert.embeddings", ".encoder": "bert.encoder", ".pooler": "bert.pooler"}
_HEAD = {
    ".head.dense": "cls.predictions.transform.dense",
    ".head.norm": "cls.predictions.transform.LayerNorm",
    ".head.vocabulary": "cls.predictions.decoder",
    ".head": "classifier",
}
_DECODER_BIAS = "cls.predictions.decoder.bias"
# The first checkpoints were converted from TensorFlow, which calls them so.
_OLD_NORMS = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
_HEADS = {
    "BertModel": "pooler",
    "BertForSequenceClassification": "classifier",
    "BertForMaskedLM": "vocabulary",
    "BertForPreTraining": "vocabulary",
}


def recipe(config: Config, names: Collection[str]) -> Recipe:
    """BERT as `config.json` of Hugging Face describes it. Raises `ConfigError`."""
    head = _HEADS[config.architecture(_HEADS)]
    if head == "pooler" and not any("pooler" in name for name in names):
        head = None
    config.only("position_embedding_type", ["absolute"])
    config.only("is_decoder", [False])
    config.only("add_cross_attention", [False])
    config.get("attention_probs_dropout_prob", 0.0)
    settings: dict[str, Any] = {
        "vocabulary": config.need("vocab_size"),
        "width": config.need("hidden_size"),
        "depth": config.need("num_hidden_layers"),
        "heads": config.need("num_attention_heads"),
        "inner": config.need("intermediate_size"),
        "act": activation(config.get("hidden_act", "gelu")),
        "positions": config.get("max_position_embeddings", 512),
        "types": config.get("type_vocab_size", 2),
        "eps": config.get("layer_norm_eps", 1e-12),
        "dropout": config.get("hidden_dropout_prob", 0.1),
        "head": head,
        "tied": config.get("tie_word_embeddings", True),
        "classes": config.labels(),
    }
    return Recipe(
        lambda key: bert(**settings, key=key),
        {
            **_RENAME,
            **(_PREFIX if any(name.startswith("bert.") for name in names) else {}),
            # Where the decoder's own bias was saved, it is the one that counts.
            **({} if _DECODER_BIAS in names else {".head.vocabulary.bias": "cls.predictions.bias"}),
            **_HEAD,
            **(_OLD_NORMS if any(name.endswith(".gamma") for name in names) else {}),
        },
        # A buffer, a second copy of a bias, and the head that only pretraining needs.
        (
            "embeddings.position_ids",
            "cls.predictions.bias",
            "cls.seq_relationship.{p}",
            *(() if head else ("pooler.dense.{p}",)),
            *(("bert.pooler.dense.{p}",) if head == "vocabulary" else ()),
        ),
    )
