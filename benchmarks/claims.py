"""What is claimed of risk, and what came: BTC, ETH and LTC by the hour. Prints JSON.

    python benchmarks/claims.py FOLDER... [--parts paths column ranges margin split] [--step 8]

Each FOLDER holds hourly bars and mark prices of BTCUSDT, ETHUSDT or LTCUSDT. Nothing after a date
is used for what is forecast at it. Intervals are of 95 %, by a bootstrap of blocks of 6 weeks.
``benchmarks/tests_of_luck.py`` has the claims whose truth is known: those of drawn markets.

``paths``: every ``step`` days, positions of 3x, 5x and 10x, long and short: are they liquidated
within 1, 7 and 30 days? ``model`` is the share of ``paths`` of ``filtered``, fitted to the year
before; ``probability`` is the larger of it and the share of that year's days on which the same
position was liquidated, where the market is calm (volatility under 0.75 of the year's). The slope
is that of outcomes on forecasts: 1 where a forecast of twice as much comes twice as often.
``column``: ``liquidation_probability`` of a run, at every sixth hour, at the levels of 5x, 10x and
20x; ``today`` is the same forecast without the year's volatility.
``ranges``: estimators of volatility over the realized, as the root of a ratio of mean squares: of
the whole of a coin, and the extremes over its quarters; with ``calibrate`` likewise.
``margin``: at the end of each quarter, the margin that ``Backtest.calibrate_margin`` finds from the
year before by the days of the default rule, told 2 %: in how many of the next 90 windows of 30 days
do marks break it, from any of their days, long or short? ``split`` calibrates on all days before a
date, and counts the windows of all days after it. Windows apart are every 30th of a row, with the
interval of Clopper and Pearson (1934), as if rows had no days in common.
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
from forecast_models import (
    Weeks,
    find_interval,
    find_level,
    find_touched,
    forecast,
    load_coins,
)
from timing import count_share, print_json, read_flags

import backtest as bt
from backtest.core import FloatArray
from backtest.indicators import ewma_volatility, log_returns, volatility
from backtest.indicators.forecasts import NOTHING_SEEN, forecast_liquidation, forecast_volatility
from backtest.risk.past_starts import CALM, measure_calm

PARTS = ("paths", "column", "ranges", "margin", "split")
SPLITS = ("2021-07-01", "2022-01-01", "2023-01-01")
LEVERS = (3.0, 5.0, 10.0)
COLUMN_LEVERS = (5.0, 10.0, 20.0)
DAYS = (1, 7, 30)
YEAR_BARS = 365 * 24
TOLD, WINDOW = 0.02, 30
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
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
    low = market.mark_low[ahead].min(axis=1)
    high = market.mark_high[ahead].max(axis=1)
    mark = market.mark_close[rows]
    weeks = market.times[rows].strftime("%G-%V")
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


def measure_forecasts(rows: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Return a row per forecast, horizon, side and calm or not: told, came, slope and Brier."""
    weeks = Weeks(rows["week"])
    sides = np.where(rows["lever"] > 0.0, "long", "short")
    calm = np.where(rows["calm"], "calm", "other")
    whole = [rows.assign(side=side, market=market)
             for side in ("both", sides) for market in ("all", calm)]  # fmt: skip
    groups = pd.concat(whole).groupby(["days", "market", "side"])
    return [
        {"horizon_days": days, "market": market, "side": side, "forecast": name,
         **measure_forecast(weeks, part, name)}
        for (days, market, side), part in groups
        for name in names
    ]  # fmt: skip


def measure_forecast(weeks: Weeks, part: pd.DataFrame, name: str) -> dict[str, Any]:
    """Return what was told and what came, with the intervals of bias and slope."""
    told = part[name]
    came = part["outcome"]
    week = part["week"]
    n = weeks.resample(week, np.ones(len(part)))
    total = weeks.resample(week, told)
    hits = weeks.resample(week, came)
    with np.errstate(divide="ignore", invalid="ignore"):
        biases = (total - hits) / n
        covariances = weeks.resample(week, told * came) - total * hits / n
        slopes = covariances / (weeks.resample(week, told**2) - total**2 / n)
    spread = float(np.var(told))
    slope = float(np.cov(told, came, bias=True)[0, 1]) / spread if spread > 0.0 else math.nan
    return {
        "n": len(part), "told": float(told.mean()), "came": float(came.mean()),
        "bias": float((told - came).mean()), "bias_interval": find_interval(biases),
        "slope": slope, "slope_interval": find_interval(slopes),
        "brier": float(((told - came) ** 2).mean()),
    }  # fmt: skip


def compare_brier(rows: pd.DataFrame, name: str, other: str) -> dict[str, Any]:
    """Return the Brier score of a forecast less that of another one, by horizon."""
    weeks = Weeks(rows["week"])
    found = {}
    for days, part in rows.groupby("days"):
        scores = (part[name] - part["outcome"]) ** 2 - (part[other] - part["outcome"]) ** 2
        n = weeks.resample(part["week"], np.ones(len(part)))
        drawn = weeks.resample(part["week"], scores) / n
        found[f"{days} d"] = {"difference": float(scores.mean()), "interval": find_interval(drawn)}
    return found


def measure_ranges(market: bt.Market) -> Iterator[dict[str, Any]]:
    """Yield a row per estimator: its volatility over the realized, in all and by quarter."""
    returns = log_returns(market)
    for name, calibrate in itertools.product(RANGES, (False, True)):
        found = volatility(market, name, 72.0, calibrate=calibrate)
        rows = np.flatnonzero(~np.isnan(found))[:-24]
        ahead = np.add.accumulate(np.nan_to_num(returns) ** 2)
        came = 365.0 * (ahead[rows + 24] - ahead[rows])
        times = market.times[rows]
        squares = pd.DataFrame({"told": found[rows] ** 2, "came": came})
        quarters = squares.groupby(times.tz_localize(None).to_period("Q")).mean()
        ratios = np.sqrt(quarters["told"] / quarters["came"])

        week = pd.Series(times.strftime("%G-%V"))
        weeks = Weeks(week)
        drawn = np.sqrt(weeks.resample(week, squares["told"]) / weeks.resample(week, came))
        yield {
            "coin": market.instrument, "estimator": name, "calibrate": calibrate, "n": len(rows),
            "over_realized": math.sqrt(np.mean(found[rows] ** 2) / came.mean()),
            "interval": find_interval(drawn), "least_quarter": ratios.min(),
            "largest_quarter": ratios.max(),
        }  # fmt: skip


def judge_margin(market: bt.Market, end: pd.Timestamp) -> pd.DataFrame | None:
    """Return which windows of the quarter after a date break the margin found at it."""
    k = int(np.searchsorted(market.times, end))
    if k < YEAR_BARS or k + 24 * 120 > market.n_bars:
        return None
    found = calibrate(market.slice(k - YEAR_BARS, k))
    ahead = market.slice(k - YEAR_BARS, k + 24 * 120)
    broken = find_broken_days(ahead, found, k_days=365)
    return list_windows(market, end, found, broken).iloc[:90]


def judge_split(market: bt.Market, end: str) -> pd.DataFrame:
    """Return which windows of all days after a date break the margin of all days before it."""
    k = int(np.searchsorted(market.times, pd.Timestamp(end, tz="UTC")))
    found = calibrate(market.slice(0, k))
    broken = find_broken_days(market, found, k_days=k // 24)
    return list_windows(market, pd.Timestamp(end, tz="UTC"), found, broken)


def calibrate(history: bt.Market) -> Any:
    """Return the rule of one day whose days leave a shortfall of at most 2 %."""
    rule = bt.margin_rules.Volatility(days=1.0)
    test = bt.Backtest(history, venue=VENUE, account=bt.Account())
    found = test.calibrate_margin(rule, solve="days", shortfall=TOLD, paths=1000, seed=1)
    return rule.override(days=found.value if math.isfinite(found.value) else 365.0)


def list_windows(
    market: bt.Market, end: pd.Timestamp, rule: Any, broken: FloatArray
) -> pd.DataFrame:
    """Return a row per window of 30 days, the first from a date on."""
    windows = np.lib.stride_tricks.sliding_window_view(broken, WINDOW).any(axis=1)
    first = pd.date_range(end, periods=len(windows), freq="D")
    return pd.DataFrame({
        "coin": market.instrument, "before": f"{end:%Y-%m-%d}", "days": rule.days,
        "week": first.strftime("%G-%V"), "broken": windows.astype(float),
        "is_apart": np.arange(len(windows)) % WINDOW == 0,
    })  # fmt: skip


def measure_windows(tables: list[pd.DataFrame]) -> dict[str, Any]:
    """Return the share of windows that broke their margin: pooled, clustered, apart, by row."""
    rows = pd.concat(tables)
    weeks = Weeks(rows["week"])
    n = weeks.resample(rows["week"], np.ones(len(rows)))
    drawn = weeks.resample(rows["week"], rows["broken"]) / n
    apart = rows.loc[rows["is_apart"], "broken"] > 0.0
    by_row = rows.groupby(["coin", "before", "days"])["broken"].agg(["size", "sum", "mean"])
    return {
        "told": TOLD, "n": len(rows), "broken": int(rows["broken"].sum()),
        "share": float(rows["broken"].mean()), "interval_by_weeks": find_interval(drawn),
        "apart": count_share([*apart]), "rows": by_row.reset_index().to_dict("records"),
    }  # fmt: skip


def find_broken_days(market: bt.Market, rule: Any, *, k_days: int) -> FloatArray:
    """Return whether marks of the day after each close break the margin at it, from a day on."""
    from backtest.risk.margin_systems import measure_levels  # noqa: PLC0415 - of this part alone
    from backtest.venue import margin_rules as by_rule  # noqa: PLC0415

    days = by_rule.read_days(market)
    levels = measure_levels(rule, days, days.time, VENUE).daily
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
    """Measure the parts that are asked for, and print them."""
    wanted = read_flags(
        __doc__, "folder", parts=[*PARTS], step=8, paths=256, processes=2,
        start="2021-01-01", end="2024-01-01",
    )  # fmt: skip
    warnings.simplefilter("ignore")
    markets = load_coins(wanted.folder, (wanted.start, wanted.end))
    report: dict[str, Any] = {"from": wanted.start, "to": wanted.end}
    with ProcessPoolExecutor(wanted.processes, get_context("spawn")) as pool:
        for part in wanted.parts:
            report[part] = measure_part(part, markets, pool, wanted)
            sys.stderr.write(f"{part} done\n")
    print_json(report)


def measure_part(
    part: str, markets: list[bt.Market], pool: ProcessPoolExecutor, wanted: Any
) -> dict[str, Any]:
    """Return the figures of a part."""
    if part == "ranges":
        return {"rows": [*itertools.chain(*map(measure_ranges, markets))]}
    if part == "split":
        pairs = [*itertools.product(markets, SPLITS)]
        return measure_windows([*pool.map(judge_split, *zip(*pairs, strict=True))])
    if part == "margin":
        ends = pd.date_range(wanted.start, wanted.end, freq="QS", tz="UTC")
        pairs = [*itertools.product(markets, ends)]
        tables = pool.map(judge_margin, *zip(*pairs, strict=True))
        return measure_windows([table for table in tables if table is not None])
    if part == "column":
        rows = pd.DataFrame(itertools.chain(*pool.map(judge_column, markets)))
        return {"rows": measure_forecasts(rows, ["today", "column"])}

    tasks = [
        (market, k, wanted.paths)
        for market in markets
        for k in range(YEAR_BARS, market.n_bars - 24 * DAYS[-1] - 1, 24 * wanted.step)
    ]
    found = pool.map(judge_paths, *zip(*tasks, strict=True), chunksize=4)
    rows = pd.DataFrame(itertools.chain(*found))
    return {
        "dates": len(tasks),
        "rows": measure_forecasts(rows, ["model", "probability"]),
        "brier_of_probability_less_model": compare_brier(rows, "probability", "model"),
    }


if __name__ == "__main__":
    main()
