"""The protocol of graftax: what every container and every wrapper is.

A node says four things of itself, and everything else in graftax follows from them.

| method | what it says |
|---|---|
| `forward(call, *inputs)` | what it computes; `call(layer, x)` runs what it holds |
| `tree_level()` | which children it has, and under which labels |
| `tree_replace(new)` | the same node with other children |
| `tree_rearrange(items)` | the same node with more, fewer or renamed children, if it can have them |

A subclass of a container or of `Wrapper` inherits the last three, and says what it computes only if that
is something new.
"""

import abc
import inspect
from collections.abc import Callable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import wadler_lindig as wl

from ..paths.tree import Level, TreeNode, shallow_copy, values_of
from ..paths.types import Self
from .above import Above
from .call import Call, split_inputs
from .pickling import found, in_tree, named
from .printing import Child, layer_doc, treescope_of
from .stateful import declares_state

_getattribute = object.__getattribute__
_ModuleMeta = type(eqx.Module)

if TYPE_CHECKING:

    class _NodeMeta(type(eqx.Module)):
        # A metaclass with a `__call__` hides the constructor from type checkers, and that of Equinox
        # makes them think that a subclass takes its fields as arguments: one of our own does neither.
        pass
else:
    from .labels import CLS

    class _NodeMeta(_ModuleMeta):
        # Equinox's metaclass and `__new__` call their own first argument `cls`: a label goes round them.
        def __call__(cls, /, *args: Any, **kwargs: Any) -> Any:
            if "cls" in kwargs:
                kwargs = {CLS if key == "cls" else key: value for key, value in kwargs.items()}
            return super().__call__(*args, **kwargs)

        @property
        def __signature__(cls) -> inspect.Signature:
            # What a notebook shows: the constructor, not the line above.
            own = inspect.signature(cls.__init__)
            return own.replace(parameters=list(own.parameters.values())[1:])


class Node(TreeNode, eqx.nn.StatefulLayer, metaclass=_NodeMeta):
    """The base of containers and wrappers: a layer that runs the layers it holds by one record of the call.

    Its meaning is its `forward`; state, random keys, context keywords, scopes and notes on errors are dealt
    with by the record (`graftax.structure.call`).

    Source: Lineax's `AbstractLinearOperator` (a few abstract methods say what a thing is); Functors.jl (the
    pair of children and rebuild).
    """

    runs_by_record: ClassVar[bool] = True
    """Whether a call of it is a call of `forward`: false for a subclass with a `__call__` of its own."""

    same_function: ClassVar[bool] = False
    """Whether it computes just what it wraps: then what happens inside can be looked at."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.runs_by_record = "__call__" not in vars(cls) and cls.runs_by_record

    @abc.abstractmethod
    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """The output for these inputs. What the node holds is run by `call`.

        **Arguments:**

        - `call`: the record of this call: `call(layer, *inputs)` runs what a wrapper wraps,
            `call(layer, *inputs, label=...)` the child of that label. `call.state`, `call.key` and
            `call.context` can be read.
        - `inputs`: what the node was given by position. A container is given several as one tuple.

        **Returns:**

        The output, without the state: that is `call.state`.
        """

    def _packed(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs as `forward` takes them: as they are."""
        return inputs

    def __call__(self, /, *inputs: Any, state: Any = None, key: Any = None, **context: Any) -> Any:
        """**Arguments:**

        - `inputs`: the input; to a container, several are one tuple. An `eqx.nn.State` may come last.
        - `state`: the `eqx.nn.State` of the model, if any layer keeps one.
        - `key`: a random key. Each child draws from its own, folded with its label or position; one
            that is called again draws anew.
        - `context`: any other keyword goes to each layer, at any depth, that declares it.

        **Returns:**

        The output; with `state`, the pair `(output, state)`.

        **Raises:**

        - `TypeError`: a keyword that no layer declares, or no input.
        - Whatever a layer raises, with one note that says where, which layer and which shapes.
        """
        inputs, state = split_inputs(type(self).__name__, inputs, state)
        # By way of the class, here and elsewhere: a bound method of a module is a module to Equinox, and
        # making one flattens all that the layer holds.
        inputs = type(self)._packed(self, inputs)
        call = Call(self, state, key, context, len(inputs))
        y = type(self).forward(self, call, *inputs)
        return y if state is None else (y, call.state)

    def is_stateful(self) -> bool:
        """Whether any layer, at any depth, keeps an Equinox state."""
        return any(map(declares_state, type(self).tree_level(self).children))

    def replace_where(self, where: Any, fn: Callable[..., Any], key: Any = None) -> Self:
        """`graftax.replace_where(self, where, fn, key)`: the model with what `where` picks replaced."""
        return Above.replace_where(self, where, fn, key)

    @abc.abstractmethod
    def tree_level(self) -> Level: ...

    @abc.abstractmethod
    def tree_replace(self, new: Mapping[int, Any]) -> Self: ...

    def __getattribute__(self, name: str) -> Any:
        # What Equinox's gives, and all but bound methods in a third of the time.
        value = _getattribute(self, name)
        return super().__getattribute__(name) if type(value) is MethodType else value

    def __copy__(self) -> Self:
        return shallow_copy(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: in_tree(named, value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        values_of(self).update({name: in_tree(found, value) for name, value in state.items()})

    # --- How it is shown ---

    _held: ClassVar[str]
    """The names of the fields that its children stand in, between spaces."""

    @abc.abstractmethod
    def _shown(self) -> list[Child]:
        """The children as they are printed: `(label, child)`, or `(None, child)`."""

    def __pdoc__(self, **kwargs: Any) -> wl.AbstractDoc:
        return layer_doc(self, type(self)._shown(self), self._held, **kwargs)

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        return treescope_of(self, type(self)._shown(self), self._held, path, subtree_renderer)

    def _ipython_key_completions_(self) -> list[str]:
        level = type(self).tree_level(self)
        children = zip(level.keys, level.children, strict=True)
        return [key for key, child in children if isinstance(key, str) and callable(child)]
