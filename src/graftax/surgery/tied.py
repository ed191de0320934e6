"""A model in which some arrays stand in two places."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import equinox as eqx

from ..paths.edit import at, edited
from ..paths.search import search_all
from ..paths.tree import INNER, Level, level_of, nodes_of
from ..structure.call import Call
from ..structure.wrapper import Wrapper
from .relink import Address, Links, can_be_tied, relinked
from .same import identity

M = TypeVar("M")


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

    same_function: ClassVar[bool] = True

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

    def forward(self, call: Call, /, *inputs: Any) -> Any:
        """What the model gives."""
        return call(self.resolved(), *inputs)

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
        if not level_of(part).children:
            return part
        shared = {identity(at(model, source)) for source, _ in self.links}
        counts = Counter(identity(match.node) for match in search_all(part, can_be_tied))
        if not any(counts[each] > 1 for each in shared):
            return part
        return with_links(part, relinked(model, part, self.links))

    def tree_level(self) -> Level:
        return Level((INNER,), (self.resolved(),), 0)

    def tree_replace(self, new: Mapping[int, Any]) -> Any:
        return with_links(new[0], relinked(self.resolved(), new[0], self.links))


def with_links(model: M, links: Links) -> M:
    """The model with these ties; the model itself if there are none."""
    # It stands for the model everywhere, in types too.
    tied: Any = Tied(model, links) if links else model
    return tied


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


def _holed(model: Any, links: Links) -> Any:
    return edited(model, {target: _constant(None) for _, target in links})


def tied_addresses(model: Any) -> dict[Address, Address]:
    """From where a tied array stands second to where it stands first; the same for values of state.

    What is tied is one parameter, one tensor in a file, one value of state: whoever counts or stores
    leaves these places out. An array that stands twice without being tied is two.
    """
    found = {}
    for address, node in _ties_in(model):
        inside = (*address, 0)
        found.update({inside + target: inside + source for source, target in node.links})
    return found


def _ties_in(model: Any) -> Iterator[tuple[Address, Tied]]:
    return ((address, node) for address, node in nodes_of(model) if isinstance(node, Tied))


def opened(model: M) -> tuple[M, Links]:
    """The model without `Tied` anywhere in it, and the ties that these held."""
    # From an address in the model to that in the opened one, which lacks the step into each `Tied`.
    places: dict[Address, Address] = {(): ()}
    ties: dict[Address, Tied] = {}
    for address, node in nodes_of(model):
        if address:
            above, i = address[:-1], address[-1]
            places[address] = places[above] if above in ties else (*places[above], i)
        if isinstance(node, Tied):
            ties[address] = node
    links = tuple(
        (places[(*address, 0, *source)], places[(*address, 0, *target)])
        for address, node in ties.items()
        for source, target in node.links
    )
    return edited(model, {address: lambda node: node.resolved() for address in ties}), links


def edited_apart(model: M, edit: Callable[[Any], Any]) -> M:
    """`edit(model)`, where what becomes of a tied array in one place is not what it is in the other.

    The tie of an array that was changed ends; all others stay.
    """
    base, links = opened(model)
    if not links:
        return edit(model)
    new = edit(base)
    before, after = (_counts(tree) for tree in (base, new))
    kept = [link for link in links if before[i := identity(at(base, link[0]))] == after[i]]
    return with_links(new, relinked(base, new, tuple(kept)))


def _counts(tree: Any) -> Counter[Any]:
    return Counter(identity(match.node) for match in search_all(tree, can_be_tied))
