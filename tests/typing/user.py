"""What a user writes, and what a type checker makes of it. Checked by `make typecheck`, never run.

A line that must be an error says which; that it is one is checked too, by both checkers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, assert_type

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

import graftax as gx


class Stem(NamedTuple):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm


class Bottleneck(gx.SkipConnection):
    """A block with a type of its own."""


class Classifier(eqx.Module):
    body: gx.Chain
    head: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.body(x))


class Doubled(gx.Wrapper):
    def forward(self, call: gx.Call, /, *inputs: Any) -> Any:
        return 2 * call(self.layer, *inputs)


def containers(linear: eqx.nn.Linear, conv: eqx.nn.Conv2d, norm: eqx.nn.GroupNorm) -> None:
    assert_type(gx.Chain(linear, jax.nn.relu), gx.Chain[tuple[Any, ...]])
    assert_type(gx.Chain(stem=linear, head=linear), gx.Chain[tuple[Any, ...]])
    assert_type(gx.Chain({"stem": linear}), gx.Chain[tuple[Any, ...]])
    assert_type(gx.Chain([linear, linear]), gx.Chain[tuple[Any, ...]])
    typed = gx.Chain(Stem(conv=conv, norm=norm))
    assert_type(typed, gx.Chain[Stem])
    assert_type(typed.layers, Stem)
    assert_type(typed.layers.conv, eqx.nn.Conv2d)
    assert_type(typed.layers.norm.groups, int)
    _ = typed.layers.cnov  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(typed.labels, tuple[str, ...])
    assert_type(gx.Parallel(linear, linear, op=sum), gx.Parallel[tuple[Any, ...]])
    assert_type(gx.SkipConnection(linear, shortcut=linear), gx.SkipConnection[tuple[Any, ...]])
    assert_type(gx.branch(sum, linear, linear), gx.Parallel[tuple[Any, ...]])
    assert_type(Bottleneck(linear, linear), Bottleneck)
    assert_type(len(typed), int)
    assert_type(gx.Vmap(linear), gx.Vmap)
    assert_type(gx.Then(linear, act=jax.nn.relu), gx.Then)
    assert_type(Doubled(linear), Doubled)
    gx.Cast(linear)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def edits(
    model: gx.Chain, bottleneck: Bottleneck, classifier: Classifier, key: PRNGKeyArray
) -> None:
    fn: Callable[[Any], Any] = lambda layer: layer
    assert_type(model.replace_where("head", fn), gx.Chain)
    assert_type(bottleneck.replace_where("head", fn), Bottleneck)
    assert_type(gx.replace_where(classifier, "head", fn), Classifier)
    picked = gx.select(classifier, "head", eqx.nn.Linear)
    assert_type(picked, gx.Selection[Classifier])
    assert_type(picked.apply(fn), Classifier)
    assert_type(
        picked.apply(lambda layer, key: gx.LoRA(layer, rank=2, key=key), key=key), Classifier
    )
    assert_type(picked.set(1), Classifier)
    assert_type(picked.set_each([1]), Classifier)
    assert_type(picked.update(use_bias=False), Classifier)
    assert_type(picked.remove(), Classifier)
    assert_type(picked.insert_before(norm=fn), Classifier)
    assert_type(picked.insert_after(norm=fn), Classifier)
    assert_type(picked.rename("top"), Classifier)
    assert_type(picked.then(norm=fn), Classifier)
    assert_type(picked.insert_after(norm=gx.each(lambda layer, key: fn), key=key), Classifier)
    assert_type(picked.partition(), tuple[Classifier, Classifier])
    assert_type(gx.partition(classifier, {"head": "head", "**": "rest"}), dict[Any, Classifier])
    assert_type(picked.arrays(), gx.Selection[Classifier])
    assert_type(picked.paths, tuple[str, ...])
    assert_type(picked.size, int)
    assert_type(len(picked), int)
    picked.aply(fn)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(picked.select("weight"), gx.Selection[Classifier])
    assert_type(picked | picked, gx.Selection[Classifier])
    assert_type(picked & picked, gx.Selection[Classifier])
    assert_type(picked - picked, gx.Selection[Classifier])
    assert_type(picked[0], gx.Selection[Classifier])
    assert_type(gx.tie(classifier, "head.weight", "body.0.weight"), Classifier)
    assert_type(gx.update(classifier.head, use_bias=False), eqx.nn.Linear)
    assert_type(gx.merge_lora(classifier), Classifier)
    assert_type(gx.take(classifier, {"head": "in"}, [0, 1]), Classifier)


def state(model: Classifier, state: eqx.nn.State) -> None:
    assert_type(gx.extend_state(state, model), eqx.nn.State)
    assert_type(gx.with_state(model, state), Classifier)


@gx.dispatch
def use_tanh(layer: Any) -> Any:
    return layer


@use_tanh.register(eqx.nn.Conv2d)
def convolution(layer: eqx.nn.Conv2d) -> gx.Chain:
    return gx.Chain(conv=layer, act=jax.numpy.tanh)


@use_tanh.register("bottleneck")
def bottleneck(layer: Bottleneck, path: str) -> Bottleneck:
    return layer


def rules(model: Classifier, conv: eqx.nn.Conv2d) -> None:
    assert_type(convolution(conv), gx.Chain)
    bottleneck(conv, "a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(use_tanh, gx.Dispatch)
    assert_type(use_tanh(model), Classifier)


def as_equinox(model: gx.Chain) -> None:
    module: eqx.Module = model
    layer: eqx.nn.StatefulLayer = model
    assert_type(layer.is_stateful(), bool)
    _ = module


def reading(model: Classifier) -> None:
    for path, node in gx.walk(model):
        assert_type((path, node), tuple[str, Any])
    assert_type(gx.children(model), dict[Any, Any])
    assert_type(gx.rebuild(model, {}), Classifier)
    gx.walk()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
