"""Seventeen operations that people do on pretrained models, each in at most three lines.

Each is then compared with the same thing done by hand, on a tiny model with random weights.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich import box
from rich.console import Console
from rich.table import Table

import graftax as gx

# --- The surgeries ---


def replace_head(model, classes, key):
    """1. Another number of classes."""
    head = eqx.nn.Linear(model.head.in_features, classes, key=key)
    return gx.select(model, ".head").set(head)


def relu_to_gelu(model):
    """2. GELU for each ReLU, whatever its label."""
    return gx.select(model, lambda node: node is jax.nn.relu).set(jax.nn.gelu)


def batch_to_group_norm(model, groups):
    """3. GroupNorm, which keeps no state, with the scale and shift of each BatchNorm."""
    fresh = lambda norm: eqx.nn.GroupNorm(groups, norm.input_size)
    convert = lambda norm: gx.update(fresh(norm), weight=norm.weight, bias=norm.bias)
    return gx.select(model, eqx.nn.BatchNorm).apply(convert)


def add_lora(model, rank, key):
    """4. A low-rank change of each query and value."""
    linears = gx.select(model, "{query,value}", eqx.nn.Linear)
    return linears.apply(partial(gx.LoRA, rank=rank), key=key)


def merge_lora(model):
    """4. The changes added to the weights."""
    return gx.merge_lora(model)


def truncate(model, state, stage):
    """5. The backbone before a stage, and its state."""
    body = model[:stage]
    return body, gx.extend_state(state, body)


def freeze_all_but_norms(model):
    """6. What is trained and what is not: `eqx.combine` joins them."""
    return gx.select(model, "norm*").select("{weight,bias}").partition()


def layerwise_decay(model, decay):
    """7. For optax: updates of a block are `decay` times those of the next."""
    n, body = len(model.encoder), {"embeddings": decay ** (len(model.encoder) + 1)}
    rates = body | {f"encoder.{i}": decay ** (n - i) for i in range(n)} | {"**": 1.0}
    return optax.partition({r: optax.scale(r) for r in rates.values()}, gx.label_fn(rates))


def tie_head(model):
    """8. One matrix for the embeddings and the head."""
    return gx.tie(model, "embeddings.word.weight", "head.weight")


def multi_scale_features(model, x, state):
    """9. What leaves each stage."""
    features, _ = gx.activations(model[:"pool"], x, state=state)
    return {label: y for label, y in features.items() if label.startswith("stage")}


def every_second_block(small, large):
    """10. A smaller model that starts from a larger one, as DistilBERT (arXiv:1910.01108) did."""
    small = gx.select(small, "encoder.*").set_each(gx.select(large, "encoder[::2]").nodes)
    return gx.select(small, [".embeddings", ".head"]).set_each([large.embeddings, large.head])


def int8_but_head(model):
    """11. Each linear layer in int8, but the head."""
    linears = gx.select(model, eqx.nn.Linear) - gx.select(model, ["head", "head.**"])
    return linears.apply(gx.quantize)


def fold_batch_norm(model, state):
    """12. Each BatchNorm as part of the convolution before it."""
    folded = gx.fold_batch_norm(model, state)
    return folded, gx.extend_state(state, folded)


def extend_positions(model, size, prefix=0):
    """13. Longer inputs, or larger images: `size` is a number or (rows, columns)."""
    resize = lambda weight: gx.resize_positions(weight, size, prefix=prefix)
    return gx.select(model, "**.position.weight").apply(resize)


def expand_vocabulary(model, size, key):
    """14. More tokens, in the embeddings and in the head; a tie between them holds."""
    layers = gx.select(model, ["word", "{head,vocabulary}"], (eqx.nn.Embedding, eqx.nn.Linear))
    return layers.apply(partial(gx.expand_vocabulary, size=size), key=key)


def swap_pooling(model):
    """15. The largest pixel of each channel instead of the mean."""
    return gx.select(model, ".pool").set(partial(jnp.max, axis=(1, 2)))


def add_adapters(model, width, inner, key):
    """16. An adapter after both sublayers of each block, before the residual is added."""
    places = gx.select(model, "encoder.**.dropout").insert_after(adapter=gx.Chain())
    fresh = lambda _, key: gx.Vmap(gx.adapter(width, inner, key=key))
    return gx.select(places, "adapter").apply(fresh, key=key)


def load_body(model, source, rename, ignore):
    """17. All but the head from a checkpoint with other names: what is missing is an error."""
    body = gx.load_weights(model[:"head"], source, rename, ignore=ignore)
    return gx.update(model, **dict(body.items()))


# --- The models they are shown on ---

WIDTH, TOKENS = 16, 24


@eqx.filter_jit
def run(model: Any, *inputs: Any) -> Any:
    """The output of a model, and its new state if it is given one."""
    return model(*inputs)


def language_model(depth: int = 2, act: Callable = jax.nn.gelu, **options: Any) -> Any:
    """BERT with a head that scores tokens, in inference."""
    options = {"head": "vocabulary", "positions": 16, "dropout": 0.0, **options}
    model = gx.zoo.bert(
        vocabulary=TOKENS, width=WIDTH, depth=depth, heads=2, inner=32, act=act, **options
    )
    return eqx.nn.inference_mode(model)


def images() -> jax.Array:
    """Four of them, random."""
    return jnp.asarray(np.random.default_rng(0).normal(1, 2, (4, 3, 16, 16)), jnp.float32)


def image_model(key: Any) -> tuple[Any, eqx.nn.State]:
    """A ResNet of two blocks, in inference, with running statistics of one batch."""
    # To compile the whole takes less time than to compile each random draw.
    build = eqx.filter_jit(eqx.nn.make_with_state(gx.zoo.resnet))
    sizes = {"widths": (8, 16), "depths": (1, 1), "stem": 8, "bottlenecks": False}
    model, state = build(**sizes, classes=5, key=key)
    _, state = run(gx.Vmap(model, axis_name="batch"), images(), state)
    return eqx.nn.inference_mode(model), state


# --- What they did ---


class Row(NamedTuple):
    """One surgery: parameters before and after, those to train, and how far it is from one by hand."""

    number: int
    surgery: str
    before: int
    after: int
    trainable: int
    error: float


def size(tree: Any) -> int:
    """The number of elements of all arrays, each array once."""
    return sum({id(a): a.size for a in jax.tree.leaves(tree) if eqx.is_array(a)}.values())


def distance(a: Any, b: Any) -> float:
    """The largest difference between two trees of arrays."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs)


def row(
    surgery: Callable, old: Any, new: Any, found: Any, by_hand: Any, trained: Any = None
) -> Row:
    """What is to be reported of a surgery that made `new` from `old`."""
    number = int(str(surgery.__doc__).partition(".")[0])
    name = surgery.__name__.replace("_", " ")
    trainable = gx.select(new if trained is None else trained, "").size
    return Row(number, name, size(old), size(new), trainable, distance(found, by_hand))


def on_images(key: Any) -> Iterator[Row]:
    """The surgeries on a convolutional network."""
    model, state = image_model(key)
    image = images()[0]
    expected = run(model, image, state)[0]
    stages = {f"stage{i}": run(model[: i + 1], image, state)[0] for i in (1, 2)}
    last = stages["stage2"]

    new = replace_head(model, 3, key)
    by_hand = new.head.weight @ last.mean((1, 2)) + new.head.bias
    yield row(replace_head, model, new, run(new, image, state)[0], by_hand, new.head)
    new = batch_to_group_norm(model, 4)
    maps = np.asarray(new.stem.conv(image)).reshape(4, -1)
    by_hand = (maps - maps.mean(1, keepdims=True)) / np.sqrt(maps.var(1, keepdims=True) + 1e-5)
    yield row(batch_to_group_norm, model, new, new.stem[:"act"](image).reshape(4, -1), by_hand)
    new, new_state = truncate(model, state, "stage2")
    yield row(truncate, model, new, run(new, image, new_state)[0], stages["stage1"])
    yield row(multi_scale_features, model, model, multi_scale_features(model, image, state), stages)
    new, new_state = fold_batch_norm(model, state)
    yield row(fold_batch_norm, model, new, run(new, image, new_state)[0], expected)
    new = swap_pooling(model)
    by_hand = model.head.weight @ last.max((1, 2)) + model.head.bias
    yield row(swap_pooling, model, new, run(new, image, state)[0], by_hand)


def on_text(key: Any) -> Iterator[Row]:
    """The surgeries on transformers."""
    model, ids = language_model(key=key), jnp.arange(8)
    expected = run(model, ids)

    old = language_model(act=jax.nn.relu, key=key)
    yield row(relu_to_gelu, old, new := relu_to_gelu(old), run(new, ids), expected)
    added = gx.select(add_lora(model, 2, key), "{lora_a,lora_b}")
    new = added.apply(lambda matrix: matrix + 0.1)
    yield row(add_lora, model, new, run(merge_lora(new), ids), run(new, ids), added.nodes)
    trained, _ = freeze_all_but_norms(model)
    by_hand = gx.select(model, eqx.nn.LayerNorm).nodes
    yield row(freeze_all_but_norms, model, model, trained, by_hand, trained)
    scale, grads = layerwise_decay(model, 0.5), eqx.filter(model, eqx.is_array)
    updates, _ = scale.update(grads, scale.init(grads))
    by_hand = jax.tree.map(lambda grad: grad / 4, grads.encoder[0])
    yield row(layerwise_decay, model, model, updates.encoder[0], by_hand)
    sizes = {"vocabulary": TOKENS, "width": WIDTH, "depth": 1, "heads": 2, "positions": 16}
    old = eqx.nn.inference_mode(gx.zoo.gpt2(**sizes, tied=False, key=key))
    new = tie_head(old)
    by_hand = run(old[:"head"], ids) @ old.embeddings.word.weight.T
    yield row(tie_head, old, new, run(new, ids), by_hand)
    large = language_model(depth=4, key=jax.random.key(1))
    new = every_second_block(model, large)
    yield row(
        every_second_block,
        large,
        new,
        run(new, ids),
        run(gx.update(large, encoder=large.encoder[::2]), ids),
    )
    new = int8_but_head(model)
    weight = np.asarray(model.encoder[0].mlp.up.weight)
    step = np.abs(weight).max(1, keepdims=True) / 127
    layer = new.encoder[0].mlp.up
    by_hand = np.round(weight / step) * step
    yield row(int8_but_head, model, new, layer.weight * layer.scale[:, None], by_hand)
    new = extend_positions(model, 32)
    # Cubic convolution with coefficient -0.75, a quarter of a position before each old one.
    taps = np.array([-0.03515625, 0.26171875, 0.87890625, -0.10546875], np.float32)
    old_positions, new_positions = (m.embeddings.position.weight for m in (model, new))
    by_hand = taps @ np.stack([old_positions[i : i + 13] for i in range(4)], 1)
    yield row(extend_positions, model, new, new_positions[4:30:2], by_hand)
    new = expand_vocabulary(model, TOKENS + 2, key)
    yield row(expand_vocabulary, model, new, run(new, ids)[:, :TOKENS], expected)
    new = add_adapters(model, WIDTH, 4, key)
    yield row(add_adapters, model, new, run(new, ids), expected, gx.select(new, "adapter").nodes)
    old = language_model(head="classifier", key=jax.random.key(1))
    trained = language_model(head="classifier", classes=3, key=key)
    arrays = {f"module.{path}": a for path, a in gx.walk(trained) if eqx.is_array(a)}
    new = load_body(old, arrays, {"": "module"}, ["module.head.{p}"])
    yield row(load_body, old, new, run(new, ids), run(gx.update(trained, head=old.head), ids))


def table(rows: list[Row]) -> Table:
    """The report."""
    report = Table("#", "surgery", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("before", "after", "to train", "error"):
        report.add_column(column, justify="right", no_wrap=True)
    for number, surgery, before, after, trainable, error in sorted(rows):
        shown = f"{error:.0e}" if error else "0"
        report.add_row(str(number), surgery, f"{before:,}", f"{after:,}", f"{trainable:,}", shown)
    return report


def main() -> None:
    """Do all of them, and report."""
    started = time.perf_counter()
    console = Console(highlight=False)
    key = jax.random.key(0)
    rows = [*on_images(key), *on_text(key)]
    console.print("[bold]Seventeen operations on pretrained models[/bold], in parameters:")
    console.print(table(rows))
    console.print("error: how far the numbers are from the same thing done by hand")
    console.print(f"{time.perf_counter() - started:.0f} seconds in all")


if __name__ == "__main__":
    main()
