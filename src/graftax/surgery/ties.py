"""One array at two places."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax

from ..paths.edit import at, edited
from ..paths.path import render
from ..paths.search import Match, search_all
from ..paths.tree import INNER, Level
from ..structure.wrappers import Wrapper
from .hints import described
from .relink import Address, Links, alike, relinked
from .selecting import select


class Tied(Wrapper):
    """A model in which some arrays stand in two places: stored once, differentiated once.

    Made by `graftax.tie`. As a pytree it holds `None` at the second place; whoever reads, calls or
    walks it sees the array there. An edit of the first place holds for both; an edit of the second
    place alone ends the tie; an edit of both keeps it, with what the first became, unless shape or
    dtype then differ. Where the array is moved, the tie goes with it; where it is removed, or its
    layer gives way to one of another type, the tie ends, and other places keep the array.

    Source: `eqx.nn.Shared`.
    """

    links: Links = eqx.field(static=True)

    _gx_same: ClassVar[bool] = True

    def __init__(self, layer: Any, links: Links):
        """**Arguments:**

        - `layer`: the model, with all its arrays.
        - `links`: (address of the source, address of the target) of each tie.
        """
        self.layer, self.links = _holed(layer, links), links

    def resolved(self) -> Any:
        """The model with the array at both places."""
        return edited(
            self.layer,
            {target: _constant(at(self.layer, source)) for source, target in self.links},
        )

    def _run(self, x: Any, state: Any, key: Any, context: Mapping[str, Any]) -> tuple[Any, Any]:
        return Wrapper(self.resolved())._run(x, state, key, context)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("layer", "links"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        model = self.resolved()
        return self._part(model, getattr(model, name))

    def __getitem__(self, index: Any) -> Any:
        model = self.resolved()
        return self._part(model, model[index])

    def __iter__(self) -> Iterator[Any]:
        model = self.resolved()
        return (self._part(model, layer) for layer in model)

    def _part(self, model: Any, part: Any) -> Any:
        """What was read from the resolved model: tied too, if it holds two places of a tie."""
        sources = (at(self.layer, source) for source, _ in self.links)
        shared = {id(source) for source in sources if eqx.is_array(source)}
        if sum(id(leaf) in shared for leaf in jax.tree.leaves(part)) < 2:
            return part
        links = relinked(model, part, self.links)
        return Tied(part, links) if links else part

    def _gx_level(self) -> Level:
        return Level((INNER,), (self.resolved(),), 0)

    def _gx_replace(self, new: Mapping[int, Any]) -> Any:
        links = relinked(self.resolved(), new[0], self.links)
        return Tied(new[0], links) if links else new[0]


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


def _holed(model: Any, links: Links) -> Any:
    return edited(model, {target: _constant(None) for _, target in links})


def tie(model: Any, source: Any, target: Any) -> Any:
    """The model with the array at `source` at `target` too: stored once, differentiated once.

    **Arguments:**

    - `model`: any pytree.
    - `source`: a criterion, as in `graftax.select`, that picks one array.
    - `target`: a criterion that picks the one array whose place it takes; the same shape and dtype.

    **Returns:**

    The model in a transparent wrapper: no path changes. `None` stands at the target in the pytree,
    so that its leaves hold the array once.

    **Raises:**

    - `NoMatchError`, `MatchError`: `source` or `target` does not pick exactly one node.
    - `TypeError`: they are no arrays.
    - `ValueError`: they are one and the same place, or differ in shape or dtype.

    **Example:**

    ```python
    >>> import equinox as eqx, graftax as gx, jax
    >>> k1, k2 = jax.random.split(jax.random.key(0))
    >>> model = gx.Chain(embed=eqx.nn.Embedding(9, 4, key=k1), head=eqx.nn.Linear(4, 9, key=k2))
    >>> tied = gx.tie(model, "embed.weight", "head.weight")
    >>> tied.head.weight is tied.embed.weight
    True
    >>> [leaf.shape for leaf in jax.tree.leaves(tied)]
    [(9, 4), (9,)]

    ```
    """
    base, links = _opened(model)
    first, second = (_only_array(base, place) for place in (source, target))
    if first.address == second.address:
        raise ValueError(f"{first.path!r} cannot be tied to itself.")
    if not alike(first.node, second.node):
        raise ValueError(
            f"Only arrays of one shape and dtype can be tied: {first.path!r} is "
            f"{described(first.node)}, {second.path!r} is {described(second.node)}."
        )
    origin = {old_target: old_source for old_source, old_target in links}
    root = origin.get(first.address, first.address)
    moved = [(root if s == second.address else s, t) for s, t in links if t != second.address]
    new_links = tuple(dict.fromkeys((s, t) for s, t in (*moved, (root, second.address)) if s != t))
    return Tied(base, new_links) if new_links else model


def edited_apart(model: Any, edit: Callable[[Any], Any]) -> Any:
    """`edit(model)`, where what becomes of a tied array in one place is not what it is in the other.

    The tie of an array that was changed ends; all others stay.
    """
    base, links = _opened(model)
    if not links:
        return edit(model)
    new = edit(base)
    before, after = (_array_counts(tree) for tree in (base, new))
    kept = [link for link in links if before[i := id(at(base, link[0]))] == after[i]]
    new_links = relinked(base, new, tuple(kept))
    return Tied(new, new_links) if new_links else new


def _array_counts(tree: Any) -> Counter[int]:
    return Counter(id(match.node) for match in search_all(tree, eqx.is_array))


def _opened(model: Any) -> tuple[Any, Links]:
    """The model without `Tied` anywhere in it, and the ties that these held."""
    found = search_all(model, lambda node: isinstance(node, Tied))
    links = [
        tuple(_without_ties(model, (*match.address, 0, *end)) for end in link)
        for match in found
        for link in match.node.links
    ]
    opened = edited(model, {match.address: lambda node: node.resolved() for match in found})
    return opened, tuple((source, target) for source, target in links)


def _without_ties(model: Any, address: Address) -> Address:
    steps, node = [], model
    for i in address:
        if not isinstance(node, Tied):
            steps.append(i)
        node = at(node, (i,))
    return tuple(steps)


def _only_array(model: Any, criterion: Any) -> Match:
    selection = select(model, criterion).expect(1)
    (match,) = selection.matches
    if not eqx.is_array(match.node):
        inside = search_all(match.node, eqx.is_array)
        hint = f" Did you mean {render((*match.keys, *inside[0].keys))!r}?" if inside else ""
        raise TypeError(
            f"Only arrays can be tied; {match.path!r} is of type {type(match.node).__name__}.{hint}"
        )
    return match
