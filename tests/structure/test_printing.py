"""What a container prints: its labels, and text that reads as the constructor."""

import functools
import inspect
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
import treescope
import wadler_lindig as wl
from hypothesis import given, settings

import graftax as gx
from common_containers import Affine, Bottleneck, build, containers, double, linear, square

CONV = eqx.nn.Conv2d(1, 2, 3, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: gx.Chain(), "Chain()"),
        (lambda: gx.Chain(stem=double, head=square), "Chain(stem=double, head=square)"),
        (lambda: gx.Chain(double, square), "Chain(double, square)"),
        (lambda: gx.Chain({"x": abs, "self": len}), "Chain(x=abs, self=len)"),
        (lambda: gx.Chain(act=jax.nn.relu, out=jnp.tanh), "Chain(act=relu, out=tanh)"),
        (lambda: gx.Chain(f=lambda x: x), "Chain(f=<lambda>)"),
        (lambda: gx.Chain(f=jax.jit(double)), "Chain(f=double)"),
        (lambda: gx.Chain(a=gx.Chain(b=gx.Chain())), "Chain(a=Chain(b=Chain()))"),
        (lambda: gx.Parallel(a=double, op=sum), "Parallel(a=double, op=sum)"),
        (lambda: gx.Parallel(double, op=operator.add, init=3), "Parallel(double, op=add, init=3)"),
        (lambda: gx.Parallel(a=double, op=jnp.multiply), "Parallel(a=double, op=multiply)"),
        (lambda: gx.SkipConnection(a=double), "SkipConnection(a=double)"),
        (
            lambda: gx.SkipConnection(double, op=operator.mul, shortcut=square),
            "SkipConnection(double, op=mul, shortcut=square)",
        ),
        (lambda: Bottleneck(a=double), "Bottleneck(a=double)"),
        (lambda: gx.PairwiseFusion(a=double), "PairwiseFusion(a=double)"),
        (lambda: gx.Repeat(a=double, times=3), "Repeat(a=double, times=3)"),
        (lambda: gx.Vmap(gx.Chain(a=double)), "Vmap(Chain(a=double))"),
        (lambda: gx.Chain(a=Affine(2, 3)), "Chain(a=Affine(scale=2, shift=3))"),
        (
            lambda: gx.branch(sum, a=double, execution="scan"),
            "Parallel(a=double, op=sum, execution='scan')",
        ),
    ],
)
def test_repr_is_the_constructor_that_was_called(make, expected):
    assert repr(make()) == str(make()) == expected


def test_labels_stand_before_the_layers_equinox_prints():
    m = gx.Chain(stem=CONV, head=linear(2, 3))
    lines = repr(m).splitlines()
    assert lines[0] == "Chain(" and lines[-1] == ")"
    assert "  stem=Conv2d(" in lines and "  head=Linear(" in lines
    inside = lambda label, layer: f"{label}={layer!r}".replace("\n", "\n  ")
    assert repr(m) == f"Chain(\n  {inside('stem', CONV)},\n  {inside('head', linear(2, 3))}\n)"


def test_wide_enough_it_is_one_line():
    m = gx.Chain(stem=CONV, body=gx.SkipConnection(a=double, shortcut=linear(2, 2)))
    flat = functools.partial(eqx.tree_pformat, width=10_000)
    expected = (
        f"Chain(stem={flat(CONV)}, body=SkipConnection(a=double, shortcut={flat(linear(2, 2))}))"
    )
    assert flat(m) == expected and "\n" not in expected


def test_lines_break_at_the_width_asked_for_and_indent_as_asked():
    m = gx.Chain(stem=gx.Chain(first=double, second=square), head=gx.Parallel(double, op=sum))
    assert eqx.tree_pformat(m, width=30) == (
        "Chain(\n"
        "  stem=Chain(\n"
        "    first=double,\n"
        "    second=square\n"
        "  ),\n"
        "  head=Parallel(\n"
        "    double, op=sum\n"
        "  )\n"
        ")"
    )
    assert eqx.tree_pformat(m, width=40, indent=4) == (
        "Chain(\n"
        "    stem=Chain(\n"
        "        first=double, second=square\n"
        "    ),\n"
        "    head=Parallel(double, op=sum)\n"
        ")"
    )
    assert max(map(len, repr(m).splitlines())) <= 80


def test_equinox_and_wadler_lindig_options_reach_the_layers():
    m = gx.Chain(a=linear(2, 2))
    assert "weight=f32[2,2]" in eqx.tree_pformat(m)
    assert "weight=Array([[" in eqx.tree_pformat(m, short_arrays=False)
    assert isinstance(m.__pdoc__(indent=2), wl.AbstractDoc)
    assert wl.pformat(gx.Chain(a=Affine(2, 3))) == "Chain(a=Affine(scale=2, shift=3))"
    assert wl.pformat(gx.Chain(a=Affine(1, 3))) == "Chain(a=Affine(shift=3))"
    everything = functools.partial(wl.pformat, hide_defaults=False)
    assert everything(gx.Chain(a=Affine(1, 3))) == "Chain(a=Affine(scale=1, shift=3))"
    assert everything(gx.SkipConnection(a=abs)) == "SkipConnection(a=abs, op=add, shortcut=None)"


def test_holes_shapes_and_tracers_print():
    m = gx.Chain(a=linear(2, 2), act=double)
    arrays, rest = eqx.partition(m, eqx.is_array)
    assert "act=None" in repr(arrays) and "weight=f32[2,2]" in repr(arrays)
    assert "act=double" in repr(rest) and "weight=None" in repr(rest)
    assert "weight=ShapeDtypeStruct" in repr(eqx.filter_eval_shape(lambda: m))
    printed = []
    jax.jit(lambda arrays: printed.append(repr(arrays)) or 0)(arrays)
    assert "act=None" in printed[0] and "weight=f32[2,2]" in printed[0]


def test_the_address_of_a_function_is_not_printed():
    m = gx.Chain(f=lambda x: x, g=functools.partial(double), h=double, op_=jax.nn.silu)
    assert "0x" not in repr(m) and repr(m) == repr(jax.tree.map(lambda leaf: leaf, m))
    assert "g=partial(<function double>)" in repr(m)


def test_fields_of_a_subclass_are_printed():
    class Block(gx.Chain):
        width: int
        ratio: float = 0.5

        def __init__(self, width, ratio=0.5, **labelled):
            super().__init__(**labelled)
            self.width, self.ratio = width, ratio

    assert repr(Block(3, a=double)) == "Block(a=double, width=3)"
    assert repr(Block(3, 0.25, a=double)) == "Block(a=double, width=3, ratio=0.25)"


@given(containers())
@settings(max_examples=100)
def test_what_is_printed_can_be_read_again(spec):
    m = build(spec)
    names = {"Bottleneck": Bottleneck, "Affine": Affine, "sum": sum, **vars(gx)}
    read = eval(repr(m), names)
    assert read == m and jax.tree.structure(read) == jax.tree.structure(m)
    assert eval(eqx.tree_pformat(m, width=20), names) == m


def test_treescope_shows_labels_and_not_the_field_that_holds_them():
    model = gx.Chain(
        stem=gx.Parallel(left=abs, op=sum), body=gx.Chain(abs, gx.Remat(gx.Chain(deep=jnp.sin)))
    )
    text = treescope.render_to_text(model)
    assert "stem=Parallel(left=builtins.abs, op=builtins.sum)" in text
    assert "body=Chain(builtins.abs, Remat(Chain(deep=jax.numpy.sin)))" in text
    assert "layers" not in text


def test_treescope_is_given_the_path_of_each_child():
    paths = []

    def render(child, path):
        paths.append(path)
        return treescope.rendering_parts.text("child")

    gx.Chain(a=abs, b=abs).__treescope_repr__("m", render)
    gx.Parallel(abs, abs, op=sum).__treescope_repr__("m", render)
    gx.Then(abs, more=abs).__treescope_repr__("m", render)
    assert paths == ["m.a", "m.b", "m[0]", "m[1]", "m.op", "m", "m.more"]


def test_a_notebook_shows_the_signature_of_the_class():
    assert str(inspect.signature(gx.Chain)) == "(*layers: Any, **labelled: Any)"
    assert list(inspect.signature(gx.Vmap).parameters) == ["layer", "axis_name"]

    class Own(gx.Chain):
        """Of its own constructor."""

        def __init__(self, width, *, depth=2):
            super().__init__(*[abs] * depth)

    assert str(inspect.signature(Own)) == "(width, *, depth=2)"
    assert gx.Chain(a=gx.Chain(b=abs), c=abs)._ipython_key_completions_() == ["a", "c"]
    assert gx.Remat(gx.Chain(a=abs))._ipython_key_completions_() == ["a"]
