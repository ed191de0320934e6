"""`take` cuts coupled layers together: all that has the axis goes along, or the path is in the error."""

import operator

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import graftax as gx
from common_containers import same_arrays, without_annotation_checks

KEYS = jax.random.split(jax.random.key(0), 16)
KEEP = [5, 0, 3]


def linear(inputs, outputs, i=0, **options):
    return eqx.nn.Linear(inputs, outputs, key=KEYS[i], **options)


def mlp(act=jax.nn.relu):
    return gx.Chain(up=linear(4, 8), act=act, down=linear(8, 3, 1))


def without(model, path, kept, size):
    """The model with zeros in all rows of a weight and a bias but those kept."""
    gone = jnp.array([i for i in range(size) if i not in kept], int)
    return gx.select(model, f"{path}.{{weight,bias}}").apply(lambda a: a.at[gone].set(0))


# --- The law: what counted for nothing can be left out ---


@pytest.mark.parametrize(
    "index",
    [
        KEEP,
        tuple(KEEP),
        np.array(KEEP),
        jnp.array(KEEP),
        np.isin(np.arange(8), KEEP),
        [i in KEEP for i in range(8)],
        [-3, -8, 3],
        range(0, 8, 3),
        slice(2, None, 2),
        slice(None, None, -1),
    ],
)
def test_units_that_are_zero_can_be_left_out(index):
    model = mlp()
    kept = np.arange(8)[np.array(index) if not isinstance(index, slice) else index]
    zeroed = without(model, "up", list(kept), 8)
    small = gx.take(zeroed, {"up": "out", "down": "in"}, index)
    x = jnp.arange(4.0)
    np.testing.assert_allclose(small(x), zeroed(x), atol=1e-6)
    assert small.up.weight.shape == (len(kept), 4) and small.up.bias.shape == (len(kept),)
    assert small.up.out_features == small.down.in_features == len(kept)
    assert (small.up.weight == model.up.weight[kept]).all()


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.permutations(range(8)))
def test_a_permutation_of_hidden_units_changes_nothing(order):
    model, x = mlp(jnp.tanh), jnp.arange(4.0)
    np.testing.assert_allclose(
        gx.take(model, {"up": 0, "down": 1}, order)(x), model(x), rtol=1e-4, atol=1e-5
    )


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True), st.data())
def test_taking_twice_is_taking_what_is_left_of_the_first(first, data):
    second = data.draw(
        st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=8, unique=True)
    )
    axes = {"up": "out", "down": "in"}
    twice = gx.take(gx.take(mlp(), axes, first), axes, second)
    once = gx.take(mlp(), axes, [first[i] for i in second])
    assert same_arrays(twice, once)


def test_all_positions_in_order_share_every_array():
    model = mlp()
    same = gx.take(model, {"up": "out", "down": "in"}, slice(None))
    assert jax.tree.structure(same) == jax.tree.structure(model)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (same, model)), strict=True))


def test_what_is_not_named_is_shared():
    model = gx.Chain(stem=linear(4, 4), body=mlp())
    assert gx.take(model, {"up": 0, "down": 1}, KEEP).stem.weight is model.stem.weight


def test_gradients_and_jit_go_through_a_cut():
    model, x = mlp(), jnp.arange(4.0)

    def loss(model):
        return jnp.sum(gx.take(model, {"up": 0, "down": 1}, KEEP)(x) ** 2)

    grads = eqx.filter_jit(eqx.filter_grad(loss))(model)
    kept = np.isin(np.arange(8), KEEP)
    assert not grads.up.weight[~kept].any() and not grads.down.weight[:, ~kept].any()
    by_hand = eqx.filter_grad(lambda m: jnp.sum(m(x) ** 2))(without(model, "up", KEEP, 8))
    np.testing.assert_allclose(grads.up.weight[kept], by_hand.up.weight[kept], rtol=1e-4)


# --- Norms go along ---


def trained(norm, width):
    """A norm with parameters and statistics that show."""
    draw = lambda i: jax.random.uniform(KEYS[i], (width,), minval=0.5, maxval=1.5)
    return gx.load_weights(
        norm,
        {"weight": draw(8), "bias": draw(9), "running_mean": draw(10), "running_var": draw(11)},
    )


def convolutional(norm, groups=1):
    return gx.Chain(
        conv1=eqx.nn.Conv2d(3, 8, 3, key=KEYS[0]),
        norm1=norm,
        act=jax.nn.relu,
        conv2=eqx.nn.Conv2d(8, 4, 3, key=KEYS[1]),
    )


IMAGE = jax.random.normal(KEYS[15], (3, 7, 7))


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("norm_axis", [0, "out", "in"])
def test_channels_are_pruned_with_the_statistics_of_their_batch_norm(mode, norm_axis):
    norm = trained(eqx.nn.BatchNorm(8, axis_name="batch", mode=mode), 8)
    model = eqx.nn.inference_mode(convolutional(norm))
    # Channels that the next convolution does not look at count for nothing.
    gone = jnp.array([i for i in range(8) if i not in KEEP])
    model = gx.select(model, "conv2.weight").apply(lambda w: w.at[:, gone].set(0))
    small = gx.take(model, {"conv1": "out", "norm1": norm_axis, "conv2": "in"}, KEEP)
    whole, state = eqx.nn.make_with_state(lambda: model)()
    pruned, small_state = eqx.nn.make_with_state(lambda: small)()
    np.testing.assert_allclose(
        pruned(IMAGE, small_state)[0], whole(IMAGE, state)[0], rtol=1e-4, atol=1e-4
    )
    assert small.norm1.input_size == small.conv1.out_channels == small.conv2.in_channels == 3
    statistics = [a for a in jax.tree.leaves(small.norm1) if eqx.is_array(a) and a.ndim]
    assert [a.shape for a in statistics] == [(3,)] * 4


def test_a_batch_norm_whose_statistics_are_in_a_state_is_refused():
    model, _ = eqx.nn.make_with_state(
        lambda: convolutional(eqx.nn.BatchNorm(8, axis_name="batch", mode="batch"))
    )()
    with pytest.raises(ValueError, match=r"'norm1'.*make_with_state.*with_state\(model, state\)"):
        gx.take(model, {"conv1": "out", "norm1": 0, "conv2": "in"}, KEEP)


def test_groups_of_a_group_norm_stay_whole():
    layer = gx.update(eqx.nn.GroupNorm(4, 8), weight=jnp.arange(8.0))
    x = jax.random.normal(KEYS[0], (8, 5))
    small = gx.take(gx.Chain(norm=layer), {"norm": 0}, [6, 7, 2, 3]).norm
    assert (small.groups, small.channels) == (2, 4)
    np.testing.assert_allclose(
        small(x[jnp.array([6, 7, 2, 3])]), layer(x)[jnp.array([6, 7, 2, 3])], atol=1e-5
    )
    for broken in ([0, 1, 2], [0, 2, 1, 3], [0, 1, 4, 5, 6]):
        with pytest.raises(ValueError, match=r"'norm'.*groups of 2"):
            gx.take(gx.Chain(norm=layer), {"norm": 0}, broken)
    with pytest.raises(ValueError, match="channels"):
        unknown = eqx.nn.GroupNorm(2, channelwise_affine=False)
        gx.take(gx.Chain(norm=unknown), {"norm": 0}, [0])


@pytest.mark.parametrize("norm", [eqx.nn.LayerNorm, eqx.nn.RMSNorm])
@pytest.mark.parametrize("affine", [True, False])
def test_the_shape_of_a_norm_goes_along(norm, affine):
    options = {"use_weight": affine, "use_bias": affine}
    small = gx.take(gx.Chain(norm=norm(8, **options)), {"norm": "out"}, KEEP).norm
    assert small.shape == (3,) and small(jnp.arange(3.0)).shape == (3,)
    image = gx.take(gx.Chain(norm=norm((2, 8), **options)), {"norm": 1}, KEEP).norm
    assert image.shape == (2, 3) and image(jnp.ones((2, 3))).shape == (2, 3)
    with pytest.raises(ValueError, match="its axes are 0, 1"):
        gx.take(gx.Chain(norm=norm((2, 8), **options)), {"norm": "out"}, KEEP)


# --- Convolutions ---


@pytest.mark.parametrize("conv", [eqx.nn.Conv2d, eqx.nn.ConvTranspose2d])
def test_inputs_and_outputs_of_convolutions(conv):
    layer = conv(6, 8, 3, key=KEYS[0])
    x = jax.random.normal(KEYS[1], (6, 7, 7))
    out = gx.take(gx.Chain(c=layer), {"c": "out"}, KEEP).c
    np.testing.assert_allclose(out(x), layer(x)[jnp.array(KEEP)], atol=1e-5)
    into = gx.take(gx.Chain(c=layer), {"c": "in"}, KEEP).c
    kept = jnp.isin(jnp.arange(6), jnp.array(KEEP))[:, None, None]
    np.testing.assert_allclose(into(x[jnp.array(KEEP)]), layer(x * kept), atol=1e-5)
    assert (out.in_channels, out.out_channels) == (6, 3)
    assert (into.in_channels, into.out_channels) == (3, 8)


@pytest.mark.parametrize("conv", [eqx.nn.Conv2d, eqx.nn.ConvTranspose2d])
@pytest.mark.parametrize("per_group", [(2, 3), (1, 1), (1, 2)])
def test_whole_groups_of_a_convolution(conv, per_group):
    inputs, outputs = per_group
    layer = conv(4 * inputs, 4 * outputs, 3, groups=4, key=KEYS[0])
    x = jax.random.normal(KEYS[1], (4 * inputs, 7, 7))
    small = gx.take(gx.Chain(c=layer), {"c": {"in", "out"}}, gx.blocks([2, 0], of=4)).c
    some = lambda y: y.reshape(4, -1, *y.shape[1:])[jnp.array([2, 0])].reshape(-1, *y.shape[1:])
    np.testing.assert_allclose(small(some(x)), some(layer(x)), atol=1e-5)
    assert (small.groups, small.in_channels, small.out_channels) == (2, 2 * inputs, 2 * outputs)


@pytest.mark.parametrize("conv", [eqx.nn.Conv2d, eqx.nn.ConvTranspose2d])
def test_as_many_channels_of_each_group(conv):
    layer = conv(4, 6, 3, groups=2, key=KEYS[0])
    x = jax.random.normal(KEYS[1], (4, 7, 7))
    out = gx.take(gx.Chain(c=layer), {"c": "out"}, [2, 0, 3, 5]).c
    np.testing.assert_allclose(out(x), layer(x)[jnp.array([2, 0, 3, 5])], atol=1e-5)
    into = gx.take(gx.Chain(c=layer), {"c": "in"}, [1, 2]).c
    kept = jnp.array([0, 1, 1, 0.0])[:, None, None]
    np.testing.assert_allclose(into(x[1:3]), layer(x * kept), atol=1e-5)
    assert out.groups == into.groups == 2


def test_channels_that_would_fall_into_another_group_are_refused():
    layer = gx.Chain(c=eqx.nn.Conv2d(4, 6, 3, groups=2, key=KEYS[0]))
    depthwise = gx.Chain(c=eqx.nn.Conv2d(4, 4, 3, groups=4, key=KEYS[0]))
    for model, axis, index in [
        (layer, "out", [0, 1, 2, 3]),
        (layer, "in", [0, 2, 1, 3]),
        (depthwise, "out", [0, 1]),
        (depthwise, "in", [0, 1]),
    ]:
        with pytest.raises(ValueError, match=r"take cannot cut 'c'.*group"):
            gx.take(model, {"c": axis}, index)


# --- Heads ---


def equinox_attention(heads=4, **options):
    return eqx.nn.MultiheadAttention(heads, 8, use_query_bias=True, key=KEYS[0], **options)


def test_heads_of_equinox_attention_that_count_for_nothing_can_be_left_out():
    layer = equinox_attention()
    # The output looks at heads 1 and 3 alone.
    seen = jnp.repeat(jnp.array([0, 1, 0, 1.0]), 2)
    layer = gx.select(layer, "output_proj.weight").apply(lambda w: w * seen[None])
    small = gx.take(gx.Chain(a=layer), {"a": "heads"}, gx.blocks([1, 3], of=4)).a
    x = jax.random.normal(KEYS[1], (5, 8))
    assert small.num_heads == 2 and small.query_proj.weight.shape == (4, 8)
    np.testing.assert_allclose(small(x, x, x), layer(x, x, x), atol=1e-5)


def test_the_width_of_equinox_attention():
    small = gx.take(gx.Chain(a=equinox_attention()), {"a": ("in", "out")}, KEEP).a
    sizes = (small.query_size, small.key_size, small.value_size, small.output_size)
    assert sizes == (3, 3, 3, 3) and small.num_heads == 4
    x = jnp.ones((5, 3))
    assert small(x, x, x).shape == (5, 3)


def test_heads_that_an_attention_is_not_told_of_are_refused():
    model = gx.Chain(a=equinox_attention())
    for axes, index, message in [
        ({"a": "heads"}, [0, 1, 2, 3], r"'a'.*blocks\(\.\.\., of=4\)"),
        ({"a": "heads"}, gx.blocks([0], of=2), r"'a'.*4 heads.*blocks of 2"),
        ({"a": 0}, gx.blocks([0], of=4), r"'a'.*no axis 0.*'heads', 'in', 'out'"),
        ({"a.query_proj": "out"}, gx.blocks([0], of=4), r"'a.query_proj' alone.*{'a': axis}"),
        ({"a.query_proj.weight": 0}, gx.blocks([0], of=4), r"'a.query_proj.weight' alone"),
    ]:
        with pytest.raises(ValueError, match=message):
            gx.take(model, axes, index)


# --- Other layers ---


def test_rows_and_columns_of_an_embedding():
    model = gx.Chain(word=gx.Vmap(eqx.nn.Embedding(9, 8, key=KEYS[0])))
    for axis in ("out", 1):
        narrow = gx.take(model, {"word": axis}, KEEP).word
        assert (narrow.num_embeddings, narrow.embedding_size) == (9, 3)
        assert (narrow.weight == model.word.weight[:, np.array(KEEP)]).all()
    for axis in ("in", 0):
        fewer = gx.take(model, {"word": axis}, KEEP).word
        assert (fewer.num_embeddings, fewer.embedding_size) == (3, 8)
        assert (fewer(jnp.array([1, 2])) == model(jnp.array([0, 3]))).all()


def test_quantised_rows_keep_their_scales():
    model = gx.Chain(up=gx.quantize(linear(4, 8)), down=gx.quantize(linear(8, 3, 1)))
    small = gx.take(model, {"up": "out", "down": "in"}, KEEP)
    x = jnp.arange(4.0)
    np.testing.assert_allclose(small.up(x), model.up(x)[np.array(KEEP)], atol=1e-6)
    assert small.down.weight.shape == (3, 3) and small.down.scale.shape == (3,)


@pytest.mark.parametrize("axis", [0, None])
@pytest.mark.parametrize(
    "make", [lambda: linear(6, 8), lambda: eqx.nn.Conv1d(6, 8, 3, key=KEYS[0])]
)
def test_the_weight_that_weight_norm_gives_is_cut(axis, make):
    layer = eqx.nn.WeightNorm(make(), axis=axis)
    x = jax.random.normal(KEYS[1], (6, 7))[
        :, : (7 if isinstance(layer.layer, eqx.nn.Conv) else None)
    ]
    x = x[:, 0] if isinstance(layer.layer, eqx.nn.Linear) else x
    index = jnp.array(KEEP)
    rows = gx.take(gx.Chain(w=layer), {"w": "out"}, KEEP).w
    np.testing.assert_allclose(rows(x), layer(x)[index], atol=1e-5)
    columns = gx.take(gx.Chain(w=layer), {"w": "in"}, KEEP).w
    kept = jnp.isin(jnp.arange(6), index).reshape(-1, *(1,) * (x.ndim - 1))
    np.testing.assert_allclose(columns(x[index]), layer(x * kept), atol=1e-5)


def test_the_sizes_of_an_equinox_mlp_go_along():
    model = eqx.nn.MLP(4, 2, 8, depth=2, activation=jnp.tanh, key=KEYS[0])
    axes = {"layers[0]": "out", "layers[1]": ("in", "out"), "layers[2]": "in"}
    order = [3, 1, 0, 2, 7, 6, 5, 4]
    np.testing.assert_allclose(
        gx.take(model, axes, order)(jnp.ones(4)), model(jnp.ones(4)), atol=1e-5
    )
    small = gx.take(model, axes, KEEP)
    assert (small.in_size, small.width_size, small.out_size) == (4, 3, 2)
    inputs = gx.take(model, {"layers[0]": "in"}, [0, 1])
    assert (inputs.in_size, inputs.width_size) == (2, 8) and inputs(jnp.ones(2)).shape == (2,)


def test_single_arrays_of_any_tree_are_cut_by_the_number_of_an_axis():
    tree = {"a": jnp.arange(12.0).reshape(3, 4), "b": [np.arange(4)], "n": 3}
    cut = gx.take(tree, {"a": -1, "b[0]": 0}, [2, 0])
    assert cut["a"].tolist() == [[2, 0], [6, 4], [10, 8]] and cut["b"][0].tolist() == [2, 0]
    assert isinstance(cut["b"][0], np.ndarray) and cut["n"] == 3
    with pytest.raises(ValueError, match=r"'a', an array.*2 axes, 2 is none"):
        gx.take(tree, {"a": 2}, [0])


def test_the_weight_and_bias_of_a_layer_stand_for_the_layer():
    model = mlp()
    by_array = gx.take(model, {"up.weight": 0, "up.bias": 0, "down.weight": 1}, KEEP)
    by_layer = gx.take(model, {"up": 0, "down": 1}, KEEP)
    assert jax.tree.structure(by_array) == jax.tree.structure(by_layer)
    assert by_array.up.out_features == 3 and by_array.up.bias.shape == (3,)


@pytest.mark.parametrize("wrap", [gx.Vmap, gx.Remat, lambda layer: gx.Remat(gx.Vmap(layer))])
def test_wrappers_stay_around_what_is_cut_and_it_is_cut_once(wrap):
    model = gx.Chain(up=wrap(linear(4, 8)), down=wrap(linear(8, 3, 1)))
    axes = {"up": "out", "up.weight": 0, "*.bias": 0, "down": "in"}
    axes.pop("*.bias")
    small = gx.take(model, axes | {"up.bias": 0}, slice(None, None, 2))
    assert type(small.up) is type(model.up) and small.up.out_features == 4
    assert small.down.in_features == 4


# --- Ties ---


def language_model():
    model = gx.Chain(
        word=gx.Vmap(eqx.nn.Embedding(9, 8, key=KEYS[0])),
        head=gx.Vmap(linear(8, 9, 1)),
    )
    return gx.tie(model, "word.weight", "head.weight")


def test_arrays_that_are_tied_and_cut_alike_stay_tied():
    small = gx.take(language_model(), {"word": "out", "head": "in"}, KEEP)
    assert small.word.weight is small.head.weight and small.head.in_features == 3
    assert len(jax.tree.leaves(small)) == 2
    fewer = gx.take(language_model(), {"word": "in", "head": "out"}, KEEP)
    assert fewer.word.weight is fewer.head.weight and fewer.head.bias.shape == (3,)


def test_layers_that_are_tied_are_cut_alike_with_their_statistics():
    norm = lambda: eqx.nn.BatchNorm(8, axis_name="batch", mode="batch")
    model = gx.tie(gx.Chain(a=trained(norm(), 8), b=norm()), "a", "b")
    small = gx.take(model, {"a": 0, "b": 0}, KEEP)
    assert small.a.weight is small.b.weight and small.b.input_size == 3
    assert same_arrays(small.a, small.b)
    with pytest.raises(ValueError, match="are tied"):
        gx.take(model, {"a": 0}, KEEP)


@pytest.mark.parametrize(
    "axes", [{"word": "out"}, {"head": "in"}, {"word": "out", "head": "out"}, {"word": "in"}]
)
def test_arrays_that_are_tied_and_not_cut_alike_are_refused(axes):
    model = gx.Chain(
        word=eqx.nn.Embedding(8, 8, key=KEYS[0]), head=eqx.nn.Linear(8, 8, key=KEYS[1])
    )
    tied = gx.tie(model, "word.weight", "head.weight")
    with pytest.raises(ValueError, match=r"'word.weight' and 'head.weight' are tied"):
        gx.take(tied, axes, KEEP)


# --- Refusals ---


class Standardised(eqx.nn.Linear):
    """A subclass that gives its weight another meaning."""

    def __call__(self, x, *, key=None):
        return (self.weight - self.weight.mean(1, keepdims=True)) @ x


class Scaled(eqx.nn.Linear):
    """A subclass with a field more."""

    scale: float = eqx.field(static=True, default=1.0)


class Gain(gx.Wrapper):
    """A wrapper with an array of its own."""

    gain: jax.Array

    def __init__(self, layer):
        super().__init__(layer)
        self.gain = jnp.ones(8)


REFUSED = {
    "subclass with a call": (lambda: Standardised(4, 8, key=KEYS[0]), "field or a call"),
    "subclass with a field": (lambda: Scaled(4, 8, key=KEYS[0]), "field or a call"),
    "wrapper with arrays": (lambda: Gain(linear(4, 8)), "arrays of its own"),
    "function": (lambda: jax.nn.relu, "no layer that take knows"),
    "dropout": (lambda: eqx.nn.Dropout(), "no layer that take knows"),
    "container": (lambda: gx.Chain(a=linear(4, 8)), "no layer that take knows"),
    "scalar": (lambda: linear(4, "scalar"), "scalar"),
    "stacked": (
        lambda: eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 8, key=key))(KEYS[:3]),
        r"\(3, 8, 4\).*filter_vmap",
    ),
    "stacked convolution": (
        lambda: eqx.filter_vmap(lambda key: eqx.nn.Conv1d(4, 8, 3, key=key))(KEYS[:3]),
        "filter_vmap",
    ),
    "spectral norm": (
        lambda: eqx.nn.SpectralNorm(linear(4, 8), "weight", key=KEYS[0]),
        "singular value",
    ),
    "recurrent": (lambda: eqx.nn.GRUCell(4, 8, key=KEYS[0]), "gates"),
    "other axis of weight norm": (lambda: eqx.nn.WeightNorm(linear(4, 8), axis=1), "WeightNorm"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_is_refused_by_its_path(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=rf"take cannot cut 'part'.*{message}"):
        gx.take(gx.Chain(part=make()), {"part": "out"}, [0, 1])


def test_parts_of_a_layer_are_not_cut_alone():
    model = gx.Chain(
        norm=eqx.nn.BatchNorm(8, axis_name="b", mode="batch"), w=eqx.nn.WeightNorm(linear(4, 8))
    )
    for path in ("norm.batch_state_index.init[0]", "w.layer", "w.layer.weight", "w.g"):
        with pytest.raises(ValueError, match=r"alone.*Take from that"):
            gx.take(model, {path: 0}, KEEP)


def test_a_part_that_has_the_label_of_its_layer_goes_along():
    model = gx.Chain(up=linear(4, 8), layer=eqx.nn.WeightNorm(linear(8, 3, 1)))
    small = gx.take(model, {"up": "out", "layer": "in"}, KEEP)
    assert small.up.out_features == small.layer.layer.in_features == 3


def test_a_single_layer_is_cut_by_its_weight():
    assert gx.take(linear(4, 8), {"weight": 0}, KEEP).out_features == 3


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ([0, 8], ValueError, "'up'.*no position 8 among 8"),
        ([-9], ValueError, "no position -9"),
        ([0, 3, 0], ValueError, "position 0 is named twice"),
        ([0, -8], ValueError, "position 0 is named twice"),
        ([], ValueError, "leave nothing"),
        ([False] * 8, ValueError, "leave nothing"),
        (slice(0, 0), ValueError, "leave nothing"),
        ([True] * 7, ValueError, "'up'.*mask has 7 elements for 8"),
        (gx.blocks([0], of=3), ValueError, "'up'.*8 positions make no 3 blocks"),
        (3, TypeError, r"write \[3\]"),
        (True, TypeError, "index of take"),
        ([0.0, 1.0], TypeError, "index of take"),
        ([[0, 1]], TypeError, "index of take"),
        (None, TypeError, "index of take"),
        ("01", TypeError, "index of take"),
        ({0, 1}, TypeError, "index of take"),
    ],
)
def test_an_index_that_means_nothing_is_refused(index, error, message):
    with without_annotation_checks(), pytest.raises(error, match=message):
        gx.take(mlp(), {"up": "out", "down": "in"}, index)


def test_an_index_that_is_traced_is_refused():
    with pytest.raises(TypeError, match="known when a function is traced"):
        jax.jit(lambda index: gx.take(mlp(), {"up": 0}, index).up.weight)(jnp.array([0, 1]))


@pytest.mark.parametrize("axis", [2, -1, "rows", True, None, 0.0])
def test_an_axis_that_a_layer_has_not_is_refused(axis):
    message = r"'up'.*no axis.*0 or 'out', 1 or 'in'"
    with without_annotation_checks(), pytest.raises(ValueError, match=message):
        gx.take(mlp(), {"up": axis}, [0])


def test_no_pattern_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one pattern"):
        gx.take(mlp(), {}, [0])


def test_axes_that_differ_in_length_are_refused_by_both_paths():
    for index in ([0, 1], slice(2)):
        with pytest.raises(ValueError, match=r"'down'.*3 positions there, and 'up' has 8"):
            gx.take(mlp(), {"up": "out", "down": "out"}, index)


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(gx.NoMatchError, match="Did you mean 'up'"):
        gx.take(mlp(), {"upp": "out"}, [0])


def test_blocks_of_axes_of_several_lengths():
    model = gx.Parallel(query=linear(4, 8), key=linear(4, 4, 1), op=operator.itemgetter(0))
    small = gx.take(model, {"{query,key}": "out"}, gx.blocks([1], of=2))
    assert (small.query.out_features, small.key.out_features) == (4, 2)
    assert (small.key.weight == model.key.weight[2:]).all()
    for index, of in (([2], 2), ([0, 0], 2), ([], 2), ([0], 0)):
        with pytest.raises(ValueError):
            gx.blocks(index, of=of)


def test_shapes_without_numbers_are_cut_alike():
    shapes = eqx.filter_eval_shape(mlp)
    axes = {"up": "out", "down": "in"}
    cut = gx.take(shapes, axes, KEEP)
    expected = eqx.filter_eval_shape(lambda: gx.take(mlp(), axes, KEEP))
    assert cut.up.weight == expected.up.weight and cut.down.in_features == 3


def test_the_rest_of_a_partition_has_nothing_to_cut():
    _, rest = gx.select(mlp(), "up").partition()
    with pytest.raises(ValueError, match=r"'up'.*no weight here"):
        gx.take(rest, {"up": "out"}, KEEP)
