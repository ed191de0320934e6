"""`functools.singledispatch`, extended to labels and paths."""

import inspect
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from jaxtyping import PRNGKeyArray

from ..paths.errors import did_you_mean, listed
from ..paths.path import join
from ..paths.tree import INNER, level_of
from ..structure.labels import layer_name
from ..structure.signature import signature_of
from .arguments import edit_by
from .graft import graft_edits
from .rule import Rule, annotated_type, read_rules

F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M")


Address = tuple[int, ...]
States = dict[int, int]
"""From the number of a rule to where its pattern stands."""


class Dispatch:
    """A function of a layer, chosen by the path, label or type of the layer. See `graftax.dispatch`."""

    def __init__(self, default: Callable[..., Any]):
        self.__doc__ = default.__doc__
        self.__name__: str = layer_name(default)
        self.__wrapped__ = default
        self._default = Rule(default, None, (0, 0, 0), None)
        self._rules: tuple[Rule, ...] = ()

    @overload
    def register(
        self,
        criterion: "str | re.Pattern[str] | type | types.UnionType | tuple[type, ...]",
        fn: None = None,
    ) -> Callable[[F], F]: ...

    @overload
    def register(self, criterion: F, fn: None = None) -> F: ...

    @overload
    def register(self, criterion: Any, fn: F) -> F: ...

    def register(self, criterion: Any, fn: Any = None) -> Any:
        """Add a rule: for a pattern, a compiled regular expression, a type, or a tuple of types.

        Used as a decorator, or as `register(criterion, fn)`. As in `functools.singledispatch`, a
        function whose first parameter is annotated with a type can be registered without a criterion.

        Raises `TypeError` for anything else, `PatternError` for a malformed pattern.
        """
        if fn is None and inspect.isfunction(criterion):
            return self.register(annotated_type(criterion), criterion)
        if fn is None:
            read_rules(criterion, self._default.fn, 0)
            return lambda function: self.register(criterion, function)
        if not callable(fn):
            raise TypeError(f"A rule is a function of the layer; got {fn!r}.")
        self._rules = (*self._rules, *read_rules(criterion, fn, len(self._rules)))
        return fn

    def __call__(self, model: M, /, *, key: PRNGKeyArray | None = None, **extra: Any) -> M:
        """The model with every layer given to its rule, deepest first.

        **Arguments:**

        - `model`: any pytree.
        - `key`: a random key; a rule that declares `key` gets its own, folded with the path.
        - `extra`: passed to each rule that takes it.

        **Returns:**

        What the rules make of it; containers are rebuilt around the results.

        **Raises:**

        - `TypeError`: a keyword that no rule declares, or a rule that needs a key and gets none.
        """
        self._check_keywords(key, extra)
        edits = {
            address: edit_by(rule.fn, lambda path=path: path, key, extra)
            for address, path, rule in self._plan(model)
        }
        return graft_edits(model, edits)

    def explain(self, model: Any) -> None:
        """Print which rule takes which path."""
        lines = [(path or "(root)", str(rule)) for _, path, rule in self._plan(model)]
        width = max((len(path) for path, _ in lines), default=0)
        for path, rule in lines:
            print(f"{path:<{width}}  {rule}")

    def _check_keywords(self, key: Any, extra: dict[str, Any]) -> None:
        signatures = [(rule, signature_of(rule.fn)) for rule in (*self._rules, self._default)]
        declared = set().union(*(signature.keywords for _, signature in signatures))
        for name in (*extra, *(("key",) if key is not None else ())):
            if not any(signature.takes(name) for _, signature in signatures):
                raise TypeError(
                    f"No rule of {self.__name__} takes {name!r}. Declared are: "
                    f"{listed(sorted(declared))}.{did_you_mean(name, declared)}"
                )
        for rule, signature in signatures:
            given = {*extra, "path"} | ({"key"} if key is not None else set())
            if missing := sorted(signature.required - given):
                raise TypeError(f"The rule {rule} of {self.__name__} needs {missing[0]}=....")

    def _plan(self, model: Any) -> Iterator[tuple[Address, str, Rule]]:
        """(address, path, rule) of every layer, parents first."""
        # On the numbered level, not on `children`: the matchers run on it, and it tells what a wrapper
        # holds from what it has of its own.
        states = {i: rule.matcher.start for i, rule in enumerate(self._rules) if rule.matcher}
        yield from self._plan_path(model, (), "", states)

    def _plan_path(
        self, node: Any, address: Address, path: str, states: States
    ) -> Iterator[tuple[Address, str, Rule]]:
        nodes = _nodes_of_one_path(node, address)
        for place, rule in self._rules_for(nodes, path, states):
            yield place, path, rule
        # What a wrapper holds comes before what else it has.
        for place, holder in reversed(nodes):
            level = level_of(holder)
            below: list[States] = [{} for _ in level.keys]
            for number, state in states.items():
                if (matcher := self._rules[number].matcher) is not None:
                    for i, after in matcher.next_states(state, level):
                        below[i][number] = after
            for i, (key, child) in enumerate(zip(level.keys, level.children, strict=True)):
                if child is not None and key is not INNER:
                    yield from self._plan_path(child, (*place, i), join(path, key), below[i])

    def _rules_for(
        self, nodes: list[tuple[Address, Any]], path: str, states: States
    ) -> list[tuple[Address, Rule]]:
        """The rules that take the nodes at one path: a wrapper, and what it holds."""
        outermost, node = nodes[0]
        matching = [
            rule
            for number, rule in enumerate(self._rules)
            if not isinstance(rule.criterion, type) and _holds(rule, path, states.get(number, 0))
        ]
        if matching:
            return [(outermost, max(matching, key=lambda rule: rule.rank))]
        taken: list[tuple[Address, Rule]] = []
        for address, each in nodes:
            rule = self._rule_by_type(each)
            if rule is not None and all(rule is not other for _, other in taken):
                taken.append((address, rule))
        # Arrays and the like are no layers: only a rule of their own takes them.
        return taken or ([(outermost, self._default)] if callable(node) else [])

    def _rule_by_type(self, node: Any) -> Rule | None:
        mro = type(node).__mro__
        best, best_rank = None, (0, 0)
        for rule in self._rules:
            if isinstance(rule.criterion, type) and isinstance(node, rule.criterion):
                # The nearest in the MRO wins; a virtual base class is farther than any real one.
                distance = mro.index(rule.criterion) if rule.criterion in mro else len(mro)
                if best is None or (-distance, rule.rank[2]) > best_rank:
                    best, best_rank = rule, (-distance, rule.rank[2])
        return best


def _nodes_of_one_path(node: Any, address: Address) -> list[tuple[Address, Any]]:
    """A node with its address; then, if it is a wrapper, what it holds, and so on inwards."""
    nodes = [(address, node)]
    while (level := level_of(nodes[-1][1])).keys and level.keys[0] is INNER:
        nodes.append(((*nodes[-1][0], 0), level.children[0]))
    return nodes


def _holds(rule: Rule, path: str, state: int) -> bool:
    if rule.matcher is None:
        return rule.criterion.fullmatch(path) is not None
    return rule.matcher.accepts(state)


def dispatch(default: Callable[..., Any]) -> Dispatch:
    """A function over all layers of a model, chosen for each by its path, label or type.

    The decorated function is the default, for layers that no rule matches. Most specific first: full
    path, pattern (more literal components first), label, type (nearest in the MRO), default. Of
    equals, the rule registered last. Rules run deepest first; containers are rebuilt around the
    results. Labels and paths take the outermost layer at a path, and then types are not asked; types
    reach what wrappers hold.

    **Arguments:**

    - `default`: a function of the layer. Like every rule, it is given `path=`, `key=` and the extra
        keywords of the call if it declares them.

    **Returns:**

    A `Dispatch`: call it on a model, `register` rules, or `explain(model)`.

    **Raises:**

    - `TypeError`: `default` is not callable.

    Source: `functools.singledispatch`, Julia's multiple dispatch.

    **Example:**

    ```python
    >>> import graftax as gx, jax, jax.numpy as jnp
    >>> @gx.dispatch
    ... def swap(layer):
    ...     return layer
    >>> @swap.register("bottleneck")
    ... def _(layer, path):
    ...     return gx.Chain(inner=layer, act=jax.nn.silu)
    >>> swap(gx.Chain(stem=abs, bottleneck=abs))
    Chain(stem=abs, bottleneck=Chain(inner=abs, act=silu))

    ```
    """
    if not callable(default):
        raise TypeError(f"The default of a dispatch is a function of the layer; got {default!r}.")
    return Dispatch(default)
