"""How well funding of simulated paths forecasts that of the next month. Prints tables, and JSON.

    python benchmarks/funding_paths.py FOLDER... [--paths 400] [--from DAY] [--to DAY]

Each FOLDER holds the bars and the funding of an instrument; FOLDER:NAME is one of several. From
the first day of each month, the mean rate of the 30 days after it is forecast from the history
before: ``inside`` is the share of months in which it lay within the 90 % band of the paths,
``mean told`` and ``mean came`` are mean rates, ``told`` and ``came`` deviations of single rates, in
basis points, ``base`` and ``base came`` the share of rates that are the most frequent one.
``--most 180`` forecasts from 180 days.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
from timing import read_flags

import backtest as bt
from backtest.core.units import DAY

AHEAD = 30
"""Days of a forecast."""
GBM = bt.paths.GBM(volatility=0.8)


def load(folder: str) -> bt.Market:
    """Return the market of a folder, from its first settlement on."""
    path, _, name = folder.partition(":")
    options: dict[str, Any] = {"mark_gaps": "last", "funding_gaps": "zero"}
    market = bt.Market.load(path, **options, **({"instrument": name} if name else {}))
    return market.slice(int(np.searchsorted(market.time, market.funding_time[0])), market.n_bars)


def forecast(
    market: bt.Market, count: int, months: pd.DatetimeIndex, least: int, most: int
) -> list[dict[str, Any]]:
    """Return a row per month: whether the band held, and deviations in basis points."""
    rows = []
    for month in months:
        start = month.value
        end = month.value + AHEAD * DAY
        if start - market.start < least * DAY or end > market.end:
            continue
        given = {"paths": count, "horizon": f"{AHEAD}d", "start": month, "seed": 1}
        known = market.between(max(start - most * DAY, market.start), market.end)
        drawn = bt.simulate_paths(known, GBM, **given)
        rates = drawn.draw(0, count).rates
        base = drawn.leader.process.usual
        came = market.funding_rate[(market.funding_time >= start) & (market.funding_time < end)]
        low, high = np.quantile(rates.mean(axis=1), (0.05, 0.95))
        rows.append({
            "instrument": market.instrument, "year": month.year,
            "inside": bool(low <= came.mean() <= high),
            "mean told": 1e4 * rates.mean(), "mean came": 1e4 * came.mean(),
            "told": 1e4 * rates.std(), "came": 1e4 * came.std(),
            "base": np.isclose(rates, base, atol=1e-9).mean(),
            "base came": np.isclose(came, base, atol=1e-9).mean(),
        })  # fmt: skip
    return rows


def main() -> None:
    """Forecast the months of each folder, and print."""
    span = {"start": "2020-01-01", "end": "2024-01-01"}
    wanted = read_flags(__doc__, "folder", paths=400, least=180, most=10_000, **span)  # in days
    warnings.simplefilter("ignore")
    months = pd.date_range(wanted.start, wanted.end, freq="MS", tz="UTC", inclusive="left")
    given = (wanted.paths, months, wanted.least, wanted.most)
    found = [forecast(load(each), *given) for each in wanted.folder]
    rows = pd.DataFrame([row for each in found for row in each])
    if rows.empty:
        sys.exit(f"no month has {wanted.least} days of history in {', '.join(wanted.folder)}")
    rows["all"] = f"{len(rows)} months"
    columns = ["inside", "mean told", "mean came", "told", "came", "base", "base came"]
    tables = {name: rows.groupby(name)[columns].mean() for name in ("all", "instrument", "year")}
    for table in tables.values():
        sys.stdout.write(f"{table.round(3).to_string()}\n\n")
    sys.stdout.write(json.dumps({k: v.to_dict("index") for k, v in tables.items()}) + "\n")


if __name__ == "__main__":
    main()
