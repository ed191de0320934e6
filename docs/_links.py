"""Names in the pages become links: graftax's own to the API page, Equinox's and JAX's to their sites.

A hook of MkDocs. Nothing is fetched: where a name stands on the sites of others is known from the tables
below, so the pages build without a network.
"""

import ast
import re
import xml.etree.ElementTree as etree
from pathlib import Path

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.plugins import event_priority

ROOT = Path(__file__).parent.parent

# The pages of https://docs.kidger.site/equinox/api/, and what stands on each.
EQUINOX = {
    "debug": "debug.announce_transform debug.backward_nan debug.breakpoint_if debug.assert_max_traces",
    "errors": "error_if branched_error_if",
    "manipulation": "filter is_array is_array_like is_inexact_array is_inexact_array_like partition "
    "combine apply_updates tree_at tree_equal Partial tree_flatten_one_level tree_check",
    "module/advanced_fields": "field AbstractVar AbstractClassVar module_update_wrapper",
    "module/module": "Module",
    "nn/activations": "nn.PReLU",
    "nn/attention": "nn.MultiheadAttention",
    "nn/conv": "nn.Conv nn.ConvTranspose nn.Conv1d nn.Conv2d nn.Conv3d nn.ConvTranspose1d "
    "nn.ConvTranspose2d nn.ConvTranspose3d",
    "nn/dropout": "nn.Dropout",
    "nn/embedding": "nn.Embedding nn.RotaryPositionalEmbedding",
    "nn/inference": "nn.inference_mode",
    "nn/linear": "nn.Linear nn.Identity",
    "nn/mlp": "nn.MLP",
    "nn/normalisation": "nn.LayerNorm nn.RMSNorm nn.GroupNorm nn.BatchNorm nn.SpectralNorm nn.WeightNorm",
    "nn/pool": "nn.Pool nn.AvgPool1d nn.AvgPool2d nn.AvgPool3d nn.MaxPool1d nn.MaxPool2d nn.MaxPool3d "
    "nn.AdaptivePool nn.AdaptiveAvgPool1d nn.AdaptiveAvgPool2d nn.AdaptiveAvgPool3d "
    "nn.AdaptiveMaxPool1d nn.AdaptiveMaxPool2d nn.AdaptiveMaxPool3d",
    "nn/rnn": "nn.GRUCell nn.LSTMCell",
    "nn/sequential": "nn.Sequential nn.Lambda nn.StatefulLayer",
    "nn/shared": "nn.Shared",
    "nn/stateful": "nn.make_with_state nn.StateIndex nn.State",
    "pretty-printing": "tree_pprint tree_pformat",
    "serialisation": "tree_serialise_leaves tree_deserialise_leaves",
    "transformations": "filter_jit filter_make_jaxpr filter_eval_shape filter_shard filter_grad "
    "filter_value_and_grad filter_jvp filter_vjp filter_jacfwd filter_jacrev filter_hessian "
    "filter_custom_jvp filter_custom_vjp filter_checkpoint filter_closure_convert filter_vmap filter_pmap",
}
# Modules have a page under their own name; everything else has one among the summaries.
JAX_MODULES = (
    "jax.lax",
    "jax.nn",
    "jax.numpy",
    "jax.random",
    "jax.tree",
    "jax.tree_util",
    "jax.sharding",
)

_ALIASES = {"gx": "graftax", "eqx": "equinox", "jnp": "jax.numpy", "jtu": "jax.tree_util"}
_NAME = re.compile(r"([A-Za-z_][\w.]*?)(?:\(.*\))?", re.DOTALL)


def public_names(file: Path) -> list[str]:
    """What a package shows: `__all__`, or what it imports under the same name again."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [name for name in ast.literal_eval(node.value) if not name.startswith("_")]
    imported = (
        alias
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    )
    return [alias.name for alias in imported if alias.asname == alias.name]


def own_names() -> set[str]:
    package = ROOT / "src/graftax"
    zoo = {f"graftax.zoo.{name}" for name in public_names(package / "zoo/__init__.py")}
    return zoo | {f"graftax.{name}" for name in public_names(package / "__init__.py")}


def addresses() -> dict[str, str]:
    """Where the names of Equinox stand."""
    site = "https://docs.kidger.site/equinox/api"
    return {
        f"equinox.{name}": f"{site}/{page}/#equinox.{name}"
        for page, names in EQUINOX.items()
        for name in names.split()
    }


def address(name: str) -> str | None:
    """Where a full name of Equinox or JAX stands, if it is known."""
    if name in JAX_MODULES:
        return f"https://docs.jax.dev/en/latest/{name}.html"
    if name.startswith("jax."):
        return f"https://docs.jax.dev/en/latest/_autosummary/{name}.html"
    return addresses().get(name)


def full_name(code: str, own: set[str]) -> str | None:
    """`gx.select(m, "stem")` is about `graftax.select`, and so is `select`."""
    found = _NAME.fullmatch(code)
    if found is None:
        return None
    first, dot, rest = found[1].partition(".")
    name = _ALIASES.get(first, first) + dot + rest
    for candidate in (name, f"graftax.{name}"):
        if candidate in own:
            return candidate
    return name if address(name) else None


class _Links(Treeprocessor):
    """Wraps the code of a known name into a reference, which autorefs makes a link of."""

    def __init__(self, md: Markdown):
        super().__init__(md)
        self._own = own_names()

    def run(self, root: etree.Element) -> None:
        for parent in list(root.iter()):
            if parent.tag in ("a", "pre", "autoref") or re.fullmatch("h[1-6]", parent.tag):
                continue
            for i, child in enumerate(list(parent)):
                if child.tag != "code" or len(child):
                    continue
                if name := full_name("".join(child.itertext()), self._own):
                    parent[i] = self._reference(child, name)

    def _reference(self, code: etree.Element, name: str) -> etree.Element:
        if url := address(name):
            link = etree.Element("a", {"href": url})
        else:
            link = etree.Element("autoref", {"identifier": name, "optional": ""})
        link.tail, code.tail = code.tail, None
        link.append(code)
        return link


class LinksExtension(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        # After the inline patterns (20), which find the code in a text.
        md.treeprocessors.register(_Links(md), "graftax_links", 15)


def on_config(config):
    config.markdown_extensions.append(LinksExtension())
    return config


@event_priority(100)  # before autorefs looks the names up
def on_env(env, config, files):
    """The types in signatures are references already: they need only be known."""
    for name, url in addresses().items():
        config.plugins["autorefs"].register_url(name, url)
    for name in ("jax.Array", "jax.ShapeDtypeStruct", "jax.sharding.Mesh", "jax.typing.ArrayLike"):
        config.plugins["autorefs"].register_url(name, address(name))
    return env
