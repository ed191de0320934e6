"""An exception carries exactly one note out of a model: path, type and shapes."""

import functools
import pickle
import traceback

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from graftax.structure.notes import PathNote

X = jnp.arange(4.0)
KEY = jax.random.key(0)


class Broken(eqx.Module):
    """Raises what it is told to."""

    error: type = eqx.field(static=True, default=ValueError)

    def __call__(self, x):
        raise self.error("broken")


class BrokenOp(eqx.Module):
    def __call__(self, a, b):
        raise ValueError("broken")


def notes_of(error):
    """graftax's notes. JAX may add one of its own, about its traceback."""
    return [note for note in getattr(error, "__notes__", []) if isinstance(note, PathNote)]


def the_note(model, *inputs, error=ValueError, **keywords):
    with pytest.raises(error) as caught:
        model(*inputs, **keywords)
    (note,) = notes_of(caught.value)
    return str(note)


def four_levels(layer):
    return gx.Chain(
        stem=jnp.tanh,
        body=gx.Parallel(
            skip=jnp.tanh,
            block=gx.SkipConnection(norm=jnp.sin, mlp=gx.Chain(jnp.cos, jnp.tanh, layer)),
            op=jnp.stack,
        ),
    )


def test_an_error_four_levels_down_carries_exactly_one_note_with_path_type_and_shapes():
    assert the_note(four_levels(Broken()), X) == "In body.block.mlp.2: Broken was given f32[4]"


TRANSFORMS = {
    "jit": lambda f: jax.jit(f),
    "filter_jit": lambda f: eqx.filter_jit(f),
    "jit of jit": lambda f: jax.jit(lambda x: jax.jit(f)(x)),
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, x])),
    "filter_vmap": lambda f: lambda x: eqx.filter_vmap(f)(jnp.stack([x, x])),
    "grad": lambda f: jax.grad(lambda x: f(x).sum()),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,)),
    "remat": lambda f: jax.checkpoint(f),
    "filter_checkpoint": lambda f: eqx.filter_checkpoint(f),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, None, length=2),
    "eval_shape": lambda f: lambda x: jax.eval_shape(f, x),
    "jit of vmap of grad": lambda f: jax.jit(
        lambda x: jax.vmap(jax.grad(lambda x: f(x).sum()))(jnp.stack([x, x]))
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_note_is_the_same_under_every_transformation(name):
    model = four_levels(Broken())
    run = TRANSFORMS[name](lambda x: model(x))
    assert the_note(run, X) == "In body.block.mlp.2: Broken was given f32[4]"


def test_the_note_is_the_same_in_a_gradient_with_respect_to_the_model():
    model = four_levels(gx.Chain(eqx.nn.Linear(4, 4, key=KEY), Broken()))
    loss = eqx.filter_jit(eqx.filter_grad(lambda m, x: m(x).sum()))
    assert the_note(loss, model, X) == "In body.block.mlp.2.1: Broken was given f32[4]"


def test_the_note_is_the_same_after_jax_tree_map():
    model = jax.tree.map(lambda leaf: leaf, four_levels(Broken()))
    assert the_note(model, X) == "In body.block.mlp.2: Broken was given f32[4]"


@pytest.mark.parametrize("depth", [1, 2, 5, 20])
def test_there_is_one_note_at_every_depth(depth):
    model = functools.reduce(
        lambda inside, i: gx.Chain(**{f"l{i}": inside}), range(depth), Broken()
    )
    path = ".".join(f"l{i}" for i in reversed(range(depth)))
    assert the_note(model, X) == f"In {path}: Broken was given f32[4]"


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


# --- What the note says ---

SHAPES = {
    "array": (X, "f32[4]"),
    "integers": (jnp.arange(6).reshape(2, 3), "i32[2,3]"),
    "key": (KEY, "key<fry>[]"),
    "number": (3, "3"),
    "dict": ({"a": X, "b": [X, None]}, "{'a': f32[4], 'b': [f32[4], None]}"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_note_shows_the_shapes_given(name):
    x, shown = SHAPES[name]
    assert the_note(gx.Chain(a=Broken()), x) == f"In a: Broken was given {shown}"


def test_the_note_shows_a_tuple_as_one_input_and_two_inputs_as_two():
    assert the_note(gx.Chain(a=Broken()), X, X[:2]) == "In a: Broken was given (f32[4], f32[2])"
    model = gx.SkipConnection(lambda x: x[:2], op=BrokenOp())
    assert the_note(model, X) == "In op: BrokenOp was given f32[2], f32[4]"


def test_the_note_shows_shapes_and_dtypes_of_tracers():
    model = gx.Chain(a=Broken())
    batch = jnp.ones((3, 2), jnp.bfloat16)
    assert the_note(jax.jit(lambda x: model(x)), batch) == "In a: Broken was given bf16[3,2]"
    assert the_note(jax.vmap(lambda x: model(x)), batch) == "In a: Broken was given bf16[2]"


def test_the_note_of_an_enormous_input_stays_readable():
    model = gx.Chain(a=Broken())
    assert len(the_note(model, [X] * 10_000)) < 500


def broken_function(x):
    raise ValueError("broken")


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (broken_function, "broken_function"),
        (functools.partial(broken_function), "partial(broken_function)"),
        (jax.jit(broken_function), "broken_function"),
        (Broken(), "Broken"),
        (gx.Vmap(Broken()), "Vmap(Broken)"),
        (gx.Remat(gx.Vmap(Broken())), "Remat(Vmap(Broken))"),
    ],
)
def test_the_note_names_the_layer(layer, name):
    assert the_note(gx.Chain(a=layer), X) == f"In a: {name} was given f32[4]"


def test_real_mistakes_of_shape_say_where():
    linear = lambda i, o: eqx.nn.Linear(i, o, key=KEY)
    model = gx.Chain(stem=linear(4, 8), body=gx.SkipConnection(gx.Chain(up=linear(7, 8))))
    note = the_note(model, X, error=TypeError)
    assert note == "In body.0.up: Linear was given f32[8]"
    model = gx.Chain(body=gx.SkipConnection(up=linear(4, 8)))
    assert the_note(model, X, error=TypeError) == "In body.op: add was given f32[8], f32[4]"


@pytest.mark.parametrize(
    "error", [TypeError, RuntimeError, KeyError, NotImplementedError, StopIteration]
)
def test_every_type_of_error_is_kept_and_noted(error):
    model = gx.Chain(a=gx.Chain(b=Broken(error)))
    assert the_note(model, X, error=error) == "In a.b: Broken was given f32[4]"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_error_is_left_alone(error):
    with pytest.raises(error) as caught:
        gx.Chain(a=Broken(error))(X)
    assert notes_of(caught.value) == []


def test_an_error_of_the_container_itself_is_noted_by_those_above_it():
    model = gx.Chain(a=gx.Chain(b=gx.Parallel(jnp.tanh, jnp.sin)))
    note = the_note(model, X, X, X)
    assert note == "In a.b: Parallel was given (f32[4], f32[4], f32[4])"
    with pytest.raises(ValueError, match=r"2 branches .* tuple of 3") as caught:
        model.a.b(X, X, X)
    assert notes_of(caught.value) == []


def test_the_note_is_printed_with_the_traceback():
    with pytest.raises(ValueError, match="broken") as caught:
        four_levels(Broken())(X)
    printed = "".join(traceback.format_exception(caught.value))
    assert printed.count("In body.block.mlp.2: Broken was given f32[4]") == 1


def test_a_second_call_has_a_note_of_its_own():
    model = four_levels(Broken())
    first, second = the_note(model, X), the_note(model, X[:2])
    assert first.endswith("f32[4]") and second.endswith("f32[2]")


@pytest.mark.parametrize("execution", ["sequential", "vmap", "scan"])
def test_the_branches_of_every_execution_are_named(execution):
    alike = lambda: gx.Chain(b=gx.Chain(Broken()))
    model = gx.Chain(a=gx.branch(tuple, first=alike(), second=alike(), execution=execution))
    assert the_note(model, X) == "In a.first.b.0: Broken was given f32[4]"


def test_activations_note_as_a_call_does():
    run = lambda x: gx.activations(gx.Chain(a=gx.Chain(b=Broken())), x)
    assert the_note(run, X) == "In a.b: Broken was given f32[4]"


def test_an_error_with_a_note_can_be_pickled_without_the_model():
    with pytest.raises(ValueError, match="broken") as caught:
        four_levels(gx.Chain(lambda x: x, Broken()))(X)
    again = pickle.loads(pickle.dumps(caught.value))
    assert "In body.block.mlp.2.1: Broken was given f32[4]" in again.__notes__
