"""Ours next to the published figure: a row per number, as a table and as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One number; ``tolerance`` is what rounding or chance allows, NaN where nothing is claimed."""

    name: str
    ours: float
    published: float
    tolerance: float = math.nan

    @property
    def agrees(self) -> bool:
        """Whether ours is within the tolerance, or none is claimed."""
        return not abs(self.ours - self.published) > self.tolerance


def write(title: str, rows: Iterable[Row], facts: dict[str, Any]) -> None:
    """Print a table, then everything on one line of JSON."""
    found = list(rows)
    width = max(len(row.name) for row in found) + 2
    lines = [title, f"{'':{width}}{'ours':>11}{'published':>11}{'allowed':>10}"]
    for row in found:
        allowed = "" if math.isnan(row.tolerance) else f"{row.tolerance:.4g}"
        published = "" if math.isnan(row.published) else f"{row.published:.4f}"
        mark = "" if row.agrees else "  DIFFERS"
        lines.append(f"{row.name:{width}}{row.ours:>11.4f}{published:>11}{allowed:>10}{mark}")
    plain = [
        {k: v if isinstance(v, str) or math.isfinite(v) else None for k, v in row._asdict().items()}
        | {"agrees": row.agrees}
        for row in found
    ]
    text = json.dumps({"replication": title, "rows": plain, **facts})
    sys.stdout.write("\n".join(lines) + f"\n{text}\n")
