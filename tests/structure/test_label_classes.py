"""One class for each set of labels, from any thread; of those that anybody makes, only so many for good."""

import collections
import copy
import gc
import pickle
import threading
import time

import jax
import jax.numpy as jnp
import pytest

import graftax as gx
from graftax.paths import tree
from graftax.structure import labels as module
from graftax.structure.labels import layers_class


@pytest.fixture
def full(monkeypatch):
    """As if as many classes had been made as are kept for good."""
    monkeypatch.setattr(module, "_MOST_KEPT", 0)


def test_threads_that_make_the_same_new_labels_get_one_class(monkeypatch):
    made, barrier = [], threading.Barrier(8)

    def slow(*arguments):
        time.sleep(0.01)
        made.append(arguments)
        return collections.namedtuple(*arguments)

    monkeypatch.setattr(module, "namedtuple", slow)
    found = []

    def ask():
        barrier.wait()
        found.append(layers_class(("asked_by_threads", "all_at_once")))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == len(made) == 1


def test_threads_build_models_of_equal_structure():
    found, barrier = [], threading.Barrier(4)

    def build():
        barrier.wait()
        found.extend(gx.Chain(**{f"of_thread_{i}": abs}) for i in range(50))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({jax.tree.structure(model) for model in found}) == 50


def test_what_is_made_beyond_the_bound_goes_when_its_models_go(full):
    before, kept = len(module._passing), len(module._kept)
    models = [gx.Chain(**{f"passing_{i}": jnp.tanh}) for i in range(20)]
    assert len(module._passing) == before + 20 and len(module._kept) == kept
    del models
    tree._kind_of_type.cache_clear()
    gc.collect()
    assert len(module._passing) == before


def test_beyond_the_bound_labels_work_as_before(full):
    make = lambda: gx.Chain(beyond_a=jnp.sin, beyond_b=gx.Chain(beyond_c=jnp.cos))
    model, again = make(), make()
    assert type(model.layers) is type(again.layers) is layers_class(model.labels)
    for same in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert jax.tree.structure(same) == jax.tree.structure(model)
    assert jax.tree.map(lambda f: f, model).beyond_b.labels == ("beyond_c",)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(model)]
    assert paths == [".layers.beyond_a", ".layers.beyond_b.layers.beyond_c"]
    assert gx.select(model, "beyond_c").paths == ("beyond_b.beyond_c",)


def test_paths_and_structure_are_the_same_within_the_bound_and_beyond(monkeypatch):
    def seen(labels):
        model = gx.Chain(dict.fromkeys(labels, jnp.sin))
        leaves = jax.tree_util.tree_leaves_with_path(model)
        return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves], model.labels

    within = seen(("within_1", "within_2"))
    monkeypatch.setattr(module, "_MOST_KEPT", 0)
    beyond = seen(("beyond_1", "beyond_2"))
    assert str(beyond).replace("beyond", "within") == str(within)
