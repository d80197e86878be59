"""Small pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(clean_cell, line))} |\n" for line in lines)


def clean_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()


def escape(text: str) -> str:
    return re.sub(r"([\\*_`<>\[\]$])", r"\\\1", text)


def write_toc(names: Iterable[str], *, depth: int = 1) -> str:
    listed = "\n".join(f"generated/{name}" for name in names)
    return f"```{{toctree}}\n:maxdepth: {depth}\n\n{listed}\n```\n"
