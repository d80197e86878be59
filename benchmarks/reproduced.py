"""Run all replications, and store their figures for the page of the site.

    python benchmarks/reproduced.py FACTORS [--out docs/data/reproduced.json]

FACTORS is Kenneth French's file of daily factors, F-F_Research_Data_Factors_daily_*.CSV, from his
data library. Each replication runs as a command of its own; the file has their rows, the hash of
the data and the commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "replications"
PAGE = Path(__file__).parents[1] / "docs" / "data" / "reproduced.json"
HELPERS = ("comparison", "paths")
WITH_FACTORS = (
    "daily_funds", "moreira_muir", "moreira_muir_factors", "real_time_scale",
    "volatility_targeting",
)  # fmt: skip
"""Those that read the file of factors."""


def run(script: Path, factors: Path) -> dict[str, Any]:
    """Return what a replication prints as JSON, with its command."""
    file = [str(factors)] if script.stem in WITH_FACTORS else []
    done = subprocess.run(
        [sys.executable, str(script), *file], capture_output=True, text=True, check=True
    )
    shown = f"python benchmarks/replications/{script.name}" + (" FACTORS" if file else "")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {key: found[key] for key in ("replication", "against", "rows")} | {"command": shown}


def read_others(file: Path, scripts: list[str]) -> list[dict[str, Any]]:
    """Return what the file has of other scripts than those that run."""
    if not file.exists():
        return []
    stored = json.loads(file.read_text(encoding="utf-8"))["replications"]
    return [each for each in stored if not any(f"/{name}" in each["command"] for name in scripts)]


def main() -> None:
    """Run them in the order of their names, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("factors", type=Path)
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument(
        "--only", nargs="*", default=[], help="run these; the file keeps the others"
    )
    wanted = parser.parse_args()
    scripts = [each for each in sorted(FOLDER.glob("*.py")) if each.stem not in HELPERS]
    chosen = [each for each in scripts if not wanted.only or each.stem in wanted.only]
    kept = read_others(wanted.out, [each.name for each in chosen])
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    found = {
        "commit": commit,
        "data": {wanted.factors.name: hashlib.sha256(wanted.factors.read_bytes()).hexdigest()},
        "replications": sorted(
            [*kept, *(run(each, wanted.factors) for each in chosen)],
            key=lambda each: each["command"],
        ),
    }
    wanted.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"file": str(wanted.out), "replications": len(chosen)}))  # noqa: T201 - a script


if __name__ == "__main__":
    main()
