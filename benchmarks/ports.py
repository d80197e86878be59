"""The examples of docs/moving.md in the other tools, each in an environment of its own.

    python -m benchmarks.ports [--only NAME ...]

Runs the ```py blocks of the page and writes their numbers, with the versions, to
benchmarks/ports.json. Needs a package index. A test compares our numbers with the file.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import backtest as bt
from docs.ext import blocks

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "moving.md"
RECORD = Path(__file__).with_suffix(".json")
WORK = ROOT / "build" / "ports"


def read_sections() -> dict[str, str]:
    """Return the text under each heading of the page, by its package."""
    found = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    names = (title.lower().removesuffix(".py") for title in found[::2])
    return dict(zip(names, found[1::2], strict=True))


def record(name: str, code: str) -> dict[str, object]:
    """Install a package, run its block, and return its version and numbers."""
    python = WORK / f"env-{name}" / "bin" / "python"
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-compile", name], check=True)
    version, printed = (
        subprocess.run(
            [python, "-c", text], cwd=WORK, check=True, capture_output=True, text=True
        ).stdout.strip()
        for text in (f"from importlib.metadata import version; print(version({name!r}))", code)
    )
    return {"version": version, "numbers": json.loads(printed.splitlines()[-1])}


def main() -> None:
    """Run the examples and write their numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(read_sections()))
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    bt.Market.sample(bars=2880).bars().to_csv(WORK / "bars.csv", index_label="time")
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for name in arguments.only:
        section = read_sections()[name]
        if theirs := re.search(r"^```py\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
            for block in blocks.find_blocks(section):
                blocks.run_python(
                    block, WORK, name
                )  # QuantStats takes the returns that ours writes
            known[name] = record(name, theirs[1])
    RECORD.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(RECORD.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
