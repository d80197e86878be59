"""The Sphinx extension: generate pages, run the blocks of every page, and show their output."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.display import progress_message

from docs.ext import api, block_cache, blocks, llms
from docs.ext.links import REPOSITORY

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PARTS = ("api", "policies", "venues")
"""Pages of the reference that list others."""
ON_SITE = {
    "](../strategies/)": "](reference/policies.md)",
    "](../backtest/venue/presets/)": "](reference/venues.md)",
}
"""Folders to which pages link in a clone, and the made page that the site has of each."""
PLOTLY = "plotly.min.js"
IMPORTED = (
    "plotly.express", "scipy.optimize", "scipy.stats", "sklearn.ensemble", "cmaes",
    "arch.univariate",
)  # fmt: skip
"""What blocks import, or the package for them, that takes a second each."""


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", generate_pages)
    app.connect("source-read", show_reference)
    app.connect("source-read", link_repository)
    app.connect("env-get-outdated", find_outdated)
    app.connect("env-before-read-docs", import_early)
    app.connect("doctree-read", run_page)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("html-page-context", add_plotly)
    app.connect("build-finished", copy_plotly)
    app.connect("build-finished", llms.write_llms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def generate_pages(app: Sphinx, _config: object) -> None:
    from docs.ext import pages

    with progress_message("generating pages"):
        pages.write_pages(Path(app.srcdir) / "generated", pages.list_committed())
        pages.write_pages(Path(app.srcdir) / "reference", pages.list_reference())


def show_reference(_app: Sphinx, name: str, source: list[str]) -> None:
    """Let the pages of names have links between them, and lists of pages a place in the menu."""
    folder, _, page = name.partition("/")
    if folder == "reference" and page.startswith("api/"):
        source[0] = api.list_site_pages()[page]
    elif folder == "reference" and page in PARTS:
        source[0] += f"\n```{{toctree}}\n:glob:\n:hidden:\n\n{page}/*\n```\n"


def link_repository(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Lead links that leave the folder of pages to the made pages, or to the repository."""
    if not _name.startswith("reference/"):
        for folder, page in ON_SITE.items():
            source[0] = source[0].replace(folder, page)
        above = "](" + "../" * (1 + _name.count("/"))
        source[0] = source[0].replace(above, f"]({REPOSITORY}")


def escape_bars(
    _app: Sphinx, _what: str, _name: str, _value: object, _options: object, lines: list[str]
) -> None:
    lines[:] = [
        "".join(
            part if index % 2 else part.replace("|", "\\|")
            for index, part in enumerate(re.split(r"(``.*?``)", line))
        )
        for line in lines
    ]


def skip_foreign(
    _app: Sphinx, _what: str, _name: str, value: object, skip: bool, _options: object
) -> bool | None:
    value = value.fget if isinstance(value, property) else inspect.unwrap(value)  # type: ignore[arg-type]
    module = getattr(value, "__module__", None) or ""
    is_foreign = callable(value) and not module.startswith("backtest")
    return True if is_foreign else None


def run_page(app: Sphinx, doctree: nodes.document) -> None:
    page = app.env.docname
    is_page_run = bool(app.env.metadata[page].get("run"))
    is_shared = bool(app.env.metadata[page].get("shared"))
    found = [n for n in doctree.findall(nodes.literal_block) if is_run(n, is_page_run)]
    if not found:
        return

    listed = [blocks.Block(n["language"], n.astext(), n.line or 0) for n in found]
    kept = block_cache.find_file(listed, is_shared=is_shared)
    outputs = block_cache.read_outputs(kept)
    if outputs is None:
        print(f"running {len(listed)} blocks of {page}", flush=True)  # noqa: T201 - it takes time
        outputs = run_blocks(listed, page, is_shared=is_shared)
        block_cache.write_outputs(kept, page, outputs)
    for node, output in zip(found, outputs, strict=True):
        show_output(node, output)


def run_blocks(listed: list[blocks.Block], page: str, *, is_shared: bool) -> list[blocks.Output]:
    shared = ModuleType("shared") if is_shared else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blocks.write_samples(folder)
        return [block_cache.time_block(block, folder, page, shared) for block in listed]


def find_outdated(
    app: Sphinx, env: Any, _added: set[str], _changed: set[str], _removed: set[str]
) -> list[str]:
    """Return the pages to read again: all, if the package is not the one that they were made of."""
    digest = block_cache.digest_package()
    before = getattr(env, "package_digest", "")
    env.package_digest = digest
    return [] if before == digest else sorted(env.found_docs)


def import_early(_app: Sphinx, _env: object, names: list[str]) -> None:
    """Import once what the processes that read pages, which are forks of this one, would each."""
    if names:
        for name in IMPORTED:
            with contextlib.suppress(
                ImportError
            ):  # of what is not installed, the block will say so
                importlib.import_module(name)


def is_run(node: nodes.literal_block, is_page_run: bool) -> bool:
    language = node.get("language")
    return language == "python" or (is_page_run and language in {"sh", "toml"})


def show_output(node: nodes.literal_block, output: blocks.Output) -> None:
    shown: list[nodes.Node] = []
    if output.text.strip():
        text = output.text.strip("\n")
        shown.append(nodes.literal_block(text, text, language="none"))
    if output.html:
        shown.append(nodes.raw("", output.html, format="html"))
    if shown:
        node.parent.insert(
            node.parent.index(node) + 1, nodes.container("", *shown, classes=["output"])
        )


def add_plotly(
    app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object
) -> None:
    if "plotly-graph-div" in context.get("body", ""):
        path = context["pathto"](f"_static/{PLOTLY}", 1)
        context["metatags"] = f'{context.get("metatags", "")}<script src="{path}"></script>'


def copy_plotly(app: Sphinx, error: Exception | None) -> None:
    from plotly.offline import get_plotlyjs

    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "_static" / PLOTLY).write_text(get_plotlyjs(), encoding="utf-8")
