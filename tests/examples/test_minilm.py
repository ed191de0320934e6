"""The real weights of all-MiniLM-L6-v2: embeddings are PyTorch's, before and after surgery."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import graftax as gx

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
EXPECTED = ROOT / "tests" / "data" / "minilm"


def example():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("minilm", ROOT / "examples" / "minilm.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["minilm"] = module
    spec.loader.exec_module(module)
    return module


# One test, because two workers must not download the same file at the same time.
def test_embeddings_are_those_of_pytorch_and_survive_surgery(tmp_path):
    minilm = example()
    published = minilm.fetch()
    facts = json.loads((EXPECTED / "sentences.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256((published / "model.safetensors").read_bytes()).hexdigest()
    assert digest == facts["model_sha256"]

    expected = load_file(EXPECTED / "expected.safetensors")
    batch = minilm.tokenise(published, facts["sentences"])
    assert (batch.ids == expected["input_ids"]).all()
    assert (batch.mask == expected["attention_mask"].astype(bool)).all()

    model = minilm.embedder(published)
    vectors = np.asarray(minilm.embed(model, batch))
    np.testing.assert_allclose(vectors, expected["embeddings"], atol=1e-5)

    # LoRA starts as no change; int8 is a small one; two blocks fewer is a large one.
    adapted = minilm.embed(minilm.add_lora(model), batch)
    np.testing.assert_allclose(adapted, vectors, atol=1e-6)
    small = minilm.to_int8(model)
    assert gx.select(small, "").nbytes < 0.7 * gx.select(model, "").nbytes
    assert np.sum(minilm.embed(small, batch) * vectors, axis=1).min() > 0.99
    assert len(minilm.drop_blocks(model).body.encoder) == 4
    assert len(gx.select(small, gx.QuantizedLinear)) == 6 * 6 - 1

    # What was reworked saves to one file and opens without this script's code but for its functions.
    gx.save(tmp_path / "small.safetensors", small)
    loaded = gx.load(tmp_path / "small.safetensors", types=[minilm.mean_pool, minilm.normalise])
    assert (minilm.embed(loaded, batch) == minilm.embed(small, batch)).all()
