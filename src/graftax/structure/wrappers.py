"""Transparent wrappers that change how a layer is run: over an axis, again, in another precision."""

from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .call import Call
from .wrapper import Wrapper


class Vmap(Wrapper):
    """The layer over the leading axis of its input: `Vmap(a)(xs)[i] == a(xs[i])`.

    Context keywords and the state are the same for all; each element has a random key of its own.

    Source: `jax.vmap`.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> gx.Vmap(jnp.sum)(jnp.ones((2, 3))).tolist()
    [3.0, 3.0]

    ```
    """

    axis_name: Hashable | None = eqx.field(static=True, default=None)

    def __init__(self, layer: Callable[..., Any], *, axis_name: Hashable | None = None):
        """**Arguments:**

        - `layer`: maps an input without the leading axis.
        - `axis_name`: a name for the axis, as `eqx.nn.BatchNorm` asks for.

        **Raises:**

        - `TypeError`: `layer` is not callable.
        - `ValueError`: when called, on an input without a leading axis.
        """
        super().__init__(layer)
        self.axis_name = axis_name

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the layer gives for each element, along a new leading axis."""
        count = _leading_axis(inputs)
        keys = None if call.key is None else jax.random.split(call.key, count)
        pure = call.pure()
        run = jax.vmap(
            lambda inputs, state, key: pure(self.layer, inputs, state, key),
            in_axes=(0, None, 0),
            out_axes=(0, None),
            axis_name=self.axis_name,
        )
        y, call.state = run(inputs, call.state, keys)
        return y


def _leading_axis(inputs: tuple[Any, ...]) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    sizes = {shape[0] for shape in shapes if shape}
    if len(sizes) != 1 or not all(shapes):
        raise ValueError(
            "Vmap maps over the leading axis, which all arrays of its input must share; got the "
            f"shapes {shapes}."
        )
    return sizes.pop()


class Remat(Wrapper):
    """The layer, its insides computed again in the backward pass instead of kept: same output.

    Source: `jax.checkpoint`; Chen et al., Training Deep Nets with Sublinear Memory Cost,
    arXiv:1604.06174.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> gx.Remat(lambda x: 2 * x)(3)
    6

    ```
    """

    same_function: ClassVar[bool] = True

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the layer gives."""
        pure = call.pure()
        # The layer is not an argument: each level of a nested model would be taken apart once a level.
        run = eqx.filter_checkpoint(lambda x, state, key: pure(self.layer, x, state, key))
        y, call.state = run(inputs, call.state, call.key)
        return y


class Cast(Wrapper):
    """The layer run in another precision: `Cast(a, dtype)(x) == cast(a)(cast(x))`.

    Floating-point parameters and inputs are cast at each call; what is stored keeps its dtype, and
    so does the state. Integers, booleans and complex numbers stay as they are.

    Source: Micikevicius et al., Mixed Precision Training, arXiv:1710.03740.

    **Example:**

    ```python
    >>> import graftax as gx, jax.numpy as jnp
    >>> gx.Cast(jnp.tanh, jnp.bfloat16)(jnp.ones(2)).dtype
    dtype(bfloat16)

    ```
    """

    dtype: Any = eqx.field(static=True)

    def __init__(self, layer: Callable[..., Any], dtype: Any):
        """**Arguments:**

        - `layer`: the layer.
        - `dtype`: a floating-point dtype, e.g. `jnp.bfloat16`.

        **Raises:**

        - `TypeError`: `layer` is not callable, or `dtype` is not a floating-point dtype.
        """
        super().__init__(layer)
        try:
            self.dtype = jnp.dtype(dtype)
        except TypeError:
            raise TypeError(f"Cast takes a dtype, e.g. jnp.bfloat16; got {dtype!r}.") from None

    def __check_init__(self) -> None:
        is_dtype = isinstance(self.dtype, np.dtype)
        if not is_dtype or not jnp.issubdtype(self.dtype, jnp.floating):
            raise TypeError(f"Cast takes a floating-point dtype; got {self.dtype}.")

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the layer gives in that precision."""
        layer, inputs = jax.tree.map(self._cast, (self.layer, inputs))
        return call(layer, *inputs)

    def _cast(self, leaf: Any) -> Any:
        is_array = isinstance(leaf, (jax.Array, np.ndarray, np.generic))
        is_floating = is_array and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(self.dtype) if is_floating else leaf
