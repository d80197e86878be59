"""Time paths and risk: cost per bar of a path, with the accounting, and memory.

    python benchmarks/risk.py [PATHS]

Prints JSON: CPU microseconds per bar of a path in one thread, drawing and accounting together, for
models of one and of four steps per bar, and the peak of memory for few and for many paths.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from typing import Annotated, Any

import pandas as pd

import backtest as bt
from backtest import paths as models
from backtest.risk.path_runner import PathsRunner

HOURS = 720


class Hold(bt.Policy):
    """Open one position, and keep it."""

    size: Annotated[float, bt.Range(0, 100, "turns")] = 5.0

    def leverage(self, bar: Any, account: Any) -> float:
        """Return the leverage until there is a position."""
        return math.nan if account.position != 0.0 else self.size


def time_paths(market: Any, model: Any, bridge: int, count: int) -> float:
    """Return CPU microseconds per bar of a path and instrument, after a warm start."""
    paths = bt.simulate_paths(
        market, model, paths=count, horizon=f"{HOURS}h", bridge=bridge, seed=1
    )

    venue = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
    test = bt.Backtest(market, venue=venue, account=bt.Account(capital=10_000))
    runner = PathsRunner(paths, Hold(), test)
    runner.run_block(0, 64)

    start = time.process_time()
    for _ in runner.run_chunks():
        pass

    n_markets = len(market) if isinstance(market, bt.Markets) else 1
    return (time.process_time() - start) / (n_markets * count * HOURS) * 1e6


def main() -> None:
    """Measure and print."""
    market = bt.Market.sample()
    bare = bt.Market.from_frames(pd.DataFrame(market.bars()))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    gbm = models.GBM(volatility=0.8)
    two = bt.Markets({"BTCUSDT": market, "ETHUSDT": bt.Market.sample(seed=1)})

    found: dict[str, Any] = {"paths": count, "bars": HOURS}
    found["us_per_path_bar"] = {
        "gbm, one step": time_paths(bare, gbm, 1, count),
        "gbm, four steps": time_paths(bare, gbm, 4, count),
        "gbm with mark and funding, one step": time_paths(market, gbm, 1, count),
        "filtered with mark and funding": time_paths(market, "filtered", 1, count),
        "filtered, two instruments, by instrument": time_paths(
            two, "filtered", 1, max(count // 10, 100)
        ),
    }

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    time_paths(bare, gbm, 1, 4 * count)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["peak_mib"] = {f"{count} paths": before / 1024, f"{4 * count} paths": after / 1024}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
