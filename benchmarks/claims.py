"""What is claimed of risk, and what came: BTC, ETH and LTC by the hour. Prints tables.

    python benchmarks/claims.py FOLDER... [--parts paths column ranges margin split] [--step 16]

Each FOLDER holds hourly bars and mark prices of BTCUSDT, ETHUSDT or LTCUSDT. Nothing after a date
is used for what is forecast at it. Intervals are of 90 %, by a bootstrap of blocks of 6 weeks.

``paths``: every ``step`` days, positions of 3x, 5x and 10x, long and short: are they liquidated
within 1, 7 and 30 days? ``model`` is the share of ``paths`` of ``filtered``, fitted to the year
before; ``probability`` is the larger of it and the share of that year's days on which the same
position was liquidated, where the market is calm (volatility under 0.75 of the year's).
``column``: ``liquidation_probability`` of a run, at every sixth hour, at the levels of 5x, 10x and
20x; ``today`` is the same forecast without the year's volatility.
``ranges``: estimators of volatility over the realized, as the root of a ratio of mean squares: of
the whole of a coin, and the extremes over its quarters; with ``calibrate`` likewise.
``margin``: at the end of each quarter, the margin that ``Backtest.calibrate_margin`` finds from the
year before by the days of the default rule, told 2 %: in how many of the next 90 windows of 30 days
do marks break it, from any of their days, long or short? ``split`` calibrates on all days before a
date, and counts the windows of all days after it.
"""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
from forecast_models import find_level, find_touched, forecast, load_coins, tabulate_bias
from timing import read_flags

import backtest as bt
from backtest.core import FloatArray
from backtest.indicators import ewma_volatility, log_returns, volatility
from backtest.indicators.tails import NOTHING_SEEN, forecast_liquidation, forecast_volatility
from backtest.risk.liquidations import CALM, measure_calm

PARTS = ("paths", "column", "ranges", "margin", "split")
SPLITS = ("2021-07-01", "2022-01-01", "2023-01-01")
LEVERS, COLUMN_LEVERS = (3.0, 5.0, 10.0), (5.0, 10.0, 20.0)
DAYS = (1, 7, 30)
YEAR_BARS = 365 * 24
RANGES = ("parkinson", "garman-klass", "yang-zhang")


def measure_history(history: bt.Market, levels: FloatArray) -> FloatArray:
    """Return the share of a year's days from whose first open each level was touched."""
    begins = np.flatnonzero(np.diff(history.time // (24 * 3600 * 10**9)))
    shares = np.zeros((len(DAYS), len(levels)))
    for i, days in enumerate(DAYS):
        whole = begins[begins + 24 * days < history.n_bars]
        rows = whole[:, None] + 1 + np.arange(24 * days)
        price = history.mark_close[whole][:, None]
        low, high = (np.log(x[rows] / price) for x in (history.mark_low, history.mark_high))
        touched = find_touched(low, high, levels)[i]
        shares[i] = touched.mean(axis=1)
    return shares


def judge_paths(market: bt.Market, k: int, count: int) -> list[dict[str, Any]]:
    """Return a row per leverage, side and horizon of a date: what was forecast, and what came."""
    sides = [side * lever for lever in LEVERS for side in (1.0, -1.0)]
    levels = np.array([find_level(lever) for lever in sides])
    history = market.slice(k + 1 - YEAR_BARS, k + 1)
    price = float(market.mark_close[k])
    ahead = slice(k + 1, k + 1 + 24 * DAYS[-1])
    low, high = (np.log(each[ahead] / price)[None] for each in (market.mark_low, market.mark_high))
    outcome = find_touched(low, high, levels)[:, :, 0]
    paths = bt.simulate_paths(history, "filtered", paths=count, horizon="30d", seed=k)
    by_model = forecast(paths, price, levels)
    is_calm = measure_calm(history) < CALM
    chosen = np.maximum(by_model, measure_history(history, levels)) if is_calm else by_model
    year, week, _ = market.times[k + 1].isocalendar()
    return [
        {"week": f"{year}-{week:02}", "coin": market.instrument, "days": days, "lever": lever,
         "calm": is_calm, "outcome": float(outcome[i, j]), "model": by_model[i, j],
         "probability": chosen[i, j]}
        for i, days in enumerate(DAYS)
        for j, lever in enumerate(sides)
    ]  # fmt: skip


def judge_column(market: bt.Market) -> list[dict[str, Any]]:
    """Return a row per level and sixth hour: both forecasts, and whether a day touched it."""
    sigma, _ = forecast_volatility(
        NOTHING_SEEN, market.time, market.close, market.interval, is_session=False
    )
    today = ewma_volatility(market, 72.0)
    squares = pd.Series(log_returns(market) ** 2)
    year = np.sqrt(8760.0 * squares.rolling(YEAR_BARS, min_periods=YEAR_BARS - 1).mean())
    rows = np.arange(YEAR_BARS, market.n_bars - 24, 6)
    ahead = rows[:, None] + 1 + np.arange(24)
    low, high = market.mark_low[ahead].min(axis=1), market.mark_high[ahead].max(axis=1)
    mark, weeks = market.mark_close[rows], market.times[rows].strftime("%G-%V")
    is_calm = today[rows] < CALM * year.to_numpy()[rows]
    found = []
    for lever in (side * x for x in COLUMN_LEVERS for side in (1.0, -1.0)):
        held = np.full(len(rows), math.copysign(1.0, lever))
        price = mark * math.exp(find_level(lever))
        touched = low <= price if lever > 0.0 else high >= price
        told = [forecast_liquidation(held, mark, price, x[rows], 1 / 365) for x in (today, sigma)]
        found.append(pd.DataFrame({
            "week": weeks, "coin": market.instrument, "days": 1, "lever": lever, "calm": is_calm,
            "outcome": touched.astype(float), "today": told[0], "column": told[1],
        }))  # fmt: skip
    return pd.concat(found).to_dict("records")


def tabulate_sides(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return the bias by calm, horizon and side, of all leverages together."""
    sides = rows.assign(lever=np.sign(rows["lever"]))
    parts = []
    for side, word in ((1.0, "long"), (-1.0, "short")):
        table = tabulate_bias(sides[sides["lever"] == side], names)
        parts.append(table.assign(leverage=word))
    both = tabulate_bias(sides.assign(lever=0.0), names).assign(leverage="both")
    return pd.concat([both, *parts]).rename(columns={"leverage": "side"}).drop(columns="right")


def measure_ranges(market: bt.Market) -> Iterator[dict[str, Any]]:
    """Yield a row per estimator: its volatility over the realized, in all and by quarter."""
    returns = log_returns(market)
    for name, calibrate in itertools.product(RANGES, (False, True)):
        found = volatility(market, name, 72.0, calibrate=calibrate)
        rows = np.flatnonzero(~np.isnan(found))[:-24]
        ahead = np.add.accumulate(np.nan_to_num(returns) ** 2)
        came = 365.0 * (ahead[rows + 24] - ahead[rows])
        quarters = pd.DataFrame({"told": found[rows] ** 2, "came": came}).groupby(
            market.times[rows].tz_localize(None).to_period("Q")
        ).mean()  # fmt: skip
        ratios = np.sqrt(quarters["told"] / quarters["came"])
        yield {
            "coin": market.instrument, "estimator": name, "calibrate": calibrate,
            "bars": len(rows), "over realized": math.sqrt(np.mean(found[rows] ** 2) / came.mean()),
            "least quarter": ratios.min(), "largest quarter": ratios.max(),
        }  # fmt: skip


def judge_margin(market: bt.Market, end: pd.Timestamp) -> dict[str, Any] | None:
    """Return how many windows of the quarter after a date break the margin found at it."""
    k = int(np.searchsorted(market.times, end))
    if k < YEAR_BARS or k + 24 * 120 > market.n_bars:
        return None
    history = market.slice(k - YEAR_BARS, k)
    rule = bt.margin_rules.Volatility(days=1.0)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
    test = bt.Backtest(history, venue=venue, account=bt.Account())
    found = test.calibrate_margin(rule, solve="days", shortfall=0.02, paths=1000, seed=1)
    if not math.isfinite(found.value):
        return {"coin": market.instrument, "quarter": f"{end:%Y-%m}", "windows": 0, "broken": 0}
    solved = rule.override({found.name: found.value})
    broken = find_broken_days(market.slice(k - YEAR_BARS, k + 24 * 120), solved, venue, k_days=365)
    windows = [broken[day : day + 30].any() for day in range(90)]
    return {"coin": market.instrument, "quarter": f"{end:%Y-%m}", "windows": len(windows),
            "broken": int(np.sum(windows)), "value": found.value}  # fmt: skip


def judge_split(market: bt.Market, end: str) -> dict[str, Any]:
    """Return how many windows of all days after a date break the margin of all days before it."""
    k = int(np.searchsorted(market.times, pd.Timestamp(end, tz="UTC")))
    rule = bt.margin_rules.Volatility(days=1.0)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
    test = bt.Backtest(market.slice(0, k), venue=venue, account=bt.Account())
    found = test.calibrate_margin(rule, solve="days", shortfall=0.02, paths=1000, seed=1)
    broken = find_broken_days(market, rule.override(days=found.value), venue, k_days=k // 24)
    windows = np.lib.stride_tricks.sliding_window_view(broken, 30).any(axis=1)
    return {"coin": market.instrument, "before": end, "value": found.value,
            "windows": len(windows), "broken": int(windows.sum()),
            "share": float(windows.mean())}  # fmt: skip


def find_broken_days(market: bt.Market, rule: Any, venue: bt.Venue, k_days: int) -> FloatArray:
    """Return whether marks of the day after each close break the margin at it, from a day on."""
    from backtest.risk.margin_systems import measure_levels  # noqa: PLC0415 - of this part alone
    from backtest.venue import margin_rules as by_rule  # noqa: PLC0415

    days = by_rule.read_days(market)
    levels = measure_levels(rule, days, days.time, venue).daily
    broken = []
    for level, row in zip(levels[k_days - 1 :], days.rows[k_days - 1 :], strict=True):
        ahead = slice(row + 1, row + 25)
        price = market.mark_close[row]
        if row + 25 > market.n_bars:
            break
        moved = max(market.mark_high[ahead].max() / price - 1.0,
                    1.0 - market.mark_low[ahead].min() / price)  # fmt: skip
        broken.append(moved > level)
    return np.array(broken)


def main() -> None:
    """Measure the parts that are asked for, and print a table of each."""
    wanted = read_flags(
        __doc__, "folder", parts=[*PARTS], step=16, paths=256, processes=2,
        start="2021-01-01", end="2024-01-01",
    )  # fmt: skip
    warnings.simplefilter("ignore")
    markets = load_coins(wanted.folder, (wanted.start, wanted.end))
    with ProcessPoolExecutor(wanted.processes, get_context("spawn")) as pool:
        for part in wanted.parts:
            if part == "paths":
                tasks = [
                    (each, k, wanted.paths) for each in markets
                    for k in range(YEAR_BARS, each.n_bars - 24 * DAYS[-1] - 1, 24 * wanted.step)
                ]  # fmt: skip
                found = pool.map(judge_paths, *zip(*tasks, strict=True), chunksize=4)
                rows = pd.DataFrame(itertools.chain(*found))
                names = ["model", "probability"]
                scores = {x: float(np.mean((rows[x] - rows["outcome"]) ** 2)) for x in names}
                table = tabulate_sides(rows, names)
                sys.stdout.write(f"paths: {len(tasks)} dates, Brier {scores}\n")
            elif part == "column":
                rows = pd.DataFrame(itertools.chain(*pool.map(judge_column, markets)))
                table = tabulate_sides(rows, ["today", "column"])
            elif part == "ranges":
                table = pd.DataFrame(itertools.chain(*map(measure_ranges, markets)))
            elif part == "split":
                table = pd.DataFrame(itertools.starmap(
                    judge_split, itertools.product(markets, SPLITS)
                ))  # fmt: skip
            else:
                ends = pd.date_range(wanted.start, wanted.end, freq="QS", tz="UTC")
                pairs = itertools.product(markets, ends)
                found = [*pool.map(judge_margin, *zip(*pairs, strict=True))]
                table = pd.DataFrame([row for row in found if row is not None])
                share = table["broken"].sum() / table["windows"].sum()
                sys.stdout.write(f"margin: broken in {share:.3f} of the windows\n")
            sys.stdout.write(f"{part}\n{table.round(3).to_string(index=False)}\n\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
