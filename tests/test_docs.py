"""The pages in `docs/` are true: each example runs as written, and each public name is listed."""

import doctest
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import graftax as gx

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples(page: str) -> str:
    """The page with all but its `pycon` blocks blanked: line numbers stay those of the page."""
    lines, inside = [], False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line.strip() == "```pycon"
            line = ""
        lines.append(line if inside else "")
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page: Path):
    names = {"eqx": eqx, "gx": gx, "jax": jax, "jnp": jnp}
    source = examples(page.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(source, names, page.name, str(page), 0)
    report: list[str] = []
    # After a failure the rest of the page fails for want of names.
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.REPORT_ONLY_FIRST_FAILURE
    doctest.DocTestRunner(optionflags=flags).run(test, out=report.append)
    assert not report, "".join(report)


def test_every_public_name_is_on_the_api_page():
    listed = set(re.findall(r"^::: graftax\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.M))
    public = {name for name in gx.__all__ if not name.startswith("_")}
    assert listed == public
