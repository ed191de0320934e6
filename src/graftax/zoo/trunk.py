"""The parts that all transformers of the zoo are made of."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ..structure import Chain, Parallel, Residual, Vmap, Wrapper
from ..surgery import tie
from .attention import DotProductAttention
from .embeddings import Embedding


def attention(
    width: int,
    heads: int,
    *,
    head_size: int | None = None,
    kv_heads: int | None = None,
    bias: bool = True,
    output_bias: bool | None = None,
    causal: bool = False,
    scale: float | None = None,
    rotary: Callable[..., Any] | None = None,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    key: PRNGKeyArray,
) -> Parallel:
    """Multi-head self-attention, `(t, width)` to `(t, width)`, with `query`, `key`, `value` and `output`.

    **Arguments:**

    - `width`: the size of a token.
    - `heads`, `head_size`: of the queries; `head_size` is `width // heads` if None.
    - `kv_heads`: the number of key and value heads; `heads` if None.
    - `bias`, `output_bias`: whether query, key and value, and the output, have a bias.
    - `causal`: whether a token sees only itself and what stands before it.
    - `scale`: what scores are multiplied with; 1 / sqrt(head_size) if None.
    - `rotary`: a layer for queries and keys.
    - `dropout`: after the output.
    - `attention_dropout`: of the probabilities with which a token sees another.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: the heads do not share the width evenly, or the key heads the query heads.
    """
    if head_size is None and width % heads:
        raise ValueError(f"{heads} heads cannot share a width of {width} evenly: give head_size.")
    head_size = width // heads if head_size is None else head_size
    kv_heads = heads if kv_heads is None else kv_heads
    output_bias = bias if output_bias is None else output_bias
    keys = jax.random.split(key, 4)
    inner, kv = heads * head_size, kv_heads * head_size
    attend = DotProductAttention(
        heads,
        kv_heads=kv_heads,
        head_size=head_size,
        causal=causal,
        scale=scale,
        rotary=rotary,
        dropout=attention_dropout,
    )
    output = Vmap(eqx.nn.Linear(inner, width, use_bias=output_bias, key=keys[3]))
    return Parallel(
        query=Vmap(eqx.nn.Linear(width, inner, use_bias=bias, key=keys[0])),
        key=Vmap(eqx.nn.Linear(width, kv, use_bias=bias, key=keys[1])),
        value=Vmap(eqx.nn.Linear(width, kv, use_bias=bias, key=keys[2])),
        op=Chain(attend=attend, output=output, dropout=eqx.nn.Dropout(dropout)),
    )


def mlp(
    width: int,
    inner: int,
    act: Callable[..., Any],
    *,
    bias: bool = True,
    dropout: float = 0.0,
    key: PRNGKeyArray,
) -> Chain:
    """The feed-forward part of a block, `(t, width)` to `(t, width)`: `up`, `act`, `down`, `dropout`."""
    k1, k2 = jax.random.split(key)
    return Chain(
        up=Vmap(eqx.nn.Linear(width, inner, use_bias=bias, key=k1)),
        act=act,
        down=Vmap(eqx.nn.Linear(inner, width, use_bias=bias, key=k2)),
        dropout=eqx.nn.Dropout(dropout),
    )


def gated_mlp(
    width: int,
    inner: int,
    act: Callable[..., Any],
    *,
    bias: bool = True,
    dropout: float = 0.0,
    key: PRNGKeyArray,
) -> Parallel:
    """`down(act(gate(x)) * up(x))`, `(t, width)` to `(t, width)`: SwiGLU if `act` is `jax.nn.silu`.

    Source: Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202.
    """
    k1, k2, k3 = jax.random.split(key, 3)
    return Parallel(
        gate=Vmap(eqx.nn.Linear(width, inner, use_bias=bias, key=k1)),
        up=Vmap(eqx.nn.Linear(width, inner, use_bias=bias, key=k2)),
        op=Chain(
            multiply=Parallel(act=act, same=Chain(), op=operator.mul),
            down=Vmap(eqx.nn.Linear(inner, width, use_bias=bias, key=k3)),
            dropout=eqx.nn.Dropout(dropout),
        ),
    )


def layer_norm(width: int, eps: float) -> Vmap:
    """LayerNorm of each token, `(t, width)` to `(t, width)`."""
    return Vmap(eqx.nn.LayerNorm(width, eps=eps))


def rms_norm(width: int, eps: float) -> Vmap:
    """RMSNorm of each token, `(t, width)` to `(t, width)`."""
    return Vmap(eqx.nn.RMSNorm(width, eps=eps, use_bias=False))


def word_embedding(
    vocabulary: int, width: int, *, padding: int | None = None, key: PRNGKeyArray
) -> Vmap:
    """Token ids `(t,)` to vectors `(t, width)`; that of the `padding` gets no gradient here."""
    if padding is not None and -vocabulary <= padding < 0:
        # As PyTorch counts, and some configurations do.
        padding += vocabulary
    return Vmap(Embedding(vocabulary, width, padding=padding, key=key))


def encoder(blocks: Sequence[Callable[..., Callable[..., Any]]], *, key: PRNGKeyArray) -> Chain:
    """Blocks in order, each made with a `key` of its own by a function of `blocks`."""
    keys = jax.random.split(key, len(blocks))
    return Chain([block(key=each) for block, each in zip(blocks, keys, strict=True)])


def pre_norm_block(
    attend: Callable[..., Any], feed: Callable[..., Any], norm: Callable[[], Callable[..., Any]]
) -> Chain:
    """A block with its norms inside the residuals, `(t, width)` to `(t, width)`.

    Source: Xiong et al., On Layer Normalization in the Transformer Architecture, arXiv:2002.04745.
    """
    return Chain(attention=Residual(attend, norm1=norm()), mlp=Residual(feed, norm2=norm()))


def post_norm_block(
    attend: Callable[..., Any], feed: Callable[..., Any], norm: Callable[[], Callable[..., Any]]
) -> Chain:
    """A block with its norms after the residuals, `(t, width)` to `(t, width)`.

    Source: Vaswani et al., Attention Is All You Need, arXiv:1706.03762.
    """
    return Chain(attention=Residual(attend), norm1=norm(), mlp=Residual(feed), norm2=norm())


def token_head(
    head: str, width: int, *, classes: int, dropout: float, key: PRNGKeyArray
) -> dict[str, Callable[..., Any]]:
    """The last parts of a model that gives scores to each token, `(t, width)` to `(t, scores)`.

    **Arguments:**

    - `head`: `"tokens"` for `classes` scores, or `"questions"` for two: that an answer begins there, and
        that it ends there.
    - `width`: the size of a token.
    - `classes`: how many there are.
    - `dropout`: before the scores of classes.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: another head.
    """
    if head == "questions":
        return {"head": Vmap(eqx.nn.Linear(width, 2, key=key))}
    if head == "tokens":
        linear = Vmap(eqx.nn.Linear(width, classes, key=key))
        return {"dropout": eqx.nn.Dropout(dropout), "head": linear}
    raise ValueError(f"There is no head {head!r} for this model.")


def decoder(
    body: Mapping[str, Callable[..., Any]],
    head: str | None,
    *,
    width: int,
    vocabulary: int,
    tied: bool,
    classes: int,
    dropout: float,
    key: PRNGKeyArray,
) -> Chain | Wrapper:
    """The parts of a causal model, and the head on them.

    **Arguments:**

    - `body`: its labelled parts, token ids `(t,)` to `(t, width)`, the first of them `embeddings`.
    - `head`: `"vocabulary"` for scores of the token after each, `(t, vocabulary)`; what `token_head`
        has; or None for the body.
    - `width`, `vocabulary`: of a token, and how many tokens there are.
    - `tied`: whether the head for the vocabulary shares its matrix with the embeddings.
    - `classes`, `dropout`: as in `token_head`.
    - `key`: a random key.

    **Raises:**

    - `ValueError`: another head.
    """
    if head is None:
        return Chain(dict(body))
    if head != "vocabulary":
        return Chain({**body, **token_head(head, width, classes=classes, dropout=dropout, key=key)})
    linear = Vmap(eqx.nn.Linear(width, vocabulary, use_bias=False, key=key))
    return tied_to_words(Chain({**body, "head": linear}), "head.weight", tied)


def tied_to_words(model: Chain, path: str, tied: bool = True) -> Chain | Wrapper:
    """The model with the matrix at a path that of the word embeddings, if it is to be `tied`."""
    return tie(model, "embeddings.word.weight", path) if tied else model
