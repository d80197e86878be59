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
