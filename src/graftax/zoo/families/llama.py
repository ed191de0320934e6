"""Llama: Touvron et al., arXiv:2302.13971 and arXiv:2307.09288; Llama 3: arXiv:2407.21783."""

from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax

from ...structure import Chain, Vmap
from ...surgery import tie
from ..config import Config, Recipe
from ..layers import Residual
from ..rotary import RotaryEmbedding
from ..trunk import activation, attention, gated_mlp, rms_norm


def llama(
    *,
    vocabulary: int,
    width: int,
    depth: int,
    heads: int,
    inner: int,
    kv_heads: int | None = None,
    head_size: int | None = None,
    act: Callable = jax.nn.silu,
    rotary: Callable | None = None,
    eps: float = 1e-6,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    head: str | None = "vocabulary",
    tied: bool = False,
    key: Any,
) -> Any:
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
    - `head`: `"vocabulary"`, or None for `(t, width)`.
    - `tied`: whether the head shares its matrix with the embeddings.
    - `key`: a random key.
    """
    rotary = RotaryEmbedding() if rotary is None else rotary
    keys = jax.random.split(key, depth + 2)
    parts: dict[str, Any] = {
        "embeddings": Chain(word=Vmap(eqx.nn.Embedding(vocabulary, width, key=keys[0]))),
        "encoder": Chain(
            [
                llama_block(
                    width,
                    heads,
                    inner,
                    act,
                    kv_heads=kv_heads,
                    head_size=head_size,
                    rotary=rotary,
                    eps=eps,
                    attention_bias=attention_bias,
                    mlp_bias=mlp_bias,
                    key=k,
                )
                for k in keys[2:]
            ]
        ),
        "norm": rms_norm(width, eps),
    }
    if head is None:
        return Chain(parts)
    parts["head"] = Vmap(eqx.nn.Linear(width, vocabulary, use_bias=False, key=keys[1]))
    return tie(Chain(parts), "embeddings.word.weight", "head.weight") if tied else Chain(parts)


def llama_block(
    width: int,
    heads: int,
    inner: int,
    act: Callable,
    *,
    kv_heads: int | None = None,
    head_size: int | None = None,
    rotary: Callable | None,
    eps: float,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    key: Any,
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
        key=k1,
    )
    feed = gated_mlp(width, inner, act, bias=mlp_bias, key=k2)
    return Chain(
        attention=Residual(attend, norm1=rms_norm(width, eps)),
        mlp=Residual(feed, norm2=rms_norm(width, eps)),
    )


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
    ".head": "lm_head",
}
_PREFIX = {f".{name}": f"model.{name}" for name in ("embed_tokens", "layers", "norm")}
_HEADS = {"LlamaForCausalLM": "vocabulary", "LlamaModel": None}


def recipe(config: Config, names: Collection[str]) -> Recipe:
    """Llama as `config.json` of Hugging Face describes it. Raises `ConfigError`."""
    head = _HEADS[config.architecture(_HEADS)]
    config.get("attention_dropout", 0.0)
    # Positions that are turned have no table: no input is too long for one.
    config.get("max_position_embeddings", None)
    settings: dict[str, Any] = {
        "vocabulary": config.need("vocab_size"),
        "width": config.need("hidden_size"),
        "depth": config.need("num_hidden_layers"),
        "heads": config.need("num_attention_heads"),
        "inner": config.need("intermediate_size"),
        "kv_heads": config.get("num_key_value_heads", None),
        "head_size": config.get("head_dim", None),
        "act": activation(config.get("hidden_act", "silu")),
        "rotary": _rotary(config),
        "eps": config.get("rms_norm_eps", 1e-6),
        "attention_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
        "head": head,
        "tied": config.get("tie_word_embeddings", False),
    }
    prefixed = any(name.startswith("model.") for name in names)
    return Recipe(
        lambda key: llama(**settings, key=key),
        {**_RENAME, **(_PREFIX if prefixed else {})},
        # The frequencies that follow from the configuration.
        ("rotary_emb.inv_freq",),
    )


def _rotary(config: Config) -> RotaryEmbedding:
    theta = float(config.get("rope_theta", 10_000.0))
    # The newer name first; the base moved into it.
    parts = [config.part(key) for key in ("rope_parameters", "rope_scaling")]
    rope = next((part for part in parts if part), None)
    if rope is None:
        return RotaryEmbedding(theta)
    theta = float(rope.get("rope_theta", theta))
    kind = "rope_type" if rope.get("rope_type", None) else "type"
    rope.only(kind, ["default", "linear", "llama3"])
    if rope.get(kind, "default") == "default":
        return RotaryEmbedding(theta)
    if rope.get(kind, "default") == "linear":
        # Only the kinds that change with the length need it.
        rope.get("original_max_position_embeddings", None)
        return RotaryEmbedding(theta, float(rope.need("factor")))
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return RotaryEmbedding(theta, tuple(rope.need(name) for name in names))
