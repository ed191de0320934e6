"""The layers that one insertion puts in: by label or position, given as they are or made for each match."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx

from ..paths.edit import Items
from ..paths.search import Match
from ..structure.call import fold_key
from .arguments import Each, check_key, edit_by
from .inference import InferenceMode


class NewLayers:
    """What stands beside each match after an insertion, in the `inference` mode of the model."""

    def __init__(self, layers: Sequence[Any], labelled: Mapping[str, Any], mode: InferenceMode):
        """`labelled` may hold `key=`: a random key if it is an array, else a layer of this label."""
        labelled, self._mode = dict(labelled), mode
        self._key = labelled.pop("key") if eqx.is_array(labelled.get("key")) else None
        if len(layers) == 1 and isinstance(layers[0], Mapping) and not labelled:
            layers, labelled = (), dict(layers[0])
        items: Items = [*((None, layer) for layer in layers), *labelled.items()]
        if not items:
            raise TypeError("There is nothing to insert: give layers, by label or by position.")
        check_key([layer.fn for _, layer in items if isinstance(layer, Each)], self._key)
        self._items = [(label, self._settled(layer)) for label, layer in items]

    def at(self, match: Match) -> Items:
        """The `(label or None, layer)` pairs to put in at one match."""
        return [(label, self._made(i, match)) for i, (label, _) in enumerate(self._items)]

    def _made(self, number: int, match: Match) -> Any:
        label, layer = self._items[number]
        if not isinstance(layer, Each):
            return layer
        key = None if self._key is None else fold_key(self._key, label or number)
        return self._settled(edit_by(layer.fn, lambda: match.path, key)(match.node))

    def _settled(self, layer: Any) -> Any:
        return layer if isinstance(layer, Each) else self._mode.given_to(layer, None)
