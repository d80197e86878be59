"""How well models of paths forecast liquidations of BTC, ETH and LTC. Prints tables, and JSON.

    python benchmarks/forecast_models.py FOLDER... [--from DAY] [--to DAY] [--models gbm ...]
    python benchmarks/forecast_models.py FOLDER... --together
    python benchmarks/forecast_models.py FOLDER... --bias --levers 3 5 10 --models filtered:0.65 ...

Each FOLDER holds hourly bars and mark prices of BTCUSDT, ETHUSDT or LTCUSDT. Every 8 days (so that
all days of the week take part), positions of 5x, 10x and 20x, long and short, are opened in the
mind: is the mark going to touch their liquidation price within 1, 7 and 30 days? Each model is
fitted to the year before (at least 180 days) and draws paths without drift. The maintenance margin
is 0.5 %; fees and funding are left out.

``normal`` is the reference: the closed form of a Brownian motion with the volatility of the last 30
days. ``normal 3d`` has that of ``Filtered``: a half-life of 3 days, back to the year's in 20.
``student 3d`` is ``touch_probability`` with a half-life of 3 days and 4 times the cube root of the
horizon's days as degrees of freedom; ``student4 3d`` has 4 for every horizon.

``filtered:0.65`` is ``filtered`` with another power of the distance of today's variance from the
year's. ``--bias`` prints told minus came by horizon and leverage, on calm days (volatility below
0.75 of the year's) and others, with 95 % intervals of a bootstrap of blocks of 6 weeks; and how
large the variance was over that of ``normal 3d``.

``--together`` prints how often a coin is in its worst 1 and 0.1 % of hours if another is.

The Brier score is the mean of (forecast - outcome)^2: smaller is better. Standard errors are those
of sums over whole weeks, all instruments together; forecasts of 30 days overlap, so that theirs
count the covariance of neighboring weeks (Newey and West 1987, 4 lags).
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
from timing import read_flags

import backtest as bt
from backtest.core import BoolArray, FloatArray
from backtest.indicators import ewma_volatility, log_returns
from backtest.indicators.forecasts import DEGREES
from backtest.margin import touch_probability
from backtest.risk.path_models import REVERSION, STATE

COINS = ("BTCUSDT", "ETHUSDT", "LTCUSDT")
LEVERS = (5.0, 10.0, 20.0)
DAYS = (1, 7, 30)
MODELS = ("filtered", "stationary", "gbm")
CLOSED = ("normal", "normal 3d", "student 3d", "student4 3d")
STEP = 8 * 24
"""Bars from one date to the next."""
LAGS = 4
BINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
MAINTENANCE = 0.005
CHUNK = 512
"""Paths drawn at a time."""
CALM = 0.75
BLOCK_WEEKS, RESAMPLES = 6, 2000


def load_coins(folders: list[str], between: tuple[str, str]) -> list[bt.Market]:
    """Return the markets of the folders; last prices stand in before the first mark price."""
    gaps: dict[str, Any] = {"mark_gaps": "last", "funding_gaps": "zero"}
    found = []
    errors = []
    for folder, coin in itertools.product(folders, COINS):
        try:
            whole = bt.Market.load(folder, instrument=coin, **gaps)
        except bt.BacktestError as error:  # a folder may hold some of them only
            errors.append(f"{folder}, {coin}: {error}")
            continue
        first = pd.Timestamp(between[0], tz="UTC") - pd.Timedelta(days=366)
        last = min(pd.Timestamp(between[1], tz="UTC") + pd.Timedelta(days=31), whole.times[-1])
        found.append(whole.between(max(first, whole.times[0]), last))
    if not found:
        sys.exit("\n".join(errors))
    return found


def find_level(lever: float) -> float:
    """Return ln(liquidation price / entry): where ``1 + L (x - 1) = MAINTENANCE |L| x``."""
    return math.log((lever - 1.0) / (lever - MAINTENANCE * abs(lever)))


def find_touched(low: FloatArray, high: FloatArray, levels: FloatArray) -> BoolArray:
    """Return whether paths of lows and highs touched the levels, (days, levels, n_paths).

    ``low`` and ``high`` (n_paths, n_bars) are logs over the mark at the start.
    """
    lows = np.minimum.accumulate(low, axis=1)
    highs = np.maximum.accumulate(high, axis=1)
    ends = [min(24 * days, low.shape[1]) - 1 for days in DAYS]
    return np.array(
        [
            [lows[:, end] <= x if x < 0.0 else highs[:, end] >= x for x in levels.tolist()]
            for end in ends
        ]
    )


def forecast(paths: bt.Paths, price: float, levels: FloatArray) -> FloatArray:
    """Return the share of the paths that touch each level, (days, levels)."""
    total = np.zeros((len(DAYS), len(levels)))
    for first in range(0, len(paths), CHUNK):
        bars = paths.draw(first, min(first + CHUNK, len(paths)))
        marks = bars.prices if bars.marks is None else bars.marks
        rows = np.log(marks[1:3].reshape(2, -1, paths.width)[:, :, 1:] / price)
        total += find_touched(rows[1], rows[0], levels).sum(axis=2)
    return total / len(paths)


def fit_model(history: bt.Market, name: str) -> Any:
    """Return the name of a model, or ``filtered`` with another start of its variance."""
    kind, _, state = name.partition(":")
    if not state:
        return kind
    fit = bt.paths.Filtered.fit(history)
    mean = float(np.mean(log_returns(history)[1:] ** 2))
    return fit.override(variance_now=mean * (fit.variance_now / mean) ** (float(state) / STATE))


def revert(now: float, mean: float, days: int) -> float:
    """Return the mean over some days of a variance that returns to its long-run mean."""
    left = float(np.mean(0.5 ** (np.arange(24 * days) / (24.0 * REVERSION))))
    return mean + (now - mean) * left


def forecast_closed(history: bt.Market, levels: FloatArray) -> dict[str, FloatArray]:
    """Return the forecasts in closed form, (days, levels)."""
    moves = np.diff(np.log(history.close))
    month = float(np.std(moves[-30 * 24 :])) * math.sqrt(8760.0)
    mean = float(np.mean(moves**2)) * 8760.0
    now = float(ewma_volatility(history, 3 * 24)[-1])
    found: dict[str, list[FloatArray]] = {name: [] for name in CLOSED}
    for days in DAYS:
        ways = {
            "normal": (month, math.inf),
            "normal 3d": (math.sqrt(revert(now**2, mean, days)), math.inf),
            "student 3d": (now, DEGREES * days ** (1.0 / 3.0)),
            "student4 3d": (now, DEGREES),
        }
        for name, (sigma, degrees) in ways.items():
            chance = touch_probability(levels, sigma, days / 365.0, degrees_of_freedom=degrees)
            found[name].append(chance)
    return {name: np.array(rows) for name, rows in found.items()}


def judge_date(
    market: bt.Market, k: int, models: list[str], count: int, levers: list[float]
) -> list[dict[str, Any]]:
    """Return a row per leverage and horizon: every forecast, and what happened."""
    sides = [side * lever for lever in levers for side in (1.0, -1.0)]
    levels = np.array([find_level(lever) for lever in sides])
    history = market.slice(max(k + 1 - 365 * 24, 0), k + 1)
    price = float(market.mark_close[k])
    ahead = slice(k + 1, k + 1 + 24 * DAYS[-1])
    low, high = (np.log(each[ahead] / price)[None] for each in (market.mark_low, market.mark_high))
    outcome = find_touched(low, high, levels)[:, :, 0]
    told = forecast_closed(history, levels)
    now = float(ewma_volatility(history, 3 * 24)[-1])
    mean = 8760.0 * float(np.mean(log_returns(history)[1:] ** 2))
    is_calm = now < CALM * math.sqrt(mean)
    squares = 8760.0 * np.diff(np.log(market.close[k : k + 1 + 24 * DAYS[-1]])) ** 2
    for name in models:
        model = fit_model(history, name)
        paths = bt.simulate_paths(history, model, paths=count, horizon=f"{DAYS[-1]}d", seed=k)
        told[name] = forecast(paths, price, levels)
    year, week, _ = market.times[k + 1].isocalendar()
    return [
        {"week": f"{year}-{week:02}", "coin": market.instrument, "days": days, "lever": lever,
         "calm": is_calm, "variance told": revert(now**2, mean, days),
         "variance came": float(np.mean(squares[: 24 * days])), "outcome": float(outcome[i, j]),
         **{name: each[i, j] for name, each in told.items()}}
        for i, days in enumerate(DAYS) if 24 * days <= low.shape[1]
        for j, lever in enumerate(sides)
    ]  # fmt: skip


def find_dates(market: bt.Market, start: str, end: str, least: int) -> Iterator[int]:
    """Yield the last bar before each date; ``least`` are the bars of history it has."""
    first, last = (pd.Timestamp(each, tz="UTC").value for each in (start, end))
    for k in range(least, market.n_bars - 24, STEP):
        if first <= market.time[k + 1] < last:
            yield k


def score(rows: pd.DataFrame, names: list[str], lags: int) -> pd.DataFrame:
    """Return the Brier score of each forecaster, its distance to the reference, and the bias."""
    losses = pd.DataFrame({name: (rows[name] - rows["outcome"]) ** 2 for name in names})
    counts = rows.groupby("week").size().to_numpy(dtype=np.float64)

    def find_error(values: pd.Series) -> float:
        sums = values.groupby(rows["week"]).sum().to_numpy()
        rest = sums - sums.sum() / counts.sum() * counts
        variance = float(rest @ rest)
        for lag in range(1, min(lags, len(rest) - 1) + 1):
            variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(rest[lag:] @ rest[:-lag])
        return math.sqrt(max(variance, 0.0)) / counts.sum()

    found = {
        name: {
            "Brier": losses[name].mean(),
            "to normal": (losses[name] - losses["normal"]).mean(),
            "error": find_error(losses[name] - losses["normal"]),
            "told": rows[name].mean(),
            "came": rows["outcome"].mean(),
            "error of came": find_error(rows["outcome"] - rows[name]),
        }
        for name in names
    }
    return pd.DataFrame(found).T.sort_values("Brier")


def tabulate_reliability(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return by bin of the forecast how often the level was touched, and of how many."""
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


def tabulate_together(history: bt.Markets, count: int) -> pd.DataFrame:
    """Return P(a coin is in its worst share of hours | another is), a row per model."""

    def measure(moves: list[FloatArray]) -> list[float]:
        pairs = list(itertools.permutations(moves, 2))
        return [
            float(
                np.mean([np.mean(b[a <= np.quantile(a, q)] <= np.quantile(b, q)) for a, b in pairs])
            )
            for q in (0.01, 0.001)
        ]

    found = {"history": measure([np.diff(np.log(each.close)) for each in history.values()])}
    for name in MODELS:
        paths = bt.simulate_paths(history, name, paths=count, horizon="30d", seed=1)
        closes = [np.log(paths.closes(name=coin)) for coin in paths.names]
        found[name] = measure([np.diff(each, axis=1).ravel() for each in closes])
    return pd.DataFrame(found, index=["worst 1 %", "worst 0.1 %"]).T


class Weeks:
    """Resampled calendar weeks, in blocks of 6: what persists for weeks stays together."""

    def __init__(self, weeks: pd.Series) -> None:
        self.places = {week: i for i, week in enumerate(sorted(weeks.unique()))}
        count = len(self.places)
        starts = np.random.default_rng(0).integers(0, count, (RESAMPLES, -(-count // BLOCK_WEEKS)))
        blocks = (starts[:, :, None] + np.arange(BLOCK_WEEKS)) % count
        self.drawn = blocks.reshape(RESAMPLES, -1)

    def resample(self, weeks: pd.Series, values: Any) -> FloatArray:
        """Return the sums of some values over the drawn weeks, (RESAMPLES,)."""
        places = weeks.map(self.places).to_numpy()
        by_week = np.bincount(places, np.asarray(values, np.float64), len(self.places))
        return np.asarray(by_week[self.drawn].sum(axis=1))


def find_interval(drawn: FloatArray) -> list[float]:
    """Return the middle 95 % of what was drawn; draws without a value do not count."""
    return [round(float(x), 4) for x in np.nanquantile(drawn, (0.025, 0.975))]


def tabulate_bias(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return told minus came by calm, horizon and leverage, each with its bootstrap interval."""
    cells = []
    weeks = Weeks(rows["week"])
    for (calm, days, lever), part in rows.groupby(["calm", "days", rows["lever"].abs()]):
        counts = weeks.resample(part["week"], np.ones(len(part)))
        for name in names:
            gap = (part[name] - part["outcome"]).to_numpy(dtype=np.float64)
            with np.errstate(invalid="ignore"):
                low, high = find_interval(weeks.resample(part["week"], gap) / counts)
            is_right = abs(gap.mean()) <= 0.03 or low <= 0.0 <= high
            cells.append(("calm" if calm else "other", days, lever, name, len(part),
                          part[name].mean(), part["outcome"].mean(), gap.mean(), low, high,
                          "yes" if is_right else "NO"))  # fmt: skip
    head = ["days", "horizon", "leverage", "model", "forecasts", "told", "came", "bias", "low",
            "high", "right"]  # fmt: skip
    return pd.DataFrame(cells, columns=head)


def show(rows: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    """Print the tables of some forecasts; return the scores."""
    parts = {"all": rows, **{f"{days} d": rows[rows["days"] == days] for days in DAYS}}
    is_asked = (rows["days"] == 7) & rows["lever"].isin((10.0, 20.0))
    parts["7 d, longs of 10x and 20x"] = rows[is_asked]
    found = {}
    for title, part in parts.items():
        if part.empty:
            continue
        lags = LAGS if part["days"].max() > 7 else 0
        table = score(part, names, lags)
        found[title] = table.to_dict("index")
        sys.stdout.write(f"{title}: {len(part)} forecasts\n{table.round(4).to_string()}\n\n")
    bins = tabulate_reliability(rows, names)
    sys.stdout.write(f"calibration: touched, of forecasts\n{bins.to_string()}\n")
    return {"forecasts": len(rows), "scores": found, "reliability": bins.T.to_dict()}


def main() -> None:
    """Forecast on every date, score and print."""
    wanted = read_flags(
        __doc__, "folder", paths=2000, models=[*MODELS], start="2020-01-01", end="2022-01-01",
        least=180, processes=2, levers=[*LEVERS], bias=False, together=False,
    )  # fmt: skip
    markets = load_coins(wanted.folder, (wanted.start, wanted.end))
    if wanted.together:
        first = max(each.start for each in markets)
        book = bt.Markets({x.instrument: x.between(first, x.end) for x in markets})
        sys.stdout.write(f"{tabulate_together(book, wanted.paths).round(2).to_string()}\n")
        return
    span = (wanted.start, wanted.end)
    least = 24 * wanted.least
    tasks = [(each, k) for each in markets for k in find_dates(each, *span, least)]
    if not tasks:
        sys.exit(f"no date has {wanted.least} days of history before it and a day after it")
    judge = functools.partial(
        judge_date, models=wanted.models, count=wanted.paths, levers=wanted.levers
    )
    with ProcessPoolExecutor(wanted.processes, get_context("spawn")) as pool:
        found = pool.map(judge, *zip(*tasks, strict=True), chunksize=8)
        rows = pd.DataFrame(list(itertools.chain(*found)))
    weeks = rows["week"].nunique()
    sys.stdout.write(f"{len(tasks)} dates in {weeks} weeks, {wanted.start} to {wanted.end}\n\n")
    if wanted.bias:
        table = tabulate_bias(rows, wanted.models)
        sys.stdout.write(f"{table.round(3).to_string(index=False)}\n\n")
        sums = rows.groupby(["calm", "days"])[["variance came", "variance told"]].sum()
        ratio = sums["variance came"] / sums["variance told"]
        sys.stdout.write(f"variance, came over told\n{ratio.round(2).to_string()}\n\n")
    sys.stdout.write(json.dumps(show(rows, [*wanted.models, *CLOSED])) + "\n")


if __name__ == "__main__":
    main()
