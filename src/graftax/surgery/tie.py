"""One array at two places."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx

from ..paths.search import Match, search
from ..paths.tree import INNER, Level
from ..structure.wrappers import Wrapper
from .edit import at, edited
from .hints import described
from .select import select

Address = tuple[int, ...]
Links = tuple[tuple[Address, Address], ...]


class Tied(Wrapper):
    """A model in which some arrays stand in two places: stored once, differentiated once.

    Made by `graftax.tie`. As a pytree it holds `None` at the second place; whoever reads, calls or
    walks it sees the array there. An edit of the first place holds for both; an edit of the second
    place alone ends the tie; and an edit of both keeps it, with what the first became.

    Source: `eqx.nn.Shared`.
    """

    links: Links = eqx.field(static=True)

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
        return getattr(self.resolved(), name)

    def __getitem__(self, index: Any) -> Any:
        return self.resolved()[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.resolved())

    def _gx_level(self) -> Level:
        return Level((INNER,), (self.resolved(),), 0)

    def _gx_replace(self, new: Mapping[int, Any]) -> Any:
        links = _relinked(self.resolved(), new[0], self.links)
        return Tied(new[0], links) if links else new[0]


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


def _holed(model: Any, links: Links) -> Any:
    return edited(model, {target: _constant(None) for _, target in links})


def _peek(model: Any, address: Address) -> Any:
    try:
        return at(model, address)
    except IndexError:
        return None


def _alike(a: Any, b: Any) -> bool:
    return eqx.is_array(a) and eqx.is_array(b) and a.shape == b.shape and a.dtype == b.dtype


def _relinked(before: Any, after: Any, links: Links) -> Links:
    """The ties that hold after an edit of the resolved model."""
    targets: dict[Address, list[Address]] = {}
    for source, target in links:
        targets.setdefault(source, []).append(target)
    return tuple(
        link
        for source, several in targets.items()
        for link in _group(before, after, source, several)
    )


def _group(before: Any, after: Any, source: Address, targets: list[Address]) -> Links:
    shared = at(before, source)
    if all(_peek(after, place) is shared for place in (source, *targets)):
        return tuple((source, target) for target in targets)
    places = [match.address for match in search(after, None, [lambda node: node is shared])]
    edited_source = _peek(after, source)
    if len(places) > len(targets):
        # All are still there: they have only moved.
        source, targets = places[0], places[1:]
    elif edited_source is shared:
        targets = [target for target in targets if target in places]
    elif _alike(edited_source, shared):
        targets = [target for target in targets if _alike(_peek(after, target), edited_source)]
    else:
        source, targets = (places[0], places[1:]) if places else (source, [])
    return tuple((source, target) for target in targets)


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
    base, links = (model.resolved(), model.links) if isinstance(model, Tied) else (model, ())
    first, second = (_only_array(base, place) for place in (source, target))
    if first.address == second.address:
        raise ValueError(f"{first.path!r} cannot be tied to itself.")
    if not _alike(first.node, second.node):
        raise ValueError(
            f"Only arrays of one shape and dtype can be tied: {first.path!r} is "
            f"{described(first.node)}, {second.path!r} is {described(second.node)}."
        )
    origin = {old_target: old_source for old_source, old_target in links}
    root = origin.get(first.address, first.address)
    moved = [(root if s == second.address else s, t) for s, t in links if t != second.address]
    new_links = tuple(dict.fromkeys((s, t) for s, t in (*moved, (root, second.address)) if s != t))
    return Tied(base, new_links) if new_links else model


def _only_array(model: Any, criterion: Any) -> Match:
    selection = select(model, criterion).expect(1)
    (match,) = selection.matches
    if not eqx.is_array(match.node):
        raise TypeError(
            f"Only arrays can be tied; {match.path!r} is a {type(match.node).__name__}. "
            f"Did you mean {match.path + '.weight'!r}?"
        )
    return match
