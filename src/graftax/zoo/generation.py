"""Text from a causal model, one token after the other."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Integer

from ..paths.errors import listed
from ..surgery import select
from .attention import DotProductAttention
from .embeddings import PositionEmbedding
from .rotary import DynamicRotary, LongRotary


def generate(
    model: Any,
    ids: Integer[Array | np.ndarray, " t"] | Sequence[int],
    *,
    max_new_tokens: int,
    eos: int | Sequence[int] | None = None,
    key: Any = None,
    temperature: float = 0.0,
) -> Integer[Array, " longer"]:
    """The prompt and what a causal model continues it with: at each step the likeliest token.

    With a `temperature`, tokens are drawn from `softmax(scores / temperature)` instead. One compiled
    program does all steps, on a buffer of the final length: what stands to the right of a token, a
    causal model does not see. For several prompts of one length, use `jax.vmap`.

    **Arguments:**

    - `model`: from token ids `(t,)` to scores `(t, vocabulary)`; it is run in inference mode.
    - `ids`: the prompt, without padding.
    - `max_new_tokens`: how many tokens to add.
    - `eos`: the token, or the tokens, that end the text. The first that comes fills the rest.
    - `key`: a random key, for a `temperature` above 0. The draw at a position depends on nothing else.
    - `temperature`: 0 for the likeliest token, 1 for the model's own probabilities.

    **Returns:**

    `(t + max_new_tokens,)`, the prompt included, in its dtype.

    **Raises:**

    - `ValueError`: an empty prompt or several; ids that the model does not know, or of a dtype too
        small for its tokens; more tokens than the model has positions; a model that is not causal or
        gives no scores; a `temperature` below 0, or one above 0 without a `key`.
    - `RuntimeError`: scores of NaN, as for unknown ids in a prompt that is being traced.

    **Example:**

    ```python
    >>> import graftax as gx, jax
    >>> sizes = dict(vocabulary=9, width=8, depth=1, heads=2, inner=16)
    >>> model = gx.zoo.llama(**sizes, key=jax.random.key(0))
    >>> gx.zoo.generate(model, [1, 2, 3], max_new_tokens=5).shape
    (8,)

    ```
    """
    prompt = _prompt(model, ids)
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must not be negative; got {max_new_tokens}.")
    if temperature < 0:
        raise ValueError(f"temperature must not be negative; got {temperature}.")
    if temperature > 0 and key is None:
        raise ValueError(
            f"temperature={temperature} draws at random: give key=jax.random.key(...)."
        )
    _check_model(model, prompt.shape[0], max_new_tokens)
    if max_new_tokens == 0:
        return prompt
    ends = _ends(eos)
    # An array, so that another temperature is no other program.
    sampling = (key, jnp.float32(temperature)) if temperature > 0 else None
    buffer = jnp.concatenate([prompt, jnp.zeros(max_new_tokens, prompt.dtype)])
    return _filled(model, buffer, jnp.asarray(prompt.shape[0]), ends, sampling)


def _prompt(model: Any, ids: Any) -> Integer[Array, " t"]:
    """The ids as an array, if they are a prompt for this model."""
    given = ids if isinstance(ids, jax.Array) else np.asarray(ids)
    if given.ndim != 1 or given.shape[0] == 0 or not jnp.issubdtype(given.dtype, jnp.integer):
        raise ValueError(
            "generate takes one prompt, integers of shape (t,) with t > 0; got "
            f"{jnp.result_type(given)} of shape {given.shape}. For several prompts, use jax.vmap."
        )
    # Before JAX cuts them to 32 bits. Of a prompt that is being traced, the scores will tell.
    if not isinstance(given, Tracer):
        for path, layer in select(model, eqx.nn.Embedding).items():
            unknown = [int(i) for i in given if not 0 <= i < layer.weight.shape[0]]
            if unknown:
                raise ValueError(
                    f"The prompt has the ids {listed(map(str, unknown))}; {path!r} has vectors for 0 to "
                    f"{layer.weight.shape[0] - 1}."
                )
    return jnp.asarray(given)


def _ends(eos: Any) -> Integer[Array, " n"]:
    """The ids that end a text, in 32 bits whatever the prompt has."""
    given = np.asarray([] if eos is None else eos, None if eos is not None else np.int32).reshape(
        -1
    )
    if not np.issubdtype(given.dtype, np.integer) or ((given < 0) | (given >= 2**31)).any():
        raise ValueError(f"eos must be the id of a token, or several; got {eos!r}.")
    return jnp.asarray(given, jnp.int32)


def _check_model(model: Any, prompt: int, new: int) -> None:
    for path, layer in select(model, DotProductAttention).items():
        if not layer.causal:
            raise ValueError(
                f"{path!r} sees what comes after a token: only a causal model can generate."
            )
    # The last token is never read.
    needed = prompt + max(new - 1, 0)
    for path, layer in select(model, PositionEmbedding).items():
        if layer.weight.shape[0] < needed:
            raise ValueError(
                f"A prompt of {prompt} tokens and max_new_tokens={new} need {needed} positions; "
                f"{path!r} has {layer.weight.shape[0]}."
            )


@eqx.filter_jit
def _filled(model: Any, buffer: Array, start: Array, ends: Array, sampling: Any) -> Array:
    model = eqx.nn.inference_mode(model)
    length = buffer.shape[0]
    sees_length = bool(select(model, (DynamicRotary, LongRotary)))

    def is_unfinished(carry: tuple[Any, ...]) -> Array:
        buffer, i = carry
        # The prompt itself may hold such a token.
        ended = (i > start) & jnp.isin(buffer[i - 1], ends)
        return (i < length) & ~ended

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        buffer, i = carry
        # To a rotation that goes by the length, the text is as long as it is so far, not the buffer.
        places = {"positions": jnp.minimum(jnp.arange(length - 1), i - 1)} if sees_length else {}
        scores = model(buffer[:-1], **places)
        _check_scores(model, scores, length - 1, buffer.dtype)
        # The likeliest of NaN would be a token like any other.
        last = eqx.error_if(
            scores[i - 1],
            jnp.isnan(scores[i - 1]).any(),
            "The model gave NaN as scores: its weights hold NaN, or the prompt has an id for which it "
            "has no vector.",
        )
        token = _chosen(last, i, sampling)
        return buffer.at[i].set(token.astype(buffer.dtype)), i + 1

    buffer, i = jax.lax.while_loop(is_unfinished, step, (buffer, start))
    return jnp.where(jnp.arange(length) < i, buffer, buffer[i - 1])


def _chosen(scores: Array, i: Array, sampling: Any) -> Array:
    if sampling is None:
        return jnp.argmax(scores)
    key, temperature = sampling
    scores = scores.astype(jnp.float32) / temperature
    return jax.random.categorical(jax.random.fold_in(key, i), scores)


def _check_scores(model: Any, scores: Any, length: int, dtype: Any) -> None:
    shape = jnp.shape(scores)
    known = {layer.weight.shape[0] for layer in select(model, eqx.nn.Embedding).nodes}
    if len(shape) != 2 or shape[0] != length or (known and shape[1] not in known):
        raise ValueError(
            f"For {length} tokens the model gives shape {shape}, where scores of shape ({length}, "
            f"{' or '.join(map(str, sorted(known))) or 'vocabulary'}) should be: it lacks a head."
        )
    if shape[1] - 1 > jnp.iinfo(dtype).max:
        raise ValueError(
            f"The model has {shape[1]} tokens, and the prompt is of {dtype}, which cannot hold them all: "
            "give it as int32."
        )
