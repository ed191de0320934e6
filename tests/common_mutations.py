"""Bytes and JSON, changed as damage or malice would."""

import json
import random
from typing import Any

HOSTILE = (
    "os.system",
    "builtins.eval",
    "builtins.__import__",
    "subprocess.Popen",
    "jax.nn.__loader__",
    "jax.numpy.load",
    "jax.numpy.save",
    "jax.numpy.__class__",
    "equinox.nn.__builtins__",
    "equinox.internal.error_if",
    "equinox.nn.Linear",
    "graftax.Chain",
    "graftax.files.saving.open_source",
    "__reduce__",
    "__class__",
    "__metadata__",
    "../../../etc/passwd",
    "/dev/zero",
    "",
    "." * 50,
    "\ud800",
    "a\0b",
    "x" * 5000,
)
_LONG_NUMBER = "a number of five thousand digits"
NUMBERS = (0, -1, 1, 2, 3, 7, 64, 2000, 2**31, 2**63, -(2**63), 10**30, 0.5, -2.5, 1e308)
NUMBERS = (*NUMBERS, float("nan"), float("inf"), _LONG_NUMBER)


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """The content with some bytes changed, cut out, repeated or put in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 2, 8, 100))
        match rng.choice(("flip", "cut", "grow", "repeat", "blank", "end")):
            case "flip" if at < len(data):
                data[at] = rng.randrange(256)
            case "cut":
                del data[at : at + length]
            case "grow":
                data[at:at] = rng.randbytes(length)
            case "repeat":
                data[at:at] = data[at : at + length]
            case "blank":
                data[at : at + length] = bytes(len(data[at : at + length]))
            case "end":
                del data[len(data) - rng.randint(0, length) :]
        if not data:
            break
    return bytes(data)


def anything(rng: random.Random, depth: int = 3) -> Any:
    """A value of JSON."""
    kind = rng.randrange(8 if depth else 5)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind < 4:
        return rng.choice(HOSTILE)
    if kind == 4:
        return rng.choice((None, True, False, [], {}))
    if kind == 5:
        return {rng.choice(HOSTILE): anything(rng, depth - 1) for _ in range(rng.randint(0, 3))}
    if kind == 6:
        return _nested(rng.choice((50, 5000)))
    return [anything(rng, depth - 1) for _ in range(rng.randint(0, 3))]


def _nested(depth: int) -> str:
    # `json.dumps` is recursive too, so it is put in as text.
    return f"nested {depth}"


def as_text(tree: Any) -> str:
    """The JSON of a tree, with what `json.dumps` cannot write."""
    text = json.dumps(tree).replace(f'"{_LONG_NUMBER}"', "9" * 5000)
    for depth in (50, 5000):
        text = text.replace(f'"nested {depth}"', '{"list":[' * depth + "]}" * depth)
    return text


def _spots(tree: Any, way: tuple = ()) -> list[tuple]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((*way, key))
        if isinstance(value, dict | list):
            found += _spots(value, (*way, key))
    return found


def mutated_json(rng: random.Random, tree: Any) -> Any:
    """The tree with one to three of its entries replaced, removed, copied or called otherwise."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.randint(1, 3)):
        spots = _spots(tree)
        if not spots:
            return tree
        *way, last = rng.choice(spots)
        holder = tree
        for key in way:
            holder = holder[key]
        match rng.choice(("replace", "replace", "number", "remove", "copy", "rename")):
            case "replace":
                holder[last] = anything(rng)
            case "number":
                holder[last] = rng.choice(NUMBERS)
            case "remove":
                holder.pop(last)
            case "copy":
                holder[last] = _copied(tree, rng.choice(spots))
            case "rename" if isinstance(holder, dict):
                holder[rng.choice(HOSTILE)] = holder.pop(last)
    return tree


def _copied(tree: Any, way: tuple) -> Any:
    """What stands at a spot, or as far on the way to it as the tree still goes."""
    for key in way:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            break
    return json.loads(json.dumps(tree))
