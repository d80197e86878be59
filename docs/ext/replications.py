"""The tables of replications, from the figures that ``benchmarks/reproduced.py`` stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.ext.markdown import write_table

FIGURES = Path(__file__).parents[1] / "data" / "reproduced.json"


def list_pages() -> dict[str, str]:
    """Return the tables of the page."""
    found = json.loads(FIGURES.read_text(encoding="utf-8"))
    data = ", ".join(
        f"`{name}` (SHA-256 `{digest[:16]}...`)" for name, digest in found["data"].items()
    )
    head = f"Computed at commit `{found['commit']}` with {data}.\n\n"
    return {"parts/reproduced": head + "\n".join(map(write_replication, found["replications"]))}


def write_replication(found: dict[str, Any]) -> str:
    """Return the section of one replication: each figure beside its reference."""
    rows = [
        [each["name"], *(show(each[key]) for key in ("ours", "reference", "tolerance")),
         "" if each["tolerance"] is None else "yes" if each["agrees"] else "**no**"]
        for each in found["rows"]
    ]  # fmt: skip
    head = ["figure", "ours", found["against"], "allowed", "agrees"]
    return f"## {found['replication']}\n\n`{found['command']}`\n\n" + write_table(head, rows)


def show(value: float | str | None) -> str:
    """Return a number with four digits."""
    return "" if value is None else value if isinstance(value, str) else f"{value:.4g}"
