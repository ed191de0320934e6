"""What is written is what it was; what cannot be loaded as it was is refused, with its path."""

import collections
import functools
import json
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

import common_named as named
import graftax as gx
from common_files import linear, same_bits
from common_trees import NONE
from graftax.files.checks import MOST_LABELS, MOST_LEVELS, MOST_TIES


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def back(file):
    """The model after it was saved and loaded."""

    def saved_and_loaded(model):
        gx.save(file, model)
        return gx.load(file, gx.types_of(model))

    return saved_and_loaded


def structure(file):
    with safetensors.safe_open(file, framework="np") as opened:
        return json.loads(opened.metadata()["graftax"])["model"]


LOCAL = 3

BORROWED = {
    "vmap": jax.vmap(jnp.sum),
    "jit": jax.jit(jnp.tanh),
    "checkpoint": jax.checkpoint(jnp.tanh),
    "named_call": jax.named_call(jnp.tanh, name="t"),
    "grad": jax.grad(jnp.sum),
    "wraps": named.twice,
    "lru_cache": functools.lru_cache(named.square),
    "custom_jvp": jax.custom_jvp(named.square),
    "filter_jit": eqx.filter_jit(jnp.tanh),
    "filter_vmap": eqx.filter_vmap(jnp.tanh),
    "filter_checkpoint": eqx.filter_checkpoint(jnp.tanh),
    "filter_grad": eqx.filter_grad(jnp.sum),
    "lambda": lambda x: x,
    "local function": (lambda: lambda x: LOCAL)(),
    "callable instance": operator.itemgetter(0),
    "jnp.vectorize": jnp.vectorize(named.square),
    "np.vectorize": np.vectorize(named.square),
    "partial that was renamed": functools.update_wrapper(
        functools.partial(named.square), named.square
    ),
    "method of a class": dict.fromkeys,
    "method of an object": [].append,
}


@pytest.mark.parametrize("name", BORROWED)
@pytest.mark.parametrize("inside", ["alone", "partial", "eqx.Partial", "static"])
def test_what_only_goes_by_a_name_is_refused_with_its_path(file, name, inside):
    function = BORROWED[name]
    held = {
        "alone": function,
        "partial": functools.partial(function, 1),
        "eqx.Partial": eqx.Partial(function, 1),
        "static": named.Holder(1, function),
    }[inside]
    with pytest.raises(gx.UnsavableError, match=r"^'layers\.a"):
        gx.save(file, {"layers": {"a": held}})
    assert not file.exists()


def test_the_remedies_that_are_named_work(back):
    with pytest.raises(gx.UnsavableError, match=r"'a' is sum.*graftax\.Vmap"):
        back(gx.Chain(a=jax.vmap(jnp.sum)))
    model = gx.Chain(a=gx.Vmap(jnp.sum))
    x = jnp.arange(6.0).reshape(2, 3)
    assert back(model)(x).tolist() == model(x).tolist() == [3.0, 12.0]


NAMED = {
    "jax.nn": jax.nn.relu,
    "jax.numpy": jnp.sum,
    "jax.numpy.linalg": jnp.linalg.norm,
    "jax.lax": jax.lax.tanh,
    "jnp.ufunc": jnp.add,
    "np.ufunc": np.add,
    "numpy": np.sum,
    "operator": operator.pow,
    "operator of ours": operator.add,
    "sum": sum,
    "tuple": tuple,
    "abs": abs,
    "function": named.square,
    "jitted where defined": named.jitted,
    "cached where defined": named.cached,
    "custom_jvp where defined": named.with_rule,
    "filter_jit where defined": named.filter_jitted,
    "function of a class": named.Outer.static,
    "class": named.Outer.Inner,
    "class of ours": gx.Chain,
    "class of Equinox": eqx.nn.Linear,
}


@pytest.mark.parametrize("name", NAMED)
def test_what_a_name_leads_to_is_the_very_object_again(back, name):
    thing = NAMED[name]
    loaded = back({"a": thing, "static": named.Holder(thing, (thing,))})
    assert loaded["a"] is thing
    assert loaded["static"].seen is thing and loaded["static"].unseen[0] is thing


@pytest.mark.parametrize("make", [functools.partial, jtu.Partial, eqx.Partial])
def test_partials_are_stored_exactly(back, make):
    partial = make(jnp.clip, jnp.ones(3), min=-1.0, max=jnp.zeros(3))
    loaded = back([partial])[0]
    assert type(loaded) is type(partial) and loaded.func is partial.func
    assert same_bits(loaded.args, partial.args) and same_bits(loaded.keywords, partial.keywords)
    assert loaded().tolist() == partial().tolist()
    assert (
        jax.tree.structure([loaded]) == jax.tree.structure([partial]) or make is functools.partial
    )
    again = back(functools.partial(eqx.Partial(partial, 1), key=partial))
    assert again.func.func.func is again.keywords["key"].func is jnp.clip


@pytest.mark.parametrize("attribute", ["shifted", "__call__"])
def test_bound_methods_of_modules_are_stored_exactly(back, attribute):
    model = gx.Chain(a=getattr(named.Holder(jnp.ones(2), "x"), attribute))
    loaded = back(model)
    assert loaded(jnp.ones(2)).tolist() == model(jnp.ones(2)).tolist()
    assert loaded.a.__func__ is model.a.__func__
    assert same_bits(loaded.a.__self__, model.a.__self__)


def test_a_bound_method_that_its_module_does_not_have_is_refused(file):
    odd = named.Holder.shifted.__get__(linear(2, 2))
    with pytest.raises(gx.UnsavableError, match="'a' is shifted"):
        gx.save(file, {"a": odd})


@pytest.mark.parametrize("member", named.ENUMS, ids=repr)
def test_members_of_enumerations_are_the_very_members_again(back, member):
    loaded = back([member, {member: named.Holder(member, member)}])
    assert loaded[0] is member and next(iter(loaded[1])) is member
    assert loaded[1][member].seen is loaded[1][member].unseen is member


@pytest.mark.parametrize(
    "member", [jax.lax.Precision.HIGHEST, jax.lax.RoundingMethod.TO_NEAREST_EVEN]
)
def test_those_of_jax_need_no_types(file, member):
    gx.save(file, [member])
    assert gx.load(file)[0] is member


DTYPES = (
    *(jnp.bfloat16, jnp.float32, np.float32, np.longlong, float, int, bool, complex),
    *map(np.dtype, ("float32", ">f4", "bfloat16", "int4", "?", "float8_e4m3fn", ">i2", "c16")),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=repr)
def test_dtypes_are_what_they_were(file, dtype):
    gx.save(file, named.Holder(dtype, dtype))
    loaded = gx.load(file, [named.Holder])
    assert loaded.unseen == dtype and type(loaded.unseen) is type(dtype)
    assert loaded.unseen is dtype or isinstance(dtype, np.dtype)


@pytest.mark.parametrize("dtype", ["M8[s]", "U3", "O", "i4,f4", "V8", "S"])
def test_dtypes_of_no_numbers_are_refused(file, dtype):
    with pytest.raises(gx.UnsavableError, match=r"'unseen' is the dtype"):
        gx.save(file, named.Holder(1, np.dtype(dtype)))


SUBCLASSES = {
    kind.__name__: type("Own", (kind,), {})()
    for kind in (int, float, complex, str, list, tuple, dict, collections.OrderedDict)
} | {
    "defaultdict": collections.defaultdict(list),
    "set": {1},
    "bytes": b"x",
    "np.str_": np.str_("x"),
    "object": object(),
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_what_would_come_back_as_something_less_is_refused(file, name):
    with pytest.raises(gx.UnsavableError, match=r"^'a\.0' is a"):
        gx.save(file, {"a": [SUBCLASSES[name]]})


def test_an_integer_that_python_does_not_read_is_refused(file, back):
    for number in (10**5000, -(10**4300)):
        with pytest.raises(gx.UnsavableError, match=r"'a\.0'.*4,300 digits"):
            gx.save(file, {"a": [number]})
    assert back([10**4299, -(10**4299), 2**64]) == [10**4299, -(10**4299), 2**64]


@pytest.mark.parametrize("wrap", [lambda m: m, gx.Remat], ids=["chain", "wrapped"])
def test_a_chain_250_deep_comes_back(back, wrap):
    model = gx.Chain(end=linear(2, 2))
    for _ in range(248):
        model = wrap(gx.Chain(inner=model))
    assert same_bits(back(model), model)


def test_what_jax_cannot_flatten_is_refused_and_breaks_nothing(file):
    model = 1
    for _ in range(MOST_LEVELS + 1):
        model = [model]
    with pytest.raises(gx.UnsavableError, match="750 levels deep"):
        gx.save(file, model)
    (inside,) = model
    gx.save(file, inside)
    assert gx.load(file) == inside


def test_what_holds_itself_is_refused(file):
    knot = [1]
    knot.extend([knot, {"a": knot}])
    with pytest.raises(gx.UnsavableError, match="levels deep"):
        gx.save(file, knot)


def test_a_field_left_to_its_class_stays_so(back):
    model = gx.Chain(a=named.Lazy(jnp.ones(2)))
    loaded = back(model)
    assert same_bits(loaded, model)
    doubled = jax.tree.map(lambda a, b: a + b if eqx.is_array(a) else a, model, loaded)
    assert doubled.a.weight.tolist() == [2.0, 2.0]
    assert vars(loaded.a).keys() == {"weight"}
    assert loaded(jnp.ones(2)).tolist() == model(jnp.ones(2)).tolist()


def test_a_field_that_was_never_set_is_refused(file):
    bare = object.__new__(named.Lazy)
    with pytest.raises(gx.UnsavableError, match=r"'a\.weight' was never set"):
        gx.save(file, {"a": bare})


def test_a_state_that_was_never_separated_stays_so(back, file):
    index = eqx.nn.StateIndex(jnp.zeros(2))
    model = gx.Chain(
        a=eqx.nn.BatchNorm(2, "b", mode="batch"), b=named.Holder(index, 0), c=named.Holder(index, 0)
    )
    loaded = back(model)
    same, state = eqx.nn.make_with_state(lambda: loaded)()
    expected, expected_state = eqx.nn.make_with_state(lambda: model)()
    assert same_bits(same, expected) and same_bits(state, expected_state)
    # Who shared a marker shares one, and nobody else: not with another load of the file.
    again = gx.load(file, gx.types_of(model))
    assert loaded.b.seen.marker is loaded.c.seen.marker is not again.b.seen.marker
    assert not isinstance(loaded.b.seen.marker, str)
    assert len({id(i.marker) for i in (loaded.a.batch_counter, loaded.b.seen)}) == 2


def test_a_state_that_was_separated_keeps_the_name_of_its_marker(back):
    model, _ = eqx.nn.make_with_state(gx.Chain)(norm=eqx.nn.BatchNorm(2, "b", mode="batch"))
    assert same_bits(back(model), model)


def test_a_tensor_called_as_the_header_is_gets_another_name(file, back):
    model = {"__metadata__": jnp.ones(2), "value": jnp.zeros(3), "": jnp.zeros(1)}
    assert same_bits(back(model), model)
    names = sorted(load_file(file))
    assert "__metadata__#2" in names and len(names) == 3


def test_names_of_tensors_never_collide(file, back):
    odd = {"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(2), "a#2": jnp.ones(3), "value": jnp.ones(4)}
    assert same_bits(back(odd), odd)
    assert len(load_file(file)) == 4


def test_the_same_array_is_the_same_object_and_a_slice_is_another(file, back):
    stacked = jnp.arange(6.0).reshape(2, 3)
    first, equal = stacked[0], stacked[0]
    loaded = back({"whole": stacked, "first": first, "again": [first], "equal": equal})
    assert loaded["first"] is loaded["again"][0] is not loaded["equal"]
    # By the first path of a walk, which takes the keys of a dict in order.
    assert sorted(load_file(file)) == ["again.0", "equal", "whole"]


def test_dicts_keep_their_order_and_keys_of_every_kind(back):
    model = [
        {"b": 1, "a": jnp.ones(1), "": 2},
        {3: 1, -1: 2, True: 3, 2.5: 4},
        {(2, "x"): 1, (1, "y"): 2},
        {named.Size.LARGE: 1, named.Size.SMALL: 2},
        *({key: 1} for key in NONE),
        collections.OrderedDict([("b", 1), (2, 3), *((key, 4) for key in NONE)]),
    ]
    for before, after in zip(model, back(model), strict=True):
        assert list(after) == list(before) and type(after) is type(before)
        assert [type(key) for key in after] == [type(key) for key in before]
        assert list(after.values())[:1] == list(before.values())[:1]


def test_a_named_tuple_that_no_name_leads_to_is_refused(file, back):
    pair = named.Both(jnp.ones(1), (1, 2))
    assert same_bits(back(pair), pair) and type(back(pair)) is named.Both
    local = collections.namedtuple("Both", "mu nu")
    with pytest.raises(gx.UnsavableError, match=r"'a' is a test_encode\.Both|'a' is a .*Both"):
        gx.save(file, {"a": local(1, 2)})


def test_a_class_that_another_has_replaced_is_refused(file, monkeypatch):
    old = named.Outer.Inner(3)
    monkeypatch.setattr(named.Outer, "Inner", type("Inner", (eqx.Module,), {"__module__": "x"}))
    with pytest.raises(
        gx.UnsavableError, match=r"'a' is a common_named\.Outer\.Inner.*defined anew"
    ):
        gx.save(file, {"a": old})


def test_a_local_subclass_of_a_container_is_refused(file):
    class Local(gx.Chain):
        """No other process can be handed it."""

    with pytest.raises(
        gx.UnsavableError, match=r"'a' is a .*Local, a class made inside a function"
    ):
        gx.save(file, {"a": Local(abs)})


@pytest.mark.parametrize(
    "model, message",
    [
        (gx.select(gx.Parallel(a=linear(2, 2), b=abs, op=sum), "a").mask(), "callable"),
        (eqx.tree_at(lambda m: m.a.weight, gx.Chain(a=linear(2, 2)), "text"), "is the text 'text'"),
    ],
)
def test_what_no_constructor_makes_is_refused(file, model, message):
    with pytest.raises(gx.UnsavableError, match=message):
        gx.save(file, model)


def test_the_holes_of_a_partition_are_saved(back):
    model = gx.Chain(
        a=gx.Parallel(x=linear(2, 2), y=jnp.tanh, op=jnp.add),
        b=gx.SkipConnection(linear(2, 2), op=jnp.multiply, shortcut=jnp.sin),
        c=gx.PairwiseFusion(gx.Remat(jnp.cos), op=jnp.subtract),
        d=eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0)),
    )
    for part in eqx.partition(model, eqx.is_array):
        assert same_bits(back(part), part)


def test_ties_inside_ties_are_bounded_in_both_directions(file, back):
    base = gx.tie(gx.Chain(a=linear(2, 2), b=linear(2, 2, 1)), "a.weight", "b.weight")
    nested = base
    for _ in range(MOST_TIES - 1):
        nested = type(base)(gx.Chain(a=nested, b=linear(2, 2), c=linear(2, 2)), (((1, 0), (2, 0)),))
    assert same_bits(back(nested), nested)
    nested = type(base)(gx.Chain(a=nested, b=linear(2, 2), c=linear(2, 2)), (((1, 0), (2, 0)),))
    with pytest.raises(gx.UnsavableError, match="ties around it"):
        gx.save(file, nested)


def test_more_sets_of_labels_than_can_be_read_are_refused(file):
    with pytest.raises(gx.UnsavableError, match="sets of labels"):
        gx.save(file, [gx.Chain(**{f"l{i}": abs}) for i in range(MOST_LABELS + 1)])
