"""The hypervolume that ``Backtest.frontier`` finds, over a dense grid and the search together.

    python benchmarks/frontier.py FOLDER... [--seeds 10] [--trials 2000] [--grid 64]

FOLDER holds hourly bars, marks and funding of BTCUSDT, ETHUSDT or LTCUSDT. Growth and drawdown of a
volatility target by target and half-life from 2020 to 2023, each scaled to 0 at the worst of the
grid and 1 at the best of all. Prints JSON: the median over seeds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from forecast_models import load_coins
from timing import print_json, read_flags

import backtest as bt
from backtest.strategies import VolTarget

NAMES = ["cagr", "max_drawdown"]
SPACE = {"target": (0.1, 2.0), "half_life": (2.0, 500.0)}


def measure_volume(points: np.ndarray) -> float:
    """Return the area that points (n, 2) in the unit square dominate."""
    points = points[np.argsort(-points[:, 0])]
    heights = np.maximum.accumulate(points[:, 1])
    return float(np.sum(points[:, 0] * np.diff(heights, prepend=0.0)))


def main() -> None:
    """Search each market with each seed, and print the shares."""
    given = read_flags(__doc__, "folder", seeds=10, trials=2_000, grid=64)
    rows = {}
    for market in load_coins(given.folder, ("2020-01-01", "2024")):
        venue = f"binance-usdm:{market.instrument}"
        test = bt.Backtest(market, venue=venue, account=bt.Account())
        axes = {name: np.geomspace(*SPACE[name], given.grid) for name in SPACE}
        grid = test.sweep(VolTarget, axes).table.query("ruined == 0")[NAMES]
        searches = [
            test.frontier(VolTarget, objectives=NAMES, space=SPACE, seed=seed, holdout=None,
                          trials=given.trials, progress=None).trials[NAMES]
            for seed in range(given.seeds)
        ]  # fmt: skip
        every = pd.concat([grid, *searches]) * [1.0, -1.0]
        worst = (grid * [1.0, -1.0]).min().to_numpy()
        best = every.max().to_numpy()
        scaled = [((x * [1.0, -1.0] - worst) / (best - worst)).clip(0).to_numpy() for x in searches]
        dense = ((grid * [1.0, -1.0] - worst) / (best - worst)).to_numpy()
        shares = [measure_volume(x) / measure_volume(np.vstack([x, dense])) for x in scaled]
        rows[market.instrument] = {"median": float(np.median(shares)), "least": min(shares)}
    print_json({"trials": given.trials, "seeds": given.seeds, "share": rows})


if __name__ == "__main__":
    main()
