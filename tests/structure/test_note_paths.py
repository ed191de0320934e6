"""The path in a note is that of a walk, through wrappers, fields and foreign modules."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_notes import KEY, Broken, BrokenOp, X, notes_of, the_note

# A model, and the path its note must give: the one that `gx.walk` gives to the broken layer.
PLACES = {
    "labels and positions": (gx.Chain(a=gx.Chain(jnp.tanh, gx.Chain(b=Broken()))), "a.1.b"),
    "branch": (gx.Parallel(jnp.tanh, gx.Parallel(a=Broken())), "1.a"),
    "op, called once": (
        gx.Chain(a=gx.Parallel(jnp.tanh, jnp.tanh, op=gx.Chain(sum, gx.Chain(b=Broken())))),
        "a.op.1.b",
    ),
    "op, a layer": (gx.Chain(a=gx.Parallel(jnp.tanh, jnp.tanh, op=BrokenOp())), "a.op"),
    "op of a skip": (gx.Chain(a=gx.SkipConnection(jnp.tanh, op=BrokenOp())), "a.op"),
    "op of a fusion": (gx.Chain(a=gx.PairwiseFusion(jnp.tanh, jnp.tanh, op=BrokenOp())), "a.op"),
    "shortcut": (
        gx.Chain(a=gx.SkipConnection(jnp.tanh, shortcut=gx.Chain(b=gx.Chain(Broken())))),
        "a.shortcut.b.0",
    ),
    "fusion": (gx.PairwiseFusion(jnp.tanh, gx.Chain(a=Broken())), "1.a"),
    "repeat": (gx.Chain(a=gx.Repeat(b=gx.Chain(Broken()), times=3)), "a.b.0"),
    "subclass": (gx.Chain(a=type("Block", (gx.SkipConnection,), {})(b=Broken())), "a.b"),
    "Sequential": (
        gx.Chain(a=eqx.nn.Sequential([eqx.nn.Lambda(jnp.tanh), gx.Chain(b=Broken())])),
        "a.layers.1.b",
    ),
    "Sequential in Sequential": (
        gx.Chain(a=eqx.nn.Sequential([eqx.nn.Sequential([gx.Chain(b=gx.Chain(c=Broken()))])])),
        "a.layers.0.layers.0.b.c",
    ),
}
WRAPS = {
    "Wrapper": gx.Wrapper,
    "Remat": gx.Remat,
    "Cast": lambda layer: gx.Cast(layer, jnp.float32),
    "Vmap": gx.Vmap,
    "Remat of Cast of Vmap": lambda layer: gx.Remat(gx.Cast(gx.Vmap(layer), jnp.float32)),
    "Vmap of Remat": lambda layer: gx.Vmap(gx.Remat(layer)),
}


def paths_to_broken(model):
    return [path for path, node in gx.walk(model) if isinstance(node, Broken | BrokenOp)]


@pytest.mark.parametrize("name", PLACES)
def test_the_path_is_that_of_a_walk(name):
    model, path = PLACES[name]
    assert paths_to_broken(model) == [path]
    assert the_note(model, X).startswith(f"In {path}: Broken")
    assert the_note(eqx.filter_jit(model), X).startswith(f"In {path}: Broken")


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("name", PLACES)
def test_wrapping_the_model_or_its_parts_changes_no_path(name, wrap):
    model, path = PLACES[name]
    for wrapped in (wrap(model), gx.Chain(w=wrap(model)), gx.Chain(w=gx.Parallel(wrap(model)))):
        (expected,) = paths_to_broken(wrapped)
        assert expected.endswith(path)
        assert the_note(wrapped, X).startswith(f"In {expected}: Broken")
        assert the_note(eqx.filter_jit(wrapped), X).startswith(f"In {expected}: Broken")


@pytest.mark.parametrize("name", WRAPS)
def test_wrapping_the_broken_layer_names_both(name):
    shown = "(".join([*name.split(" of "), "Broken"]) + ")" * len(name.split(" of "))
    note = the_note(gx.Chain(a=gx.Chain(b=WRAPS[name](Broken()))), X)
    assert note == f"In a.b: {shown} was given f32[4]"


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_alike_blocks_in_a_foreign_module_are_told_apart_under_a_wrapper(wrap):
    fine, broken = gx.Chain(b=jnp.tanh), gx.Chain(b=Broken())
    linear = lambda: gx.Chain(b=eqx.nn.Linear(2, 2, key=KEY))
    for blocks, place in (([fine, broken], 1), ([linear(), linear()], 0)):
        model = gx.Chain(a=wrap(eqx.nn.Sequential(blocks)))
        with pytest.raises((ValueError, TypeError)) as caught:
            model(X)
        (note,) = notes_of(caught.value)
        assert note.startswith(f"In a.layers.{place}.b: ")


# --- Foreign modules ---


class Foreign(eqx.Module):
    """A user's module that holds containers where it likes and runs one as it likes."""

    nets: dict
    run: str = eqx.field(static=True)

    def __call__(self, x):
        net = self.nets["my nets"][1]
        if self.run == "jit":
            return eqx.filter_jit(net)(x)
        if self.run == "jit with the net as argument":
            return eqx.filter_jit(lambda net, x: net(x))(net, x)
        if self.run == "vmap":
            return eqx.filter_vmap(lambda net, x: net(x), in_axes=(None, 0))(net, x)
        if self.run == "scan":
            return jax.lax.scan(lambda c, _: (net(c), None), x, None, length=2)[0]
        if self.run == "remat":
            return eqx.filter_checkpoint(net)(x)
        return net(x)


@pytest.mark.parametrize(
    "run", ["", "jit", "jit with the net as argument", "vmap", "scan", "remat"]
)
def test_the_path_goes_through_a_users_module(run):
    net = gx.Chain(b=gx.Chain(eqx.nn.Identity(), Broken()))
    model = gx.Chain(a=Foreign({"my nets": (jnp.tanh, net), "other": gx.Chain(b=jnp.tanh)}, run))
    (expected,) = paths_to_broken(model)
    assert expected == "a.nets['my nets'].1.b.1"
    assert the_note(model, X).startswith(f"In {expected}: Broken")


def test_a_container_that_no_field_holds_gives_the_rest_of_the_path():
    model = gx.Chain(a=lambda x: gx.Chain(b=Broken())(x))
    assert the_note(model, X) == "In a.b: Broken was given f32[4]"


def test_a_foreign_root_does_not_show():
    assert the_note(eqx.nn.Sequential([gx.Chain(a=Broken())]), X) == "In a: Broken was given f32[4]"


def test_an_error_raised_anew_by_a_users_module_has_one_note_of_its_own():
    class Renaming(eqx.Module):
        inside: gx.Chain

        def __call__(self, x):
            try:
                return self.inside(x)
            except ValueError as error:
                raise RuntimeError("another") from error

    model = gx.Chain(a=gx.Chain(b=Renaming(gx.Chain(c=Broken()))))
    assert the_note(model, X, error=RuntimeError) == "In a.b: Renaming was given f32[4]"


def test_an_error_that_a_users_module_handles_leaves_no_note_behind():
    class Fallback(eqx.Module):
        inside: gx.Chain

        def __call__(self, x):
            try:
                return self.inside(x)
            except ValueError:
                return x

    model = gx.Chain(a=Fallback(gx.Chain(c=Broken())), b=Broken(RuntimeError))
    assert the_note(model, X, error=RuntimeError) == "In b: Broken was given f32[4]"
