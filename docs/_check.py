"""What the built pages must hold: run by `make docs`, after the pages are built."""

import operator
import re
import sys
from pathlib import Path

import equinox
import jax
from _links import JAX_MODULES, addresses, own_names

# A class whose objects nobody makes by hand.
WITHOUT_CONSTRUCTOR = re.compile(r"Error$")


def faults(site: Path):
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(site.rglob("*.html"))}
    for page, text in pages.items():
        for address in re.findall(
            r"<(?:script|link)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)", text
        ):
            yield f"{page} loads {address}: the pages stand on nothing from outside."
    api = pages[site / "api/index.html"]
    entries = dict(_entries(api))
    for name in sorted(own_names() - {"graftax.zoo"}):
        if name not in entries:
            yield f"{name} is not on the API page."
        elif "doc-signature" not in entries[name] and not WITHOUT_CONSTRUCTOR.search(name):
            yield f"{name} stands on the API page without its arguments."
    for name in re.findall(
        r'<h\d id="([^"]+)" class="doc doc-heading">(?:(?!</h).)*doc-symbol-module', api
    ):
        yield f"{name} on the API page is a module."
    for site_name in ("docs.kidger.site/equinox/api", "docs.jax.dev/en/latest"):
        if site_name not in api:
            yield f"The API page links to nothing at {site_name}."
    if 'href="../api/#graftax.select"' not in pages[site / "surgery/index.html"]:
        yield "The page on surgery does not link to `select`."


def unknown_names():
    """Names that the tables of links have, and Equinox or JAX has not."""
    for name in [*addresses(), *JAX_MODULES]:
        package, _, rest = name.partition(".")
        try:
            operator.attrgetter(rest)({"equinox": equinox, "jax": jax}[package])
        except AttributeError:
            yield f"docs/_links.py has {name}, and there is no such thing."


def _entries(api: str):
    """The names on the page, each with what stands between it and the next."""
    names = sorted(own_names())
    found = sorted((api.find(f'id="{name}"'), name) for name in names if f'id="{name}"' in api)
    ends = [start for start, _ in found[1:]] + [len(api)]
    for (start, name), end in zip(found, ends, strict=True):
        yield name, api[start:end]


if __name__ == "__main__":
    found = [*faults(Path(sys.argv[1])), *unknown_names()]
    sys.exit("\n".join(found) or None)
