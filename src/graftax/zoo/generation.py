"""Text from a causal model, one token after the other."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Integer

from ..surgery import select
from .attention import DotProductAttention
from .embeddings import PositionEmbedding


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

    `(t + max_new_tokens,)`, the prompt included.

    **Raises:**

    - `ValueError`: an empty prompt or several; more tokens than the model has positions; a model that
        is not causal or gives no scores; a `temperature` below 0, or one above 0 without a `key`.

    **Example:**

    ```python
    >>> import graftax as gx, jax
    >>> sizes = dict(vocabulary=9, width=8, depth=1, heads=2, inner=16)
    >>> model = gx.zoo.llama(**sizes, key=jax.random.key(0))
    >>> gx.zoo.generate(model, [1, 2, 3], max_new_tokens=5).shape
    (8,)

    ```
    """
    prompt = jnp.asarray(ids)
    if prompt.ndim != 1 or prompt.shape[0] == 0 or not jnp.issubdtype(prompt.dtype, jnp.integer):
        raise ValueError(
            f"generate takes one prompt, integers of shape (t,) with t > 0; got {prompt.dtype} of "
            f"shape {prompt.shape}. For several prompts, use jax.vmap."
        )
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
    ends = jnp.asarray([] if eos is None else eos, prompt.dtype).reshape(-1)
    # An array, so that another temperature is no other program.
    sampling = (key, jnp.float32(temperature)) if temperature > 0 else None
    buffer = jnp.concatenate([prompt, jnp.zeros(max_new_tokens, prompt.dtype)])
    return _filled(model, buffer, jnp.asarray(prompt.shape[0]), ends, sampling)


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

    def is_unfinished(carry: tuple) -> Array:
        buffer, i = carry
        # The prompt itself may hold such a token.
        ended = (i > start) & jnp.isin(buffer[i - 1], ends)
        return (i < length) & ~ended

    def step(carry: tuple) -> tuple:
        buffer, i = carry
        scores = model(buffer[:-1])
        _check_scores(model, scores, length - 1)
        token = _chosen(scores[i - 1], i, sampling)
        return buffer.at[i].set(token.astype(buffer.dtype)), i + 1

    buffer, i = jax.lax.while_loop(is_unfinished, step, (buffer, start))
    return jnp.where(jnp.arange(length) < i, buffer, buffer[i - 1])


def _chosen(scores: Array, i: Array, sampling: Any) -> Array:
    if sampling is None:
        return jnp.argmax(scores)
    key, temperature = sampling
    scores = scores.astype(jnp.float32) / temperature
    return jax.random.categorical(jax.random.fold_in(key, i), scores)


def _check_scores(model: Any, scores: Any, length: int) -> None:
    shape = jnp.shape(scores)
    known = {layer.weight.shape[0] for layer in select(model, eqx.nn.Embedding).nodes}
    if len(shape) != 2 or shape[0] != length or (known and shape[1] not in known):
        raise ValueError(
            f"For {length} tokens the model gives shape {shape}, where scores of shape ({length}, "
            f"{' or '.join(map(str, sorted(known))) or 'vocabulary'}) should be: it lacks a head."
        )
