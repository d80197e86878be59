"""How long reports take: a run of a year of minutes, and a sweep of 100,000 sets.

    python benchmarks/report.py [--bars 525600] [--sets 100000]

Prints seconds and megabytes, from a loaded result to the text of the HTML, and the same as JSON.
The bar is five seconds each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time

import numpy as np
import pandas as pd

import backtest as bt
from backtest.report.render import write_html
from backtest.report.write import build_page
from backtest.store import Saved
from backtest.strategies import Constant, VolTarget
from backtest.sweep import Sweep

VENUE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125
)


def make_run(bars: int) -> bt.Result:
    """Return a saved and loaded run of one-minute bars at 5x."""
    steps = 8e-4 * np.random.default_rng(0).standard_normal(bars)
    close = 30_000.0 * np.exp(np.cumsum(steps))
    opens = np.concatenate([close[:1], close[:-1]])
    frame = pd.DataFrame(
        {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
         "close": close, "volume": 1.0},
        index=pd.date_range("2023-01-01", periods=bars, freq="1min", tz="UTC"),
    )  # fmt: skip
    market = bt.Market.from_frames(frame)
    result = bt.run(market, Constant(leverage=5.0), venue=VENUE, account=bt.Account(band=0.2))
    with tempfile.TemporaryDirectory() as folder:
        return bt.Result.load(result.save(folder))


def make_sweep(sets: int) -> Sweep:
    """Return a sweep of so many sets: a real one of 256, its measures repeated with noise."""
    market = bt.Market.sample(bars=24 * 20)
    small = bt.sweep(market, VolTarget, 256, venue=VENUE, account=bt.Account(), compile=False)
    rng = np.random.default_rng(0)
    table = small.table.iloc[np.arange(sets) % 256].reset_index(drop=True)
    for name in table.columns:
        if table[name].dtype == np.float64 and name not in ("ruined", "ruin_time"):
            table[name] = table[name] * (1.0 + 0.05 * rng.standard_normal(sets))
    return Sweep(table, {**small.manifest, "sets": {"asked": sets, "hash": ""}})


def measure(name: str, source: Saved) -> dict[str, float]:
    """Print and return how long the report of something takes, and how large it is."""
    began = time.perf_counter()
    text = write_html(build_page(source))
    seconds = time.perf_counter() - began
    sys.stdout.write(f"{name:30} {seconds:6.2f} s  {len(text) / 1e6:5.2f} MB\n")
    return {"seconds": seconds, "megabytes": len(text) / 1e6}


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=525_600)
    parser.add_argument("--sets", type=int, default=100_000)
    given = parser.parse_args()
    report = {
        "run": measure(f"run of {given.bars:,} bars", make_run(given.bars)),
        "sweep": measure(f"sweep of {given.sets:,} sets", make_sweep(given.sets)),
    }
    sys.stdout.write(json.dumps({"bars": given.bars, "sets": given.sets, **report}) + "\n")


if __name__ == "__main__":
    main()
