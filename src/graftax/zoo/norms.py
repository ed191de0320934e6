"""BatchNorm as PyTorch trains it."""

from collections.abc import Hashable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray


class BatchNorm(eqx.nn.BatchNorm):
    """Each channel with the mean and variance of the batch, in inference with running ones.

    In two things it is PyTorch's and not Equinox's: the running variance is the unbiased one, with n - 1
    for n pixels in the batch, and running statistics start at 0 and 1 and count from the first step.

    Source: Ioffe and Szegedy, arXiv:1502.03167; `torch.nn.BatchNorm2d`.

    **Example:**

    ```python
    >>> import graftax as gx, equinox as eqx, jax, jax.numpy as jnp
    >>> norm, state = eqx.nn.make_with_state(gx.zoo.BatchNorm)(1, momentum=0.5)
    >>> batch = jnp.array([[1.0], [3.0]])  # two examples, one channel
    >>> y, state = jax.vmap(norm, (0, None), (0, None), axis_name="batch")(batch, state)
    >>> [round(float(y), 3) for y in y[:, 0]]
    [-1.0, 1.0]

    ```
    """

    def __init__(
        self,
        input_size: int,
        axis_name: Hashable | Sequence[Hashable] = "batch",
        eps: float = 1e-5,
        channelwise_affine: bool = True,
        momentum: float = 0.9,
        inference: bool = False,
        dtype: Any = None,
    ):
        """**Arguments:**

        - `input_size`: the number of channels.
        - `axis_name`: of the batch, as `jax.vmap` is given it.
        - `eps`: what is added to the variance.
        - `channelwise_affine`: whether each channel has a learnt weight and bias.
        - `momentum`: how much of the running statistics stays at a step: 1 less PyTorch's momentum.
        - `inference`: whether the running statistics are used.
        - `dtype`: of the parameters and the statistics.
        """
        super().__init__(
            input_size, axis_name, eps, channelwise_affine, momentum, inference, dtype, mode="batch"
        )

    def __call__(
        self,
        x: Float[Array | np.ndarray, "..."],
        state: eqx.nn.State,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "..."], eqx.nn.State]:
        """**Arguments:**

        - `x`: one example, `(channels, ...)`, such as an image `(channels, h, w)`.
        - `state`: with the running statistics.
        - `key`: not used.
        - `inference`: instead of the mode of the layer.

        **Returns:**

        The output, of the shape of `x`, and the state; in training with new running statistics.

        **Raises:**

        - `ValueError`: another number of channels, or in training a single number for each of them.
        - `NameError`: in training, outside of a `jax.vmap` with this axis name.
        """
        x = jnp.asarray(x)
        if x.ndim == 0 or x.shape[0] != self.input_size:
            raise ValueError(
                f"BatchNorm has {self.input_size} channels; got shape {x.shape}. An example is "
                "(channels, ...), and a batch goes through jax.vmap."
            )
        inference = self.inference if inference is None else inference
        if inference:
            return super().__call__(x, state, key=key, inference=True)
        mean, variance, count = self._of_batch(x)
        state = self._after_step(state, mean, variance * (count / (count - 1)))
        shape = (-1, *(1,) * (x.ndim - 1))
        y = (x - mean.reshape(shape)) / jnp.sqrt(variance.reshape(shape) + self.eps)
        if self.weight is not None and self.bias is not None:
            y = y * self.weight.reshape(shape) + self.bias.reshape(shape)
        return y, state

    def _of_batch(self, x: Array) -> tuple[Array, Array, int]:
        """Mean and variance of each channel, and of how many numbers they are."""
        try:
            examples = jax.lax.psum(1, self.axis_name)
        except NameError as error:
            raise NameError(
                f"BatchNorm in training takes its statistics over the axis {self.axis_name!r}, and there "
                f"is none: call jax.vmap(model, axis_name={self.axis_name!r}, in_axes=(0, None), "
                "out_axes=(0, None))(batch, state), or take eqx.nn.inference_mode(model)."
            ) from error
        count = examples * (x.size // x.shape[0])
        if count < 2:
            raise ValueError(
                "BatchNorm in training needs more than one number for each channel: the variance of one "
                f"is none. Got one example of shape {x.shape}."
            )
        # In the precision of the statistics, which half precision would not do.
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(1, x.ndim))
        mean = jax.lax.pmean(x.mean(axes, keepdims=True), self.axis_name)
        variance = jax.lax.pmean(jnp.square(x - mean).mean(axes), self.axis_name)
        return mean.reshape(-1), variance, count

    def _after_step(self, state: eqx.nn.State, mean: Array, variance: Array) -> eqx.nn.State:
        """The state with a step more, given mean and variance of its batch."""
        assert self.batch_counter is not None and self.batch_state_index is not None
        steps = state.get(self.batch_counter)
        before, after = (_share(self.momentum, count) for count in (steps, steps + 1))

        def moved(held: Array, new: Array) -> Array:
            running = held / before * self.momentum + new * (1 - self.momentum)
            return (running * after).astype(held.dtype)

        held_mean, held_variance = state.get(self.batch_state_index)
        held = (moved(held_mean, mean), moved(held_variance, variance))
        return state.set(self.batch_counter, steps + 1).set(self.batch_state_index, held)


def _share(momentum: float, steps: Array) -> Array:
    # Equinox divides what it holds by this when it reads it, to take off the zeros it starts from.
    # PyTorch does not, so what is held is multiplied with it: then both read the same.
    return jnp.where(steps == 0, 1, 1 - momentum**steps)
