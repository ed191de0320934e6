"""An exception carries exactly one note out of a model: path, type and shapes."""

import functools
import pickle
import traceback

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from common_notes import KEY, Broken, BrokenOp, X, notes_of, the_note


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


# --- What to do ---


def test_a_forgotten_vmap_is_named_where_jax_does_not():
    linear = eqx.nn.Linear(4, 4, key=KEY)
    too_many = "That is an axis too many: a batch goes through jax.vmap"
    for layer, shape in [
        (linear, (3, 5)),
        (gx.Vmap(linear), (2, 3, 5)),
        (gx.Remat(linear), (3, 5)),
    ]:
        note = the_note(gx.Chain(head=layer), jnp.ones(shape), error=TypeError)
        assert note.startswith("In head: ") and note.endswith(too_many)
    # Of another width it is an error of another kind.
    wrong = gx.Chain(head=linear)
    assert the_note(wrong, jnp.ones(5), error=TypeError) == "In head: Linear was given f32[5]"


def test_a_missing_axis_is_named_with_what_gives_it():
    norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
    model, state = eqx.nn.make_with_state(gx.Chain)(norm=norm)
    with pytest.raises(NameError) as error:
        model(X, state)
    (note,) = notes_of(error.value)
    assert note.endswith("jax.vmap(..., axis_name=...), or take eqx.nn.inference_mode(model)")
