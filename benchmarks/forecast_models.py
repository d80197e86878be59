"""How well models of paths forecast liquidations of BTC and ETH. Prints a table, and JSON.

    python benchmarks/forecast_models.py FOLDER... [--paths 200] [--models gbm ...] [--from DAY]

Each FOLDER holds hourly bars, mark prices and funding of BTCUSDT or ETHUSDT. At the beginning of
each month a long of 3x, 5x and 10x is opened once and kept, at the venue's margin rules of the day.
Each model is fitted to the year before, and forecasts the probability of a liquidation within 1, 7
and 30 days; then the account lives through what came. The Brier score is the mean of (forecast -
outcome)^2: smaller is better. ``constant`` forecasts the share of each leverage and horizon over
all months, known only afterwards. ``closed form`` is ``touch_probability`` with the settings of
``bt.features``: an exponentially weighted volatility of today, and Student's t. ``error`` is the
standard error of the difference to it, over months: forecasts of one month are not independent.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.features import ewma_volatility, touch_probability
from backtest.features.liquidation_forecast import DEGREES
from backtest.paths.choose_runner import make_runner
from backtest.paths.path_events import find_first
from backtest.paths.risk_question import count_bars
from backtest.paths.scaled_policies import HoldOnce

COINS = ("BTCUSDT", "ETHUSDT")
LEVERS = (3.0, 5.0, 10.0)
DAYS = (1, 7, 30)
MODELS = ("filtered", "stationary", "garch", "gbm", "kou", "merton", "heston", "regimes")
HALF_LIFE = 3 * 24
"""Bars: the three days of the forecast in reports."""
BINS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
ACCOUNT = bt.Account(capital=10_000)


def load_coins(folders: list[str], between: tuple[str, str]) -> dict[str, bt.Market]:
    """Return the markets of the folders by instrument."""
    found, errors = {}, []
    for folder, coin in itertools.product(folders, COINS):
        try:
            found[coin] = bt.Market.load(folder, instrument=coin, between=between)
        except bt.BacktestError as error:  # a folder may hold one of them only
            errors.append(f"{folder}, {coin}: {error.problem}")
    if not found:
        sys.exit("\n".join(errors))
    return found


def find_starts(market: bt.Market, history: int) -> Iterator[int]:
    """Yield the last bar before each month that has the history behind and 30 days ahead."""
    months = pd.date_range(market.index[0], market.index[-1], freq="MS", normalize=True)
    for month in months:
        k = int(np.searchsorted(market.time, month.value)) - 1
        if k >= history and k + DAYS[-1] * 24 < market.n_bars:
            yield k


def find_outcome(market: bt.Market, k: int, lever: float, venue: bt.Venue) -> float:
    """Return after how many days the account was liquidated; infinite if it was not."""
    lived = market.slice(k, k + DAYS[-1] * 24 + 1)
    result = bt.run(lived, HoldOnce(size=lever), venue=venue, account=ACCOUNT, compile=False)
    events = result.events
    hits = events.loc[events["kind"] == "liquidation", "time"]
    if not len(hits):
        return math.inf
    return float((hits.iloc[0] - lived.index[1]) / pd.Timedelta("1D"))


def forecast(paths: bt.Paths, lever: float, venue: bt.Venue) -> list[float]:
    """Return the probabilities of a liquidation within each horizon."""
    runner = make_runner(
        paths, HoldOnce(size=lever), venue=venue, account=ACCOUNT, where="benchmark"
    )
    first = np.concatenate([find_first(each.liquidations) for each in runner.run_chunks()])
    return [float(np.mean(first < count_bars(paths, f"{days}d"))) for days in DAYS]


def forecast_closed(history: bt.Market, lever: float, venue: bt.Venue) -> list[float]:
    """Return the closed form of the same probabilities."""
    price = float(history.mark_close[-1])
    quantity = lever * ACCOUNT.capital / price
    at = bt.margin.liquidation_price(venue, quantity, price, ACCOUNT.capital)
    sigma = float(ewma_volatility(history, HALF_LIFE)[-1])
    if not at > 0.0:
        return [0.0] * len(DAYS)
    return [
        float(touch_probability(math.log(at / price), sigma, days / 365.0,
                                degrees_of_freedom=DEGREES))
        for days in DAYS
    ]  # fmt: skip


def judge_month(
    market: bt.Market, k: int, models: list[str], count: int, bars: int
) -> Iterator[dict[str, Any]]:
    """Yield a row per leverage and horizon: every forecast, and what happened."""
    history = market.slice(k + 1 - bars, k + 1)
    dated = bt.Venue.preset("binance-usdm", market.instrument)
    ruled = bt.Venue.preset("binance-usdm", market.instrument, at=market.index[k])
    drawn = {
        name: bt.simulate_paths(history, name, paths=count, horizon=f"{DAYS[-1]}d", seed=k)
        for name in models
    }
    for lever in LEVERS:
        died = find_outcome(market, k, lever, dated)
        told = {name: forecast(paths, lever, ruled) for name, paths in drawn.items()}
        told["closed form"] = forecast_closed(history, lever, ruled)
        for j, days in enumerate(DAYS):
            yield {"month": f"{market.index[k + 1]:%Y-%m}", "coin": market.instrument,
                   "lever": lever, "days": days, "outcome": float(died <= days),
                   **{name: each[j] for name, each in told.items()}}  # fmt: skip


def judge_market(
    market: bt.Market, models: list[str], count: int, bars: int
) -> list[dict[str, Any]]:
    """Return the rows of all months of a market; ``bars`` are the history of a fit."""
    warnings.simplefilter("ignore", bt.VenueDateWarning)
    rows = []
    for k in find_starts(market, bars):
        rows += judge_month(market, k, models, count, bars)
        sys.stderr.write(f"{market.instrument} {market.index[k + 1]:%Y-%m}\n")
    return rows


def score(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return the Brier score of each forecaster, by horizon and in all, with its error."""
    base = rows.groupby(["lever", "days"])["outcome"].transform("mean")
    losses = pd.DataFrame({name: (rows[name] - rows["outcome"]) ** 2 for name in names})
    losses.insert(0, "constant", (base - rows["outcome"]) ** 2)
    table = losses.groupby(rows["days"]).mean().T
    table.columns = [f"{days} d" for days in table]
    table["all"] = losses.mean()
    gap = losses.sub(losses["closed form"], axis=0).groupby(rows["month"]).mean()
    table["to closed form"] = gap.mean()
    table["error"] = gap.std(ddof=1) / math.sqrt(len(gap))
    table.insert(0, "mean forecast", rows[names].mean().reindex(table.index))
    return table.sort_values("all")


def tabulate_reliability(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return by bin of the forecast how often there was a liquidation, and of how many."""
    cells = {}
    for name in names:
        group = pd.cut(rows[name], BINS, include_lowest=True)
        found = rows["outcome"].groupby(group, observed=False).agg(["mean", "size"])
        cells[name] = [
            f"{100 * mean:.0f} % of {int(size)}" if size else "-"
            for mean, size in found.itertuples(index=False)
        ]
    labels = [f"{100 * a:g} to {100 * b:g} %" for a, b in itertools.pairwise(BINS)]
    return pd.DataFrame(cells, index=pd.Index(labels, name="forecast")).T


def main() -> None:
    """Forecast every month, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--paths", type=int, default=200)
    parser.add_argument("--history", type=int, default=365, help="days that a model is fitted to")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--from", dest="start", default="2020-01-01")
    parser.add_argument("--to", dest="end", default="2024-01-01")
    wanted = parser.parse_args()
    markets = load_coins(wanted.folder, (wanted.start, wanted.end)).values()
    judge = functools.partial(
        judge_market, models=wanted.models, count=wanted.paths, bars=24 * wanted.history
    )
    with ProcessPoolExecutor(len(markets), get_context("spawn")) as pool:
        rows = list(itertools.chain(*pool.map(judge, markets)))
    if not rows:
        sys.exit("no month has the bars of a fit before and 30 days after its beginning")
    table = pd.DataFrame(rows)
    names = [*wanted.models, "closed form"]
    scores, bins = score(table, names), tabulate_reliability(table, names)
    n = f"{len(table)} forecasts of {table['month'].nunique()} months"
    sys.stdout.write(f"{n}, {table['outcome'].mean():.1%} liquidated\n\n")
    sys.stdout.write(f"Brier score\n{scores.round(4).to_string()}\n\n")
    sys.stdout.write(f"reliability: liquidated, of forecasts\n{bins.to_string()}\n")
    brier = scores["all"].to_dict()
    found = {"forecasts": len(table), "brier": brier, "reliability": bins.T.to_dict()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
