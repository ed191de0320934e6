"""One call of a model: the record that is handed inwards, and the one place where a child is run.

How it works. `Node.__call__` is the door of a model: it makes a `Call` and hands it to `forward`. A node
runs what it holds by calling the record, `call(layer, x, label="stem")`. If the child is a node itself,
it gets a record of its own (its random key, its path) and its `forward` is run; there is no second
door. Any other layer is called as its signature asks. So state, keys, keywords, scopes and notes on errors
are dealt with here and nowhere else, whatever the node and however deep; each level does the same small
amount of work once, so the cost of a call is linear in the number of nodes it runs.

The state is the one thing that changes during a call: `call.state` is the state after the children
run so far. That is safe because a record lives for one run of one `forward`. Where a node runs a child
inside a transformation of JAX, what happens inside must be a pure function: that is `call.pure()`.

For example, `Chain(stem=BatchNorm, body=Chain(drop=Dropout))(x, state, key=key)`:

1. The door makes `Call(path=(), state=state, key=key)`; `Chain.forward` runs `stem` through it.
2. `stem` is a layer of Equinox that declares a state and no key: it is called with `call.state`, and what
   it returns is the new `call.state`.
3. `body` is a node: it gets `Call(path=("body",), state=call.state, key=fold_key(key, "body"))`, and when
   its `forward` has run, the state of that record becomes `call.state`.
4. The door returns the output and `call.state`.
"""

import zlib
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from typing import Any

import equinox as eqx
import jax

from ..paths.tree import INNER
from .above import Above
from .keywords import Takers, add_context, takers_of
from .labels import layer_name
from .notes import annotate
from .signature import signature_of
from .stateful import NO_STATE, declares_state

PureCall = Callable[[Any, tuple[Any, ...], Any, Any], tuple[Any, Any]]
"""From `(layer, inputs, state, key)` to `(output, state)`."""


def fold_key(key: Any, label: Hashable) -> Any:
    """The random key of the child `label`: `fold_in(key, crc32(label))`, or the position itself.

    It depends on the label alone, so a layer that is added does not change what the others draw.
    """
    if key is None or label is INNER:
        return key
    data = label if isinstance(label, int) else zlib.crc32(str(label).encode())
    return jax.random.fold_in(key, data)


def again_key(key: Any, label: Hashable, i: int) -> Any:
    """The key of a container for call `i` of its child `label`, where it calls that child again.

    The first call is as if it were the only one.
    """
    return key if key is None or i == 0 else fold_key(fold_key(key, label), i)


class Call:
    """What a node is given besides its inputs, and the way to run what it holds.

    `call(layer, *inputs)` runs what a wrapper wraps; `call(layer, *inputs, label="stem")` runs the child of
    that label, with a random key, a scope and a path of its own. `call.state`, `call.key` and
    `call.context` are there to be read.
    """

    __slots__ = ("context", "key", "node", "path", "root", "state", "takers")

    node: Any
    root: Any
    state: Any
    key: Any
    context: Mapping[str, Any]

    def __init__(self, node: Any, state: Any, key: Any, context: Mapping[str, Any], inputs: int):
        """The record of a call from outside.

        Raises `TypeError` for a keyword that nobody takes, `ValueError` for two layers with one state.
        """
        if state is not None and state is not NO_STATE:
            Above.check_markers(node)
        self.node = self.root = node
        self.state, self.key, self.context = state, key, context
        self.path: tuple[Hashable, ...] = ()
        """The labels from the model to this node."""
        self.takers: Takers | None = (
            takers_of(node, inputs).checked(node, context) if context else None
        )

    def __call__(self, layer: Any, /, *inputs: Any, label: Hashable = INNER, again: int = 0) -> Any:
        """The output of a layer that this node holds.

        **Arguments:**

        - `layer`: what to run: the child itself, or what this node makes of it.
        - `inputs`: what it is given by position. A container takes several as one tuple.
        - `label`: the label or position of the child. Without one it is what a wrapper wraps: it has the
            path and the random key of the wrapper.
        - `again`: how often this child was run before in this call, so that it draws anew.
        """
        key = self.key
        if label is not INNER and key is not None:
            # Folding costs a little time in tracing: it is not done for those who take no key.
            takes_key = signature_of(layer).takes("key", len(inputs))
            key = fold_key(again_key(key, label, again), label) if takes_key else None
        return self.run(layer, inputs, label, key)

    def pure(self, label: Hashable = INNER) -> PureCall:
        """The run of a child as a pure function, to be transformed by JAX.

        **Arguments:**

        - `label`: the label or position of the child; what a wrapper wraps, without one.

        **Returns:**

        A function `(layer, inputs, state, key) -> (output, state)`, where `inputs` is a tuple and `key` the
        child's own. Give what it returns as the state to `call.state`.
        """

        def run(layer: Any, inputs: tuple[Any, ...], state: Any, key: Any) -> tuple[Any, Any]:
            inside = self._record(self.node, self.path, state, self.key, self.takers)
            y = inside.run(layer, inputs, label, key)
            return y, inside.state

        return run

    def run(self, layer: Any, inputs: tuple[Any, ...], label: Hashable, key: Any) -> Any:
        """Run a child with this very key. The one place where children are run."""
        try:
            takers = None if self.takers is None else self.takers.of(label, layer, len(inputs))
            with nullcontext() if label is INNER else jax.named_scope(str(label)):
                if not getattr(type(layer), "runs_by_record", False):
                    return self._run_layer(layer, inputs, label, key, takers)
                path = self.path if label is INNER else (*self.path, label)
                inside = self._record(layer, path, self.state, key, takers)
                y = type(layer).forward(layer, inside, *type(layer)._packed(layer, inputs))
                self.state = inside.state
                return y
        except Exception as error:
            annotate(error, self, label, layer, inputs)
            raise

    def _record(
        self, node: Any, path: tuple[Hashable, ...], state: Any, key: Any, takers: Takers | None
    ) -> "Call":
        new = object.__new__(type(self))
        new.node, new.root, new.path = node, self.root, path
        new.state, new.key, new.context = state, key, self.context
        new.takers = takers
        return new

    def _run_layer(
        self, layer: Any, inputs: tuple[Any, ...], label: Hashable, key: Any, takers: Takers | None
    ) -> Any:
        """A layer that is no node, or has a `__call__` of its own: it is given what it declares."""
        if not callable(layer):
            raise TypeError(
                f"{layer!r} of type {type(layer).__name__} stands where a layer should."
            )
        keywords = {} if takers is None else takers.among(self.context)
        layer, keywords = add_context(layer, keywords, takers)
        if key is not None and signature_of(layer).takes("key", len(inputs)):
            keywords["key"] = key
        if not declares_state(layer):
            return layer(*inputs, **keywords)
        if self.state is not None and self.state is not NO_STATE:
            y, self.state = layer(*inputs, state=self.state, **keywords)
            return y
        return self._run_with_held_state(layer, inputs, keywords)

    def _run_with_held_state(
        self, layer: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """A layer that takes a state, where none was given: its own does if it will not change."""
        required = "state" in signature_of(layer).required
        mode = keywords.get("inference")
        # What holds others inside, as a `Sequential` does, may get along without: they say who cannot.
        if Above.has_state(layer) and (required or Above.held_state(layer, mode) is not None):
            run = lambda state: layer(*inputs, state=state, **keywords)
            return Above.with_held_state(layer, run, mode)
        if required:
            raise TypeError(
                f"{layer_name(layer)} keeps a state: call the model as model(x, state=state), with "
                "the state that eqx.nn.make_with_state gave."
            )
        return layer(*inputs, **keywords)


def split_inputs(owner: str, inputs: tuple[Any, ...], state: Any) -> tuple[tuple[Any, ...], Any]:
    """`(inputs, state)`: a state may come last, as Equinox passes it. Raises `TypeError`."""
    if inputs and isinstance(inputs[-1], eqx.nn.State):
        if state is not None:
            raise TypeError(f"{owner} was given a state twice: by position and by keyword.")
        *rest, state = inputs
        inputs = tuple(rest)
    if not inputs:
        raise TypeError(f"{owner} was called without an input.")
    return inputs, state
