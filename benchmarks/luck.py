"""How often searches and walks claim skill, where there is none and where there is some. JSON.

    python benchmarks/luck.py searches [--sharpe 1.5] [--edge 0] [--count 100]
    python benchmarks/luck.py walks [--edge 0] [--count 40]
    python benchmarks/luck.py kelly FOLDER [--count 20]

The market has 1,460 days at an annual volatility of 60 % and a Sharpe ratio of ``--sharpe``. A set
of parameters is in it on half of the days, drawn at random; with ``--edge`` a tenth of the sets
knows better days: by their choice, growth over constant leverage at equal risk (searches), or the
Sharpe ratio of the account in a market without drift (walks). Counted is how often the verdict
claims evidence, and how often the deflated Sharpe ratio, over 0.95, would.

``kelly``: log growth a year of half Kelly by ``shrinkage``, on hourly perpetuals of BTC, ETH and
LTC, and on drawn markets without drift.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.strategies import Kelly

DAYS, YEAR, VOLATILITY = 1_460, 365.0, 0.6
VENUE = bt.Venue.simple(
    taker=2e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=50.0, liquidation_fee=0.0125,
    lot=1e-6,
)  # fmt: skip
ACCOUNT = bt.Account(capital=10_000.0)
TRIALS = 64
COINS = {"BTC": "btc-usdm-1h", "ETH": "perps-1h", "LTC": "perps-1h"}


class Timing(bt.Policy):
    """Hold 1x on half of the days; the first hundred phases know which are better."""

    phase: Annotated[int, bt.Range(0, 999)] = 0

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return on which days it is in the market."""
        if self.phase < 100:
            return {"bet": market.columns["hint"]}
        value = np.sin((market.time // 86_400_000_000_000 + 1.0) * (self.phase + 1.0) * 12.9898)
        value = value * 43758.5453
        return {"bet": (value - np.floor(value) > 0.5).astype(np.float64)}

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return 1 or 0."""
        return bar.bet


def make_days(seed: int, drift: float, extra: float) -> bt.Market:
    """Return days whose mean is higher by ``extra`` after a hint of 1 and lower after one of 0."""
    rng = np.random.default_rng([7, seed])
    hint = (rng.random(DAYS) > 0.5).astype(np.float64)  # known at a close, for the next day

    side = np.concatenate(([0.0], 2.0 * hint[:-1] - 1.0))
    steps = VOLATILITY / math.sqrt(YEAR) * rng.standard_normal(DAYS)
    steps += drift / YEAR + extra * side

    if not extra:
        hint = (rng.random(DAYS) > 0.5).astype(np.float64)

    close = 100.0 * np.exp(np.cumsum(steps - 0.5 * VOLATILITY**2 / YEAR))
    opened = np.concatenate(([100.0], close[:-1]))
    frame = pd.DataFrame(
        {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close),
         "close": close, "volume": 1e9, "hint": hint},
        index=pd.date_range("2020-01-01", periods=DAYS, freq="D", tz="UTC"),
    )  # fmt: skip
    return bt.Market.from_frames(frame, instrument=f"DRAWN{seed}", now="2100-01-01")


def run_search(seed: int, sharpe: float, edge: float) -> dict[str, Any]:
    """Search once; the mean of better days makes up for being out on the others, and the edge."""
    drift = sharpe * VOLATILITY
    extra = (2.0 * (edge + math.sqrt(0.5) * drift) - drift) / YEAR if edge else 0.0
    study = bt.Backtest(make_days(seed, drift, extra), venue=VENUE, account=ACCOUNT).tune(
        Timing, trials=TRIALS, sampler="sobol", robust=False, seed=seed
    )
    verdict = study.verdict
    assert verdict is not None  # noqa: S101 - the search is complete
    found = verdict.growth._asdict()
    return {"claim": study.has_evidence, "deflated": verdict.deflated_sharpe > 0.95, **found}


def run_walk(seed: int, edge: float) -> dict[str, Any]:
    """Walk once in a market without drift; the hint is worth a Sharpe ratio of ``edge``."""
    extra = edge * VOLATILITY * math.sqrt(0.5) * 2.0 / YEAR
    walk = bt.Backtest(make_days(seed, 0.0, extra), venue=VENUE, account=ACCOUNT).walk_forward(
        Timing,
        train="365d",
        test="365d",
        trials=16,
        sampler="sobol",
        robust=False,
        seed=seed,
        space={"phase": (0, 199)},
    )
    return {"claim": walk.probabilistic_sharpe > 0.95, "sharpe": walk.result.metrics["sharpe"]}


def run_kelly(market: bt.Market, shrinkage: float) -> float:
    """Return the log growth a year of half Kelly."""
    run = bt.run(market, Kelly(shrinkage=shrinkage), venue=VENUE, account=ACCOUNT)
    return float(np.sum(np.log1p(run.returns))) / run.span.years


def measure_kelly(data: Path, count: int) -> dict[str, Any]:
    """Return growth by market and shrinkage; of drawn markets the median, and the ruined."""
    found: dict[str, Any] = {}
    for coin, folder in COINS.items():
        kinds = ("futures", "mark", "funding_rate")
        files = [data / folder / f"{coin}_USDT_USDT-1h-{kind}.feather" for kind in kinds]
        market = bt.Market.load(*files, since="2020-01-10", until="2024-01-01")
        found[coin] = {f"{k:g}": run_kelly(market, k) for k in (0.0, 1.0, 4.0)}

    drawn = [bt.Market.sample(bars=35_000, seed=seed) for seed in range(count)]
    for k in (0.0, 1.0, 4.0):
        growth = [run_kelly(market, k) for market in drawn]
        of_drawn = found.setdefault("no drift", {})
        of_drawn[f"{k:g}"] = np.median(growth), sum(np.isinf(growth))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("searches", "walks", "kelly"))
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--sharpe", type=float, default=1.5)
    parser.add_argument("--edge", type=float, default=0.0)
    parser.add_argument("--count", type=int, default=100)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "kelly":
        report = measure_kelly(given.data, given.count)
    else:
        run = run_walk if given.what == "walks" else run_search
        terms = (given.edge,) if given.what == "walks" else (given.sharpe, given.edge)
        rows = []
        for seed in range(given.count):
            rows.append(run(seed, *terms))
            sys.stderr.write(f"{seed} {rows[-1]}\n")
        report = {"count": given.count, **pd.DataFrame(rows).mean(numeric_only=True).to_dict()}
    sys.stdout.write(json.dumps(report, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
