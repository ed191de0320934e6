"""The pages in `docs/` are true: each example runs as written, and each public name is listed."""

import doctest
import json
import re
import sys
import types
from pathlib import Path

import equinox as eqx
import huggingface_hub
import jax
import jax.numpy as jnp
import pytest
from safetensors.numpy import load_file, save_file

import graftax as gx

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, language: str) -> str:
    """The page with all but its blocks of a language blanked: line numbers stay those of the page."""
    lines, inside = [], False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line.strip() == f"```{language}"
            line = ""
        lines.append(line if inside else "")
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path):
    names = {"eqx": eqx, "gx": gx, "jax": jax, "jnp": jnp}
    source = blocks(page.read_text(encoding="utf-8"), "pycon")
    test = doctest.DocTestParser().get_doctest(source, names, page.name, str(page), 0)
    report: list[str] = []
    # After a failure the rest of the page fails for want of names.
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_ONLY_FIRST_FAILURE
    doctest.DocTestRunner(optionflags=flags).run(test, out=report.append)
    assert not report, "".join(report)


# What a block of plain code takes for granted.
GIVEN = {
    "ids": jnp.arange(1, 6),
    "mask": jnp.arange(5) < 4,
    "jnp": jnp,
    "jax": jax,
    "eqx": eqx,
    "gx": gx,
}


def minilm(directory: Path) -> None:
    """What the Hub holds as all-MiniLM-L6-v2, but narrow: six blocks like the one of a small BERT."""
    small = ROOT / "tests/data/zoo/bert/base"
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(small / "model.safetensors")
    for name, tensor in list(tensors.items()):
        if ".layer.0." in name:
            copies = {name.replace(".layer.0.", f".layer.{i}."): tensor for i in range(6)}
            tensors.update(copies)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))


WITH_PLAIN_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", WITH_PLAIN_CODE, ids=lambda page: page.name)
def test_plain_code_runs(page: Path, tmp_path, monkeypatch):
    directory = tmp_path / "hub"
    directory.mkdir()
    minilm(directory)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(directory))
    monkeypatch.chdir(tmp_path)
    exec(
        compile(blocks(page.read_text(encoding="utf-8"), "python"), str(page), "exec"), dict(GIVEN)
    )


def test_every_block_of_code_is_run():
    languages = {
        line.strip("` ")
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("```")
    }
    assert languages <= {"", "pycon", "python", "text"}


def test_every_public_name_is_on_the_api_page():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: graftax\.([\w.]+)$", page, re.M)
    assert len(listed) == len(set(listed))
    zoo = {f"zoo.{name}" for name, value in vars(gx.zoo).items() if _is_public(name, value)}
    assert set(listed) == {name for name in gx.__all__ if name != "zoo"} | zoo


def _is_public(name: str, value: object) -> bool:
    return not name.startswith("_") and not isinstance(value, types.ModuleType)


def test_no_public_name_is_a_module():
    for name in gx.__all__:
        assert name == "zoo" or not isinstance(getattr(gx, name), types.ModuleType), name
        module = sys.modules.get(f"graftax.{name}")
        assert name == "zoo" or module is None, name
