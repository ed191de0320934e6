"""Layers that change how one layer is run and do not show in paths."""

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import wadler_lindig as wl

from ..paths.functor import children
from ..paths.tree import INNER, Level, dynamic_fields, shallow_copy, values_of
from .access import Selectable
from .calling import (
    call_layer,
    check_context,
    declared_keywords,
    is_stateful,
    overridden_call_keywords,
    split_inputs,
)
from .notes import reroot
from .printing import layer_doc


class Wrapper(Selectable, eqx.nn.StatefulLayer):
    """One layer, run in another way; to paths, attributes and items it is not there.

    So wrapping a layer changes no path and no checkpoint key: `Wrapper(m).stem is m.stem`. Subclass
    it for a wrapper of your own; `super().__call__` runs the wrapped layer by graftax's convention.

    **Example:**

    ```python
    >>> import graftax as gx
    >>> class Doubled(gx.Wrapper):
    ...     "Twice what the layer gives."
    ...     def __call__(self, x, **keywords):
    ...         return 2 * super().__call__(x, **keywords)
    >>> model = Doubled(gx.Chain(next=lambda x: x + 1))
    >>> model(3), len(model), model.labels
    (8, 1, ('next',))

    ```
    """

    layer: Any

    _gx_same: ClassVar[bool] = False
    """Whether it computes just what it holds: then what happens inside can be looked at."""

    def __init__(self, layer: Callable):
        """**Arguments:**

        - `layer`: the layer to run.

        **Raises:**

        - `TypeError`: it is not callable.
        - `ValueError`: it has a child of the same name as a field of the wrapper's own.
        """
        if not callable(layer):
            raise TypeError(
                f"{type(self).__name__} wraps a callable; got {layer!r} of type "
                f"{type(layer).__name__}."
            )
        self.layer = layer
        type(self)._check_names(self, dynamic_fields(type(self), "layer"))

    def _check_names(self, names: Iterable[str]) -> None:
        # Both would stand at one path.
        hidden = sorted(set(names) & set(children(self.layer)))
        if hidden:
            raise ValueError(
                f"{type(self).__name__} would hide {hidden[0]!r} of the {type(self.layer).__name__} it "
                "wraps: it has a field of that name itself. Rename the label, or do not wrap twice."
            )

    def __call__(self, /, *inputs: Any, state: Any = None, key: Any = None, **context: Any) -> Any:
        """As a call of the wrapped layer: the output; with `state`, the pair `(output, state)`."""
        x, state = split_inputs(type(self).__name__, inputs, state)
        check_context(self, context)
        y, new_state = type(self)._run(self, x, state, key, context)
        return y if state is None else (y, new_state)

    def _run(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        return _call_held(self, self.layer, x, state, key, context)

    def is_stateful(self) -> bool:
        """Whether the wrapped layer keeps an Equinox state."""
        return is_stateful(self.layer)

    def _gx_declared(self) -> frozenset[str] | None:
        inside = declared_keywords(self.layer)
        own = overridden_call_keywords(type(self), Wrapper)
        return None if inside is None else inside | own

    def __getattr__(self, name: str) -> Any:
        # Private names belong to whoever asks for them; `layer` is missing only while JAX unflattens.
        if name.startswith("_") or name == "layer":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.layer, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.layer)})

    def __getitem__(self, index: Any) -> Any:
        return self.layer[index]

    def __len__(self) -> int:
        return len(self.layer)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layer)

    def __contains__(self, label: object) -> bool:
        return label in self.layer

    def _gx_level(self) -> Level:
        own = dynamic_fields(type(self), "layer")
        return Level((INNER, *own), tuple(map(values_of(self).get, ("layer", *own))), 0)

    def _gx_replace(self, new: Mapping[int, Any]) -> Any:
        names = ("layer", *dynamic_fields(type(self), "layer"))
        return shallow_copy(self, **{names[i]: child for i, child in new.items()})

    def __pdoc__(self, **kwargs: Any) -> wl.AbstractDoc:
        return layer_doc(self, [(None, self.layer)], **kwargs)


def _call_held(
    wrapper: Wrapper, layer: Any, x: Any, state: Any, key: Any, context: Mapping[str, Any]
) -> tuple[Any, Any]:
    """`call_layer` for what a wrapper holds, or a copy of it, with the path in a note made whole."""
    try:
        return call_layer(layer, (x,), state, key, context)
    except Exception as error:
        reroot(error, wrapper, layer)
        raise


def unwrap(layer: Any) -> Any:
    """The layer inside all wrappers: the one that a type criterion reaches."""
    while isinstance(layer, Wrapper):
        layer = layer.layer
    return layer


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

    def __init__(self, layer: Callable, *, axis_name: Hashable | None = None):
        """**Arguments:**

        - `layer`: maps an input without the leading axis.
        - `axis_name`: a name for the axis, as `eqx.nn.BatchNorm` asks for.

        **Raises:**

        - `TypeError`: `layer` is not callable.
        - `ValueError`: when called, on an input without a leading axis.
        """
        super().__init__(layer)
        self.axis_name = axis_name

    def _run(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        count = _leading_axis(x)
        keys = None if key is None else jax.random.split(key, count)
        run = jax.vmap(
            lambda x, state, key: _call_held(self, self.layer, x, state, key, context),
            in_axes=(0, None, 0),
            out_axes=(0, None),
            axis_name=self.axis_name,
        )
        return run(x, state, keys)


def _leading_axis(x: Any) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(x)]
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

    _gx_same: ClassVar[bool] = True

    def _run(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        run = eqx.filter_checkpoint(functools.partial(_call_held, self))
        return run(self.layer, x, state, key, context)


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

    def __init__(self, layer: Callable, dtype: Any):
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
        if not jnp.issubdtype(self.dtype, jnp.floating):
            raise TypeError(f"Cast takes a floating-point dtype; got {self.dtype}.")

    def _run(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        layer, x = jax.tree.map(self._cast, (self.layer, x))
        return _call_held(self, layer, x, state, key, context)

    def _cast(self, leaf: Any) -> Any:
        is_array = isinstance(leaf, (jax.Array, np.ndarray, np.generic))
        is_floating = is_array and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(self.dtype) if is_floating else leaf
