"""llms.txt of the site: what it is, and each page with its first sentence, as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MOST_LETTERS = 200
"""Longest description of a page."""


def write_llms(app: Sphinx, error: Exception | None) -> None:
    """Write llms.txt into a site that was built."""
    if error is not None or app.builder.format != "html":
        return
    root = app.env.get_doctree(app.config.root_doc)
    parts = [f"# {app.config.project}", f"> {find_sentence(root)}"]
    for tree in root.findall(addnodes.toctree):
        rows = [describe_page(app, str(name)) for _, name in tree["entries"]]
        parts.append(f"## {tree['caption']}\n\n" + "\n".join(rows))
    (Path(app.outdir) / "llms.txt").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def describe_page(app: Sphinx, name: str) -> str:
    title = app.env.titles[name].astext()
    sentence = find_sentence(app.env.get_doctree(name))
    link = app.builder.get_target_uri(name)
    return f"- [{title}]({link}): {sentence}" if sentence else f"- [{title}]({link})"


def find_sentence(doctree: Any) -> str:
    """Return the first sentence of a page; empty if it has no paragraph."""
    for text in list_paragraphs(doctree):
        sentence = re.split(r"(?<=[.?!]) ", text, maxsplit=1)[0]
        return sentence if len(sentence) <= MOST_LETTERS else f"{sentence[:MOST_LETTERS]} ..."
    return ""


def list_paragraphs(doctree: Any) -> Iterator[str]:
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if text:
            yield text
