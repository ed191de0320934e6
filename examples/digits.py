"""Train a small labelled network on handwritten digits, then operate on it. Run by `make demo`."""

import argparse
import inspect
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import graftax as gx

WIDTH = 24
BATCH = 32

# --- The model ---


class Bottleneck(gx.SkipConnection):
    """Reduce, convolve, expand, and add the input: a block with a type of its own."""


def unit(inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1) -> gx.Chain:
    """Convolution, norm, activation."""
    return gx.Chain(
        conv=eqx.nn.Conv2d(inputs, outputs, size, stride, size // 2, use_bias=False, key=key),
        norm=eqx.nn.GroupNorm(4, outputs),
        act=jax.nn.relu,
    )


def bottleneck(width: int, key: PRNGKeyArray, block: type = Bottleneck) -> gx.SkipConnection:
    """A residual block that is half as wide inside."""
    k1, k2, k3 = jax.random.split(key, 3)
    return block(
        reduce=unit(width, width // 2, 1, k1),
        middle=unit(width // 2, width // 2, 3, k2),
        expand=unit(width // 2, width, 1, k3)[:"act"],
    )


def pool(x: Float[Array, "channels height width"]) -> Float[Array, " channels"]:
    """The mean of each channel."""
    return jnp.mean(x, axis=(1, 2))


def build(key: PRNGKeyArray) -> gx.Chain:
    """A residual network for one 8 x 8 image. Its last block has a label, but no type of its own."""
    keys = jax.random.split(key, 7)
    return gx.Chain(
        stem=unit(1, WIDTH, 3, keys[0]),
        stage1=gx.Chain(bottleneck(WIDTH, keys[1]), bottleneck(WIDTH, keys[2])),
        stage2=gx.Chain(
            widen=unit(WIDTH, 2 * WIDTH, 3, keys[3], stride=2),
            block=bottleneck(2 * WIDTH, keys[4]),
            bottleneck=bottleneck(2 * WIDTH, keys[5], block=gx.SkipConnection),
        ),
        pool=pool,
        head=eqx.nn.Linear(2 * WIDTH, 10, key=keys[6]),
    )


# --- Questions to it, and operations on it ---

QUESTIONS = [
    (Bottleneck,),
    ("bottleneck",),
    ("stage1.**.act",),
    ("stage2.{widen,block}.**", eqx.nn.Conv2d),
]


def tanh_in_bottlenecks(model):
    """Each block typed or labelled as a bottleneck."""
    typed = gx.select(model, Bottleneck)
    labelled = gx.select(model, "bottleneck")
    return (typed | labelled).select("act").set(jnp.tanh)


def add_lora(model, key):
    """A low-rank update for each convolution in a stage."""
    convs = gx.select(model, "stage*.**", eqx.nn.Conv2d)
    return convs.apply(partial(gx.LoRA, rank=4), key=key)


def odd_even_head(model, key):
    """Two classes, so that chance alone gives 50 %."""
    head = eqx.nn.Linear(2 * WIDTH, 2, key=key)
    return gx.select(model, "head").set(head)


def cut_after_stage1(model, key):
    """What a linear head can read from stage 1 alone."""
    features = model[:"stage2"]
    head = eqx.nn.Linear(WIDTH, 10, key=key)
    return gx.Chain(features=features, pool=pool, head=head)


# --- Data and training ---


class Data(NamedTuple):
    """Images and what they show."""

    images: Float[Array, "n 1 8 8"]
    labels: Int[Array, " n"]

    def odd_even(self) -> "Data":
        """The same images, labelled 0 for an even digit and 1 for an odd one."""
        return Data(self.images, self.labels % 2)


def load() -> tuple[Data, Data]:
    """The 1,797 digits of scikit-learn: three quarters to train with, one quarter to test on."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype("float32").reshape(-1, 1, 8, 8)
    split = train_test_split(images, labels, stratify=labels, random_state=0)
    train_images, test_images, train_labels, test_labels = map(jnp.asarray, split)
    return Data(train_images, train_labels), Data(test_images, test_labels)


@eqx.filter_jit
def accuracy(model: Callable, data: Data) -> Float[Array, ""]:
    """The part of the images that the model classifies correctly."""
    return jnp.mean(jnp.argmax(jax.vmap(model)(data.images), axis=1) == data.labels)


def loss(params: Any, rest: Any, batch: Data) -> Float[Array, ""]:
    """The mean cross-entropy of the model that `params` and `rest` are together."""
    logits = jax.vmap(eqx.combine(params, rest))(batch.images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()


def draw(data: Data, key: PRNGKeyArray) -> Data:
    """A random batch."""
    chosen = jax.random.randint(key, (BATCH,), 0, len(data.labels))
    return Data(data.images[chosen], data.labels[chosen])


def tracked(steps: int, title: str, console: Console) -> Iterator[int]:
    """`range(steps)`, with a progress bar."""
    columns = TextColumn("{task.description:<17}"), BarColumn(20), TaskProgressColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        yield from progress.track(range(steps), description=title)


def fit(
    selection: gx.Selection, data: Data, steps: int, rate: float = 5e-3, track: Callable = range
) -> Any:
    """The model, trained in what is selected; the rest gets no gradient and no optimiser state."""
    params, rest = eqx.partition(selection.model, selection.mask())
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))
    opt_state = optimiser.init(params)

    @eqx.filter_jit
    def step(params, rest, opt_state, data, key):
        grads = eqx.filter_grad(loss)(params, rest, draw(data, key))
        updates, opt_state = optimiser.update(grads, opt_state)
        return eqx.apply_updates(params, updates), opt_state

    for i in track(steps):
        key = jax.random.fold_in(jax.random.key(1), i)
        params, opt_state = step(params, rest, opt_state, data, key)
    return eqx.combine(params, rest)


# --- The report ---


class Row(NamedTuple):
    """What an operation did: accuracy at once, and after training what is trainable; and sizes."""

    operation: str
    at_once: float
    trained: float | None
    parameters: int
    trainable: int


def table(rows: list[Row]) -> Table:
    """The report."""
    report = Table("operation", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("at once", "trained", "parameters", "trainable"):
        report.add_column(column, justify="right", no_wrap=True)
    for operation, at_once, trained, parameters, trainable in rows:
        after = "" if trained is None else f"{100 * trained:.1f} %"
        report.add_row(
            operation, f"{100 * at_once:.1f} %", after, f"{parameters:,}", f"{trainable:,}"
        )
    return report


def spelled(criteria: tuple) -> str:
    """The call of `select` with these criteria."""
    words = [f'"{each}"' if isinstance(each, str) else each.__name__ for each in criteria]
    return f"gx.select(model, {', '.join(words)})"


def main(seed: int) -> None:
    started = time.perf_counter()
    console = Console(highlight=False)
    console.print("[bold]A residual network learns to read digits.[/bold]\n")
    keys = jax.random.split(jax.random.key(seed), 4)
    train, test = load()
    everything = eqx.is_inexact_array
    rows = []

    def code(text: str) -> None:
        console.print(Syntax(text, "python", theme="ansi_dark", word_wrap=True))

    def run(operation: str, model: Any, where: Any, steps: int, rate=2e-2, task=lambda data: data):
        """Train what `where` selects, and note what that did."""
        selection = gx.select(model, where)
        at_once, trained = float(accuracy(model, task(test))), None
        if steps:
            track = partial(tracked, title=operation, console=console)
            model = fit(selection, task(train), steps, rate, track)
            trained = float(accuracy(model, task(test)))
            console.print()
        size = gx.select(model, everything).size
        rows.append(Row(operation, at_once, trained, size, selection.size))
        return model

    model = run("ten digits", build(keys[0]), everything, 500, 5e-3)

    console.print("[bold]What select finds in it:[/bold]\n")
    for criteria in QUESTIONS:
        code(spelled(criteria))
        paths = ", ".join(gx.select(model, *criteria).paths)
        console.print(textwrap.indent(textwrap.fill(paths, console.width - 4), " " * 4) + "\n")

    console.print("[bold]Operations on it:[/bold]\n")
    code(inspect.getsource(tanh_in_bottlenecks))
    tanh = tanh_in_bottlenecks(model)
    run("relu to tanh", tanh, everything, steps=0)

    code(inspect.getsource(add_lora))
    run("tanh, then LoRA", add_lora(tanh, keys[1]), "{lora_a,lora_b}", 200)

    code(inspect.getsource(odd_even_head))
    run("odd/even head", odd_even_head(model, keys[2]), "head", 200, task=Data.odd_even)

    code(inspect.getsource(cut_after_stage1))
    run("cut after stage1", cut_after_stage1(model, keys[3]), "head", 300)

    console.print("[bold]What they did[/bold] (accuracy on unseen digits):")
    console.print(table(rows))
    console.print("trained: after training what is trainable, nothing else")
    console.print(f"{time.perf_counter() - started:.0f} seconds in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args().seed)
