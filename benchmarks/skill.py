"""Size and power of ``bt.timing_test``, on leverage that is drawn beside GARCH returns.

    python -m benchmarks.skill [--draws 2000] [--days 400] [--skill 0 0.1 0.2]

The leverage has a median of 1 and a memory of days; ``skill`` is the correlation of its logarithm
with the next return. Prints JSON: the share of p for growth of at most .05, and its error.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd

import backtest as bt
from backtest.core import FloatArray
from backtest.sweep.lanes import runner
from benchmarks.intervals import make_noise
from benchmarks.timing import read_flags

TERMS = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account(capital=1e4)}
runner.LEAST_BAR_SETS = 0  # the same figures, six times as fast on few bars
MEMORY, SPREAD, VOLATILITY = 0.8, 0.5, 0.03


class Planned(bt.Policy):
    """Leverage that is a column of the bars."""

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return the column."""
        return {"plan": market.columns["plan"]}

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return its value."""
        return bar.plan  # type: ignore[attr-defined, no-any-return]


def make_market(noise: FloatArray, skill: float, rng: np.random.Generator) -> bt.Market:
    """Return daily bars of GARCH returns with a column ``plan``, which knows some of the next."""
    n = len(noise)
    level = rng.standard_normal(n)
    for t in range(1, n):
        level[t] = MEMORY * level[t - 1] + math.sqrt(1.0 - MEMORY**2) * level[t]
    log = skill * np.append(noise[1:], 0.0) + math.sqrt(1.0 - skill**2) * level
    close = 1e4 * np.exp(np.cumsum(VOLATILITY * np.clip(noise, -8.0, 8.0)))
    opens = np.append(1e4, close[:-1])
    bars = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
            "close": close, "plan": np.exp(SPREAD * log)}  # fmt: skip
    index = pd.date_range("2023-01-01", periods=n, freq="1D", tz="UTC")
    return bt.Market.from_frames(pd.DataFrame(bars, index=index), now="2100-01-01")


def measure_share(draws: int, days: int, skill: float) -> float:
    """Return the share of draws with p for growth of at most .05."""
    rng = np.random.default_rng([2, days, round(1e4 * skill)])
    noises = make_noise("persistent", (draws + 1) // 2, days, rng).reshape(-1, days)[:draws]
    found = [
        bt.timing_test(bt.run(make_market(each, skill, rng), Planned(), **TERMS), shifts=99)
        for each in noises
    ]
    return float(np.mean([each.p_growth <= 0.05 for each in found]))


def main() -> None:
    """Print a row for each skill."""
    given = read_flags(__doc__, draws=2_000, days=400, skill=[0.0])
    for skill in given.skill:
        share = measure_share(given.draws, given.days, skill)
        error = math.sqrt(share * (1.0 - share) / given.draws)
        print(json.dumps({"skill": skill, "draws": given.draws, "share": share, "error": error}))  # noqa: T201


if __name__ == "__main__":
    main()
