"""GPT-2: Radford et al., Language Models are Unsupervised Multitask Learners, 2019."""

from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax

from ...files import Layout
from ...structure import Chain, Parallel, Vmap
from ...surgery import tie
from ..config import Config, Recipe
from ..layers import PositionEmbedding, Residual
from ..trunk import activation, attention, layer_norm, mlp


def gpt2(
    *,
    vocabulary: int,
    width: int,
    depth: int,
    heads: int,
    inner: int | None = None,
    act: Callable = jax.nn.gelu,
    positions: int = 1024,
    eps: float = 1e-5,
    dropout: float = 0.1,
    embedding_dropout: float = 0.1,
    scale: float | None = None,
    scale_by_depth: bool = False,
    head: str | None = "vocabulary",
    tied: bool = True,
    key: Any,
) -> Any:
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
    - `scale`: what the scores of attention are multiplied with; 1 / sqrt(head size) if None.
    - `scale_by_depth`: whether these scores are divided by 1, 2, ... from block to block besides.
    - `head`: `"vocabulary"`, or None for `(t, width)`.
    - `tied`: whether the head shares its matrix with the embeddings.
    - `key`: a random key.
    """
    inner = 4 * width if inner is None else inner
    scales = [scale] * depth
    if scale_by_depth:
        base = (width // heads) ** -0.5 if scale is None else scale
        scales = [base / (i + 1) for i in range(depth)]
    keys = jax.random.split(key, depth + 3)
    parts: dict[str, Any] = {
        "embeddings": Parallel(
            word=Vmap(eqx.nn.Embedding(vocabulary, width, key=keys[0])),
            position=PositionEmbedding(positions, width, key=keys[1]),
            op=Chain(add=sum, dropout=eqx.nn.Dropout(embedding_dropout)),
        ),
        "encoder": Chain(
            [
                gpt2_block(width, heads, inner, act, eps=eps, dropout=dropout, scale=s, key=k)
                for s, k in zip(scales, keys[3:], strict=True)
            ]
        ),
        "norm": layer_norm(width, eps),
    }
    if head is None:
        return Chain(parts)
    parts["head"] = Vmap(eqx.nn.Linear(width, vocabulary, use_bias=False, key=keys[2]))
    return tie(Chain(parts), "embeddings.word.weight", "head.weight") if tied else Chain(parts)


def gpt2_block(
    width: int,
    heads: int,
    inner: int,
    act: Callable,
    *,
    eps: float,
    dropout: float,
    scale: float | None = None,
    key: Any,
) -> Chain:
    """One block, `(t, width)` to `(t, width)`, its norms inside the residuals."""
    k1, k2 = jax.random.split(key)
    attend = attention(width, heads, causal=True, scale=scale, dropout=dropout, key=k1)
    return Chain(
        attention=Residual(attend, norm1=layer_norm(width, eps)),
        mlp=Residual(mlp(width, inner, act, dropout=dropout, key=k2), norm2=layer_norm(width, eps)),
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
    ".head": "lm_head",
}
_PREFIX = {f".{name}": f"transformer.{name}" for name in ("wte", "wpe", "h", "ln_f")}
_HEADS = {"GPT2LMHeadModel": "vocabulary", "GPT2Model": None}


def recipe(config: Config, names: Collection[str]) -> Recipe:
    """GPT-2 as `config.json` of Hugging Face describes it. Raises `ConfigError`."""
    head = _HEADS[config.architecture(_HEADS)]
    config.only("add_cross_attention", [False])
    config.get("attn_pdrop", 0.0)
    # It only says in which precision scores are computed, and ours is float32 always.
    config.get("reorder_and_upcast_attn", False)
    settings: dict[str, Any] = {
        "vocabulary": config.need("vocab_size"),
        "width": config.need("n_embd"),
        "depth": config.need("n_layer"),
        "heads": config.need("n_head"),
        "inner": config.get("n_inner", None),
        "act": activation(config.get("activation_function", "gelu_new")),
        "positions": config.get("n_positions", 1024),
        "eps": config.get("layer_norm_epsilon", 1e-5),
        "dropout": config.get("resid_pdrop", 0.1),
        "embedding_dropout": config.get("embd_pdrop", 0.1),
        "scale": None if config.get("scale_attn_weights", True) else 1.0,
        "scale_by_depth": config.get("scale_attn_by_inverse_layer_idx", False),
        "head": head,
        "tied": config.get("tie_word_embeddings", True),
    }
    prefixed = any(name.startswith("transformer.") for name in names)
    return Recipe(
        lambda key: gpt2(**settings, key=key),
        {**_RENAME, **(_PREFIX if prefixed else {})},
        # Buffers: the causal mask, and what it puts in place of a score.
        ("h.{i}.attn.bias", "h.{i}.attn.masked_bias"),
    )
