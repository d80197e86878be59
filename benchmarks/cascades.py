"""Time of cascades of liquidations.

    python benchmarks/cascades.py [--accounts 100000] [--repeat 5]

Prints JSON: milliseconds to sweep one side of a sorted ladder, to sort it, and for a whole cascade
with its books. Each is the best of some repeats; the first call compiles and is not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable

import backtest as bt
from backtest.crowd.liquidation_ladder import build_ladder, sweep_ladder


def measure(function: Callable[[], object], repeat: int) -> float:
    """Return the least seconds of some calls, after one that is not counted."""
    function()
    best = math.inf
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best


def time_cascades(accounts: int, repeat: int) -> dict[str, float]:
    """Return milliseconds of a ladder and of a cascade."""
    market = bt.Market.sample()
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT", "latest")
    crowd = bt.Crowd.from_leverage(open_interest=3e9, entries=market, accounts=accounts)
    prices, notional = crowd.liquidation_prices(venue), crowd.notional()
    price = float(market.close[-1])
    curve = bt.SquareRoot(1.0).curve(market=market)
    ladder = build_ladder(prices, notional, price, is_long=True)
    terms = {"shock": -0.05, "impact": bt.SquareRoot(1.0), "insurance": math.inf}
    timed = {
        "liquidation_prices_ms": lambda: crowd.liquidation_prices(venue),
        "sort_ms": lambda: build_ladder(prices, notional, price, is_long=True),
        "sweep_ms": lambda: sweep_ladder(ladder, 0.05, curve),
        "cascade_ms": lambda: bt.cascade(crowd, venue, **terms),
    }
    return {name: 1e3 * measure(each, repeat) for name, each in timed.items()}


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    found = time_cascades(given.accounts, given.repeat)
    sys.stdout.write(json.dumps({**vars(given), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
