"""Ours next to a reference figure: a row per number, as a table and as JSON.

Each table names its reference: what a paper published, a formula, or a second implementation.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One number; ``tolerance`` is what rounding or chance allows, NaN where nothing is claimed."""

    name: str
    ours: float
    reference: float
    tolerance: float = math.nan

    @property
    def agrees(self) -> bool:
        """Whether ours is within the tolerance, or none is claimed."""
        return not abs(self.ours - self.reference) > self.tolerance


def list_values(row: Row) -> dict[str, str | float | bool | None]:
    """Return the fields of a row as JSON has them, which knows no NaN, and whether it agrees."""
    values: dict[str, str | float | bool | None] = {}
    for name, value in row._asdict().items():
        is_plain = isinstance(value, str) or math.isfinite(value)
        values[name] = value if is_plain else None
    return {**values, "agrees": row.agrees}


def write(
    title: str, rows: Iterable[Row], facts: dict[str, Any], *, against: str = "published"
) -> None:
    """Print a table, then everything on one line of JSON; ``against`` names the reference."""
    rows = list(rows)
    width = max(len(row.name) for row in rows) + 2
    column = max(11, len(against) + 2)

    lines = [title, f"{'':{width}}{'ours':>11}{against:>{column}}{'allowed':>10}"]
    for row in rows:
        allowed = "" if math.isnan(row.tolerance) else f"{row.tolerance:.4g}"
        reference = "" if math.isnan(row.reference) else f"{row.reference:.4f}"
        mark = "" if row.agrees else "  DIFFERS"
        lines.append(f"{row.name:{width}}{row.ours:>11.4f}{reference:>{column}}{allowed:>10}{mark}")

    plain = [list_values(row) for row in rows]
    text = json.dumps({"replication": title, "against": against, "rows": plain, **facts})
    sys.stdout.write("\n".join(lines) + f"\n{text}\n")


def run(
    title: str, replicate: Callable[..., Iterable[Row]], *, against: str = "published", **facts: Any
) -> None:
    """Print a replication; its command line has the arguments of its function."""
    parser = argparse.ArgumentParser(description=title)
    for name, parameter in inspect.signature(replicate).parameters.items():
        if name == "file":
            parser.add_argument(name, type=Path)
        else:
            parser.add_argument(f"--{name}", type=int, default=parameter.default)

    given = vars(parser.parse_args())
    plain = {name: getattr(value, "name", value) for name, value in given.items()}
    write(title, replicate(**given), facts | plain, against=against)
