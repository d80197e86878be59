"""How far the funding of simulated paths is that of history. Prints tables, and JSON.

    python benchmarks/funding_paths.py FOLDER... [--paths 40] [--days 7 30 180]

Each FOLDER holds the bars and the funding of an instrument; FOLDER:NAME is one of several. The
first table compares paths as long as history: the standard deviation of the mean rate over some
days (a rate per year, overlapping spans), and the correlation of a settlement with the next. The
second forecasts the mean rate of the 15 days after the first day of each month, from the history
before it, and gives the mean absolute error in basis points: of the process fitted to it
(``fitted``), of rows of it in blocks (``rows``), of the mean of the last day (``today``), and of
the mean of history (``mean``).
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.base import FloatArray
from backtest.base.units import DAY

AHEAD = 15
"""Days of a forecast."""
LEAST = 365
"""Days of history before the first forecast."""
GBM = bt.paths.GBM(volatility=0.8)
ROWS = bt.paths.Stationary(block=60.0)


def load(folder: str) -> bt.Market:
    """Return the market of a folder, from its first settlement on."""
    path, _, name = folder.partition(":")
    options: dict[str, Any] = {"mark_gaps": "last", "funding_gaps": "zero"}
    market = bt.Market.load(path, **options, **({"instrument": name} if name else {}))
    first = int(np.searchsorted(market.time, market.funding_time[0]))
    return market.slice(first, market.n_bars)


def describe(rates: FloatArray, per_day: int, spans: list[int]) -> list[float]:
    """Return the deviation of mean rates by span, per year, and the autocorrelation."""
    sums, year = np.concatenate([[0.0], np.cumsum(rates)]), 365.0 * per_day
    counts = [days * per_day for days in spans]
    found = [float(np.std(sums[n:] - sums[:-n])) / n * year for n in counts]
    return [*found, float(np.corrcoef(rates[1:], rates[:-1])[0, 1])]


def compare(market: bt.Market, count: int, spans: list[int]) -> pd.DataFrame:
    """Return the figures of history and, as means over the paths, of each way to draw funding."""
    horizon = f"{(market.end - market.start) // DAY}d"
    ways = {"fitted, GBM": (GBM, "fitted"), "fitted, rows": (ROWS, "fitted"),
            "history, rows": (ROWS, "history")}  # fmt: skip
    rows = {}
    for name, (model, funding) in ways.items():
        drawn = bt.simulate_paths(
            market, model, paths=count, horizon=horizon, seed=1, funding=funding
        )
        (process,) = drawn.processes.values()
        assert process.grid is not None  # noqa: S101 - the folder has funding
        per_day = max(DAY // process.grid.every, 1)
        rows.setdefault("history", describe(process.rates, per_day, spans))
        each = [describe(rates, per_day, spans) for rates in drawn.draw(0, count).rates]
        rows[name] = list(np.mean(each, axis=0))
    table = pd.DataFrame(rows, index=[*(f"{days} d" for days in spans), "autocorrelation"]).T
    for days in spans:
        table[f"{days} d over history"] = table[f"{days} d"] / table[f"{days} d"].iloc[0]
    return table


def forecast(market: bt.Market, count: int) -> pd.DataFrame:
    """Return a row per month, in basis points: what was forecast, and what came."""
    rows = []
    for month in pd.date_range(market.times[0], market.times[-1], freq="MS", normalize=True):
        start, end = month.value, month.value + AHEAD * DAY
        if start - market.start < LEAST * DAY or end > market.end:
            continue
        given = {"paths": count, "horizon": f"{AHEAD}d", "start": month, "seed": 1}
        fitted = bt.simulate_paths(market, GBM, **given)
        repeated = bt.simulate_paths(market, ROWS, **given, funding="history")
        known = next(iter(fitted.processes.values())).rates
        came = market.funding_rate[(market.funding_time >= start) & (market.funding_time < end)]
        rows.append({
            "month": f"{month:%Y-%m}",
            "came": came.mean(),
            "fitted": fitted.draw(0, count).rates.mean(),
            "rows": repeated.draw(0, count).rates.mean(),
            "today": known[-3:].mean(),
            "mean": known.mean(),
        })  # fmt: skip
    found = pd.DataFrame(rows, columns=["month", "came", "fitted", "rows", "today", "mean"])
    return found.set_index("month") * 1e4


def main() -> None:
    """Compare the paths of each folder with its history, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--paths", type=int, default=40)
    parser.add_argument("--days", type=int, nargs="+", default=[7, 30, 180])
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    for folder in wanted.folder:
        market = load(folder)
        table, months = compare(market, wanted.paths, wanted.days), forecast(market, wanted.paths)
        errors = months.drop(columns="came").sub(months["came"], axis=0).abs().mean()
        name = market.instrument or Path(folder).name
        sys.stdout.write(f"{name}\n{table.round(3).to_string()}\n\n")
        sys.stdout.write(
            f"mean absolute error of {AHEAD} days in {len(months)} months, bp\n"
            f"{errors.round(2).to_string()}\n\n"
        )
        most = months.astype(float).nlargest(3, "today").round(2)
        sys.stdout.write(f"the months that began with the highest rates, bp\n{most}\n\n")
        found[name] = {"spread": table.T.to_dict(), "error_bp": errors.to_dict()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
