"""How long a list of many saved results takes: first of all, with notes, and as a command.

    python benchmarks/store.py [--results 5000]

One run is saved, and copied under so many ids; prints JSON, seconds by what was done. The bar is
two seconds for the command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtest as bt
from backtest.base import read_provenance, write_json_file, write_provenance
from backtest.base.provenance import UNKNOWN
from backtest.engine.manifest import NOT_IN_ID, compute_id
from backtest.engine.result_files import describe_line, describe_metrics
from backtest.store.listing import Filter, list_results, read_bound, sort_entries
from backtest.store.verify import verify_folder
from backtest.strategies import VolTarget

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
QUIET = 2.5
"""Seconds after which what was written may be noted."""


def fill(store: Path, count: int) -> None:
    """Save a run, and copies of it whose capital, and so their id, differs."""
    market = bt.Market.sample(bars=24 * 5)
    result = bt.run(market, VolTarget(), venue=VENUE, account=bt.Account(), compile=False)
    first = result.save(store)
    manifest = json.loads((first / "manifest.json").read_text())
    making = read_provenance(first, manifest["id"]) or UNKNOWN
    aside = ("format", "files", "id", *NOT_IN_ID)
    for k in range(1, count):
        manifest["account"]["capital"] = 10_000.0 + k
        identity = compute_id({name: manifest[name] for name in manifest if name not in aside})
        manifest["id"] = identity
        target = store / f"voltarget-{identity}"
        shutil.copytree(first, target)
        write_json_file(manifest, target / "manifest.json")
        line = describe_line(target, manifest, describe_metrics(result.metrics))
        write_provenance(target, target, identity, making, line)


def clock(action: Callable[[], Any]) -> float:
    """Return how many seconds something takes."""
    began = time.perf_counter()
    action()
    return round(time.perf_counter() - began, 3)


def list_by_command(store: Path) -> None:
    """List a store in a process of its own."""
    words = ["results", "list", "--sort", "sharpe", "--where", "sharpe>1", "--results", str(store)]
    subprocess.run(
        [sys.executable, "-m", "backtest", *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def choose(store: Path) -> int:
    """List, filter and sort."""
    wanted = Filter(bounds=(read_bound("sharpe>1"),))
    return len(sort_entries(filter(wanted.matches, list_results(store)), "sharpe"))


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=5_000)
    count = parser.parse_args().results
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "results"
        fill(store, count)
        seconds = {
            "list": clock(lambda: list_results(store)),
            "list, filter and sort": clock(lambda: choose(store)),
            "command": clock(lambda: list_by_command(store)),
        }
        names = sorted(store.glob("voltarget-*"))[:200]
        seconds["verify 200"] = clock(lambda: [verify_folder(each) for each in names])
    print(json.dumps({"results": count, "seconds": seconds}, indent=1))  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
