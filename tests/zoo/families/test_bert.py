"""BERT: what it computes is what `transformers` computes, from every kind of checkpoint."""

import functools
import json
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import graftax as gx
from common_language import answers, batch, check_gradients, check_outputs, hidden, outputs, run
from common_zoo import (
    ZOO,
    arrays,
    check_round_trip,
    close,
    configurations,
    documented_labels,
    exported,
    fixture,
    labels,
    published,
    same_bits,
)
from graftax.zoo import ConfigError, bert, from_pretrained

FIXTURES = [name for name in configurations("bert") if name != "bert/torch_bin"]
SMALL = {"vocabulary": 11, "width": 8, "depth": 2, "heads": 2, "inner": 12, "act": jax.nn.gelu}
# No parameters of the model: a buffer, a bias that counts for nothing, a head for pretraining alone.
UNUSED = {
    "bert/minilm_like": {"embeddings.position_ids"},
    "bert/masked_lm_untied": {"cls.predictions.bias"},
    "bert/published": {
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    },
}


def forward(name, model, ids, **context):
    found = {f"hidden.{i}": x for i, x in enumerate(hidden(model, ids, **context))}
    expected = fixture(name).group("output.")
    if "last_hidden_state" in expected:
        found["last_hidden_state"] = found[f"hidden.{len(found) - 1}"]
    if "start_logits" in expected:
        return {**found, **answers(model, ids, **context)}
    answer = {"logits", "prediction_logits", "pooler_output"} & set(expected)
    return {**found, **{output: model(ids, **context) for output in answer}}


@functools.cache
def of(name):
    return functools.partial(forward, name)


# --- Against transformers ---


@pytest.mark.parametrize("name", FIXTURES)
def test_outputs_and_what_leaves_each_block_are_those_of_transformers(name):
    check_outputs(name, of(name), without=["seq_relationship_logits"])


@pytest.mark.parametrize("name", ["bert/base", "bert/masked_lm"])
def test_gradients_are_those_of_transformers(name, tmp_path):
    check_gradients(tmp_path, name, of(name))


# --- Files ---


@pytest.mark.parametrize("name", FIXTURES)
def test_an_export_has_the_names_and_bytes_of_the_checkpoint(name, tmp_path):
    found = fixture(name)
    unused = UNUSED.get(name, set())
    assert unused <= set(found.stored)
    parameters = {n: a for n, a in found.stored.items() if n not in unused}
    same_bits(exported(tmp_path, found.model, found.recipe), parameters)


@pytest.mark.parametrize("name", ["bert/base", "bert/masked_lm", "bert/no_pooler"])
def test_a_saved_model_loads_bit_for_bit(name, tmp_path):
    check_round_trip(tmp_path, fixture(name).model)


def test_shards_are_read_as_one_file(tmp_path):
    directory = published(tmp_path, "bert/sharded")
    save_file(fixture("bert/sharded").stored, directory / "model.safetensors")
    (directory / "model.safetensors.index.json").unlink()
    same_bits(arrays(from_pretrained(directory)), arrays(fixture("bert/sharded").model))


def test_a_missing_shard_is_named(tmp_path):
    directory = published(tmp_path, "bert/sharded")
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard 'model-00002-of-00002.safetensors'"):
        from_pretrained(directory)


def test_a_shard_without_what_the_index_says_is_named(tmp_path):
    directory = published(tmp_path, "bert/sharded")
    index = directory / "model.safetensors.index.json"
    where = json.loads(index.read_text())
    where["weight_map"]["pooler.dense.extra"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(where))
    with pytest.raises(gx.FormatError, match=r"holds 'pooler.dense.extra'; it does not"):
        from_pretrained(directory)


def test_a_pickle_without_torch_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pytorch_model.bin' is a PyTorch pickle.*install torch"):
        from_pretrained(ZOO / "bert" / "torch_bin")


class _Tensor:
    """As much of a tensor of PyTorch's as graftax touches."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, f"torch.{array.dtype}"

    def detach(self):
        return self

    cpu = resolve_conj = resolve_neg = contiguous = detach

    def reshape(self, shape):
        return _Tensor(self._array.reshape(shape))

    def view(self, dtype):
        return _Tensor(self._array.view(dtype))

    def numpy(self):
        return self._array


class _Unpickler(pickle.Unpickler):
    """Reads what `torch.save` writes, without torch."""

    def __init__(self, file):
        self._file = file
        (name,) = (n for n in file.namelist() if n.endswith("data.pkl"))
        self._folder = name.removesuffix("data.pkl")
        super().__init__(file.open(name))

    def find_class(self, module, name):
        known = {
            "OrderedDict": OrderedDict,
            "FloatStorage": np.float32,
            "_rebuild_tensor_v2": _tensor,
        }
        return known[name]

    def persistent_load(self, pid):
        _, dtype, key, _, _ = pid
        return np.frombuffer(self._file.read(f"{self._folder}data/{key}"), dtype)


def _tensor(storage, offset, shape, stride, *_):
    strides = [4 * step for step in stride]
    return _Tensor(np.lib.stride_tricks.as_strided(storage[offset:], shape, strides).copy())


def test_a_pickle_is_read_through_torch_without_running_it(monkeypatch):
    # torch is no dependency: what stands in for it here insists on the safe way of reading.
    def load(path, *, map_location, weights_only):
        assert weights_only is True
        assert map_location == "cpu"
        with zipfile.ZipFile(path) as file:
            return _Unpickler(file).load()

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load, uint8=np.uint8))
    check_outputs("bert/torch_bin", of("bert/torch_bin"))


# --- The configuration ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"add_cross_attention": True}, "add_cross_attention=True"),
        ({"hidden_act": "mish"}, "'mish' is not known"),
        ({"architectures": ["BertForMultipleChoice"]}, "is for 'BertForMultipleChoice'.*head=None"),
        ({"hidden_size": None}, "lacks 'hidden_size'"),
        ({"embedding_size": 12}, "embedding_size=12"),
        ({"model_type": "bort"}, "model_type='bort'.*bert"),
    ],
)
def test_a_value_that_cannot_be_followed_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        from_pretrained(published(tmp_path, "bert/base", **changes))


def test_an_unknown_value_may_be_ignored_by_name(tmp_path):
    directory = published(tmp_path, "bert/base", embedding_size=12)
    model = from_pretrained(directory, ignore_config=["embedding_size"])
    same_bits(arrays(model), arrays(fixture("bert/base").model))


@pytest.mark.parametrize(
    "left_out",
    ["hidden_act", "layer_norm_eps", "type_vocab_size", "hidden_dropout_prob", "architectures"],
)
def test_what_a_configuration_leaves_out_is_as_in_transformers(left_out, tmp_path):
    directory = published(tmp_path, "bert/base", remove=[left_out])
    assert repr(from_pretrained(directory)) == repr(fixture("bert/base").model)


def test_a_configuration_that_contradicts_the_weights_is_reported(tmp_path):
    directory = published(tmp_path, "bert/base", intermediate_size=48)
    with pytest.raises(gx.WeightsError, match=r"has shape \(48, 24\), the checkpoint \(40, 24\)"):
        from_pretrained(directory)


# --- Checkpoints ---


def test_with_its_own_bias_the_decoder_does_not_take_the_other():
    found = fixture("bert/masked_lm_untied")
    bias = found.stored["cls.predictions.decoder.bias"]
    assert (np.asarray(found.model.head.vocabulary.bias) == bias).all()
    assert (bias != found.stored["cls.predictions.bias"]).any()


@pytest.mark.parametrize(("name", "tied"), [("masked_lm", True), ("masked_lm_untied", False)])
def test_the_head_is_tied_or_its_own(name, tied):
    model = fixture(f"bert/{name}").model
    assert (model.head.vocabulary.weight is model.embeddings.word.weight) is tied
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    width = model.embeddings.word.weight.shape[1]
    assert sum(leaf.shape == (61, width) for leaf in leaves) == (1 if tied else 2)


def test_the_pooler_is_there_if_its_weights_are():
    assert fixture("bert/base").model.labels == ("embeddings", "encoder", "pooler")
    assert fixture("bert/no_pooler").model.labels == ("embeddings", "encoder")
    assert fixture("bert/published").model.labels == ("embeddings", "encoder", "head")


def test_the_number_of_classes_is_that_of_the_labels():
    assert fixture("bert/classification").model.head.out_features == 5


def test_half_precision_weights_are_cast_to_what_the_model_has(tmp_path):
    directory = published(tmp_path, "bert/base")
    weights = load_file(directory / "model.safetensors")
    half = {name: array.astype(np.float16) for name, array in weights.items()}
    save_file(half, directory / "model.safetensors")
    query = from_pretrained(directory).encoder[0].attention.query.weight
    assert query.dtype == jnp.float32
    name = "encoder.layer.0.attention.self.query.weight"
    assert (np.asarray(query) == half[name].astype(np.float32)).all()


# --- What it is ---


def test_padding_changes_nothing():
    model = fixture("bert/base").model[:"pooler"]
    mask = jnp.array([True, True, True, False, False])
    some, other = jnp.array([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])
    found = run(model, some, mask=mask)[:3]
    close(found, run(model, other, mask=mask)[:3])
    close(found, run(model, some[:3]))


def test_tokens_are_of_the_first_type_if_none_is_given():
    model, ids = fixture("bert/base").model, jnp.arange(5)
    found = run(model, ids)
    close(found, run(model, ids, token_types=jnp.zeros(5, int)))
    assert not np.allclose(found, run(model, ids, token_types=jnp.ones(5, int)), atol=1e-3)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match="A sequence of 17 is longer than the 16 positions"):
        fixture("bert/base").model(jnp.ones(17, int))


def test_the_published_sizes_have_the_published_number_of_parameters():
    sizes = {"vocabulary": 30522, "width": 768, "depth": 12, "heads": 12, "inner": 3072}
    build = functools.partial(bert, **sizes, act=jax.nn.gelu)
    model = eqx.filter_eval_shape(build, key=jax.random.key(0))
    leaves = jax.tree.leaves(eqx.filter(model, lambda leaf: hasattr(leaf, "shape")))
    assert sum(leaf.size for leaf in leaves) == 109_482_240


@pytest.mark.parametrize(
    ("head", "shape"),
    [(None, (5, 8)), ("pooler", (8,)), ("classifier", (3,)), ("vocabulary", (5, 11))],
)
def test_each_head_gives_its_shape(head, shape):
    build = functools.partial(bert, **SMALL, head=head, classes=3, dropout=0.0)
    model = eqx.filter_eval_shape(build, key=jax.random.key(0))
    found = eqx.filter_eval_shape(model, jnp.arange(5))
    assert found.shape == shape


def test_training_draws_dropout_from_the_key():
    model = eqx.nn.inference_mode(fixture("bert/base").model, value=False)
    one, again, other = (run(model, jnp.arange(4), key=jax.random.key(i)) for i in (1, 1, 2))
    assert (one == again).all()
    assert not np.allclose(one, other)


# --- Labels ---


@pytest.mark.parametrize("name", ["base", "masked_lm", "classification"])
def test_every_label_is_in_the_vocabulary(name):
    assert labels(fixture(f"bert/{name}").model) <= documented_labels()


def test_its_parts_are_found_by_their_labels():
    model = fixture("bert/base").model
    for label, path in {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "output": "attention.op.output",
        "norm1": "norm1",
        "norm2": "norm2",
        "up": "mlp.up",
        "down": "mlp.down",
    }.items():
        assert gx.select(model, label).paths == (f"encoder.0.{path}", f"encoder.1.{path}")


def test_the_body_is_the_model_up_to_its_head():
    model, (ids, context) = fixture("bert/classification").model, batch("bert/classification")
    expected = outputs("bert/classification", of("bert/classification"))
    body = run(model[:"pooler"], ids[0], **{key: value[0] for key, value in context.items()})
    close(body, expected["hidden.2"][0])
    answer = jnp.tanh(model.pooler.dense(body[0]))
    close(model.head(answer), expected["logits"][0])
