"""How often the leverage that is found is liquidated in the quarter after. Prints a table.

    python benchmarks/leverage_walk.py FOLDER... [--models gbm ...] [--quarters 2021Q1 2023Q3]

FOLDER holds hourly bars, marks and funding of BTCUSDT, ETHUSDT or LTCUSDT. At each quarter's end,
``Backtest.max_leverage`` finds the leverage of a book of equal weights at 1 % in 30 days, from the
data up to it. A book of that leverage is opened and held from every day of the next quarter.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from forecast_models import load_coins
from timing import read_flags

import backtest as bt
from backtest.risk.largest_leverage import scale_policy
from backtest.risk.path_runner import PathsRunner

BARS, CHANCE = 720, 0.01


def main() -> None:
    """Walk through the quarters, and print what became of each leverage."""
    models = ["filtered", "stationary", "gbm"]
    quarters = ["2021Q1", "2023Q3"]
    wanted = read_flags(__doc__, "folder", models=models, paths=10_000, quarters=quarters)
    loaded = load_coins(wanted.folder, ("2020-01-01", "2024"))

    coins = {market.instrument: market for market in loaded}
    whole = bt.Markets(coins)
    whole = whole.slice(int(whole.spans[:, 0].max()), whole.n_bars)

    venues = {name: bt.Venue.preset("binance-usdm", name) for name in coins}
    account = bt.Account(capital=10_000)

    rows = []
    for quarter in pd.period_range(*wanted.quarters, freq="Q"):
        ends = [(quarter + k).end_time.ceil("D").tz_localize("UTC").value for k in range(2)]
        now, later = np.searchsorted(whole.time, ends).tolist()

        # The largest leverage, from what was known at the end of the quarter.
        found = bt.Backtest(whole.prefix(now), venue=venues, account=account).max_leverage(
            probability=CHANCE, models=wanted.models, paths=wanted.paths
        )

        # How often an account at it is liquidated that starts in the quarter after.
        ahead = whole.prefix(min(later + BARS, whole.n_bars))
        paths = bt.simulate_paths(ahead, "gbm", paths=1, horizon="30d")
        held = scale_policy(None, found.leverage)
        test = bt.Backtest(ahead, venue=venues, account=account)
        past = PathsRunner(paths, held, test).find_past(BARS)

        is_in = (past.times >= ends[0]) & (past.times < ends[1]) & (past.room >= BARS)
        hits = int(np.sum(past.firsts[is_in] < BARS))

        rows.append((str(quarter), found.leverage, found.bound_by, int(np.sum(is_in)), hits))
        sys.stdout.write("{}: {:.3g}x by {}, {} starts, {} liquidated\n".format(*rows[-1]))
        sys.stdout.flush()

    starts = sum(row[3] for row in rows)
    hits = sum(row[4] for row in rows)
    sys.stdout.write(f"pooled: {hits} of {starts} starts, {100.0 * hits / starts:.2f} %\n")


if __name__ == "__main__":
    main()
