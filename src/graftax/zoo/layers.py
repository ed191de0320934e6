"""The few layers that the zoo's families share and Equinox lacks. All work on one example, unbatched."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ..paths.tree import INNER, Level, shallow_copy
from ..structure.calling import call_child, call_layer, declared_by_any, is_stateful
from ..structure.labels import as_layers
from ..structure.wrappers import Wrapper


class Take(eqx.Module):
    """One element along the first axis: `Take(0)(x) == x[0]`."""

    index: int = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        """`(t, ...)` to `(...)`. Raises `ValueError` if there is no such element."""
        # JAX would take the one nearest to it.
        if not -x.shape[0] <= self.index < x.shape[0]:
            raise ValueError(f"Take({self.index}) was given a sequence of {x.shape[0]}.")
        return x[self.index]


class DropPath(eqx.nn.Dropout):
    """Stochastic depth: in training all of its input or, with probability `p`, nothing.

    What is left is divided by `1 - p`, so that the mean stays. The last layer inside a residual: the
    block is then left out for this example.

    Source: Huang et al., Deep Networks with Stochastic Depth, arXiv:1603.09382.

    **Example:**

    ```python
    >>> import graftax as gx, jax, jax.numpy as jnp
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> [gx.zoo.DropPath(0.5)(jnp.ones(2), key=key).tolist() for key in keys]
    [[0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]

    ```
    """

    def __call__(
        self,
        x: Array,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
    ) -> Array:
        """**Arguments:**

        - `x`: any array.
        - `key`: a random key.
        - `inference`: instead of the mode of the layer.
        - `deterministic`: Equinox's older name of it.

        **Returns:**

        `x / (1 - p)`, or zeros; in inference `x`.

        **Raises:**

        - `RuntimeError`: no key in training.
        """
        one = jnp.ones((), x.dtype)
        return x * super().__call__(one, key=key, inference=inference, deterministic=deterministic)


class QuickGELU(eqx.Module):
    """CLIP's and ViT's cheap GELU: `x * sigmoid(1.702 * x)`.

    Source: Hendrycks and Gimpel, arXiv:1606.08415, section 2.
    """

    def __call__(self, x: Array) -> Array:
        """The shape stays."""
        return x * jax.nn.sigmoid(1.702 * x)


class Residual(Wrapper):
    """A `SkipConnection` around one layer that does not show in paths: `x + layer(before(x))`.

    So the parts of a block's attention are `encoder.3.attention.query` whether the block has a norm
    before it or not. What runs before has its own label at the same place: `attention.norm1`.

    Source: Xiong et al., On Layer Normalization in the Transformer Architecture, arXiv:2002.04745.
    """

    before: tuple

    def __init__(self, layer: Callable, /, **before: Callable):
        """**Arguments:**

        - `layer`: what the input is added to.
        - `before`: labelled layers that run before it, e.g. `norm1=...`, inside the residual.
        """
        super().__init__(layer)
        self.before = as_layers(type(self), (), before)
        type(self)._check_names(self, before)

    def _run(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        y = x
        for label, each in zip(self._labels(), self.before, strict=True):
            y, state = call_child(self, label, each, (y,), state, key, context)
        y, state = call_layer(self.layer, (y,), state, key, context)
        return x + y, state

    def is_stateful(self) -> bool:
        """Whether any layer inside keeps an Equinox state."""
        return any(is_stateful(layer) for layer in (*self.before, self.layer))

    def _gx_declared(self) -> frozenset[str] | None:
        return declared_by_any((*self.before, self.layer))

    def _labels(self) -> tuple[str, ...]:
        return getattr(self.before, "_fields", ())

    def __getattr__(self, name: str) -> Any:
        before = self.__dict__.get("before", ())
        if name in getattr(before, "_fields", ()):
            return getattr(before, name)
        return super().__getattr__(name)

    def _gx_level(self) -> Level:
        keys: tuple[Hashable, ...] = (INNER, *self._labels())
        return Level(keys, (self.__dict__.get("layer"), *self.before), 0)

    def _gx_replace(self, new: Mapping[int, Any]) -> Any:
        children = [self.layer, *self.before]
        for i, child in new.items():
            children[i] = child
        layer, *rest = children
        before = type(self.before)(*rest) if rest else ()
        return shallow_copy(self, layer=layer, before=before)
