"""What tests of the zoo's language models share: their inputs, and one compiled run of each fixture."""

import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

import graftax as gx
from common_zoo import close, exported, fixture

_CONTEXT = {"attention_mask": "mask", "token_type_ids": "token_types"}


@eqx.filter_jit
def run(layer: Any, x: Any, **context: Any) -> Any:
    """The layer, compiled: op by op, even a small model takes a second."""
    return layer(x, **context)


def batch(name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The token ids of a fixture, and the keywords that go with them."""
    given = fixture(name).group("input.")
    context = {ours: given[theirs] for theirs, ours in _CONTEXT.items() if theirs in given}
    if "mask" in context:
        context["mask"] = context["mask"].astype(bool)
    return given["input_ids"], context


def hidden(model: Any, ids: Any, **context: Any) -> list[Any]:
    """What enters the first block, and what leaves each."""
    # A slice opens what ties hold together.
    body = model[:]
    x = body.embeddings(ids, **{k: v for k, v in context.items() if k != "mask"})
    mask = {k: v for k, v in context.items() if k == "mask"}
    return [x, *gx.activations(body.encoder, x, **mask).values()]


def decoder(model: Any, ids: Any, **context: Any) -> dict[str, Any]:
    """What a causal model gives, under the names of its fixtures."""
    found = {f"hidden.{i}": x for i, x in enumerate(hidden(model, ids, **context))}
    # `transformers` lists the last one after the norm.
    last = f"hidden.{len(found) - 1}"
    found[last] = model.norm(found[last])
    return {**found, **answers(model, ids, **context)}


def answers(model: Any, ids: Any, **context: Any) -> dict[str, Any]:
    """What the head of a model gives, or its body, under the names of `transformers`."""
    y = model(ids, **context)
    if "head" not in model:
        return {"last_hidden_state": y}
    head = model.head.layer if isinstance(model.head, gx.Wrapper) else model.head
    if isinstance(head, eqx.nn.Linear) and "pooler" not in model and head.out_features == 2:
        return {"start_logits": y[:, 0], "end_logits": y[:, 1]}
    return {"logits": y}


@functools.cache
def outputs(name: str, forward: Callable) -> dict[str, Any]:
    """`forward(model, ids, **context)` for the inputs of a fixture."""
    ids, context = batch(name)
    model = fixture(name).model
    return jax.jit(jax.vmap(lambda ids, context: forward(model, ids, **context)))(ids, context)


def check_outputs(name: str, forward: Callable, without: Collection[str] = ()) -> None:
    """Every output of the fixture agrees, but for those `without` a counterpart."""
    expected = fixture(name).group("output.")
    compared = {n for n in expected if not n.endswith("new_tokens")} - set(without)
    found = outputs(name, forward)
    assert set(found) == compared
    for output in compared:
        close(found[output], expected[output])


def check_gradients(tmp_path: Path, name: str, forward: Callable) -> None:
    """The loss agrees, and its gradient by each parameter of the checkpoint."""
    loss, gradient = _loss_and_gradient(name, forward)
    close(loss, fixture(name).io["loss"])
    expected = fixture(name).group("grad.")
    found = exported(tmp_path, gradient, fixture(name).recipe)
    assert sorted(found) == sorted(expected)
    for parameter, array in expected.items():
        close(found[parameter], array)


def _loss_and_gradient(name: str, forward: Callable) -> tuple[Any, Any]:
    """The fixture's loss of what `forward` gives, and its gradient by the model."""
    ids, context = batch(name)
    weights = fixture(name).group("loss_weight.")

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(model: Any) -> Any:
        found = jax.vmap(lambda ids, context: forward(model, ids, **context))(ids, context)
        return sum((found[output] * weight).sum() for output, weight in weights.items())

    return loss(fixture(name).model)
