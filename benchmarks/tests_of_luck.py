"""How often tests and verdicts err where the truth is known, and what they find. JSON.

    python -m benchmarks.tests_of_luck [--parts timing signals importance promises starts frontier]
        [--draws 200] [--searches 40] [--planted 10] [--forests 100] [--frontiers 20] [--seconds 3]

``timing``: 250 days of returns of GARCH beside leverage that is drawn on its own, with a median of
1 and a memory of 0.97 (slow) or 0.8 a day; with ``skill``, the logarithm of the leverage has that
correlation with the next return. Counted are p of at most .05.
``signals``: 1,095 days at an annual volatility of 60 %, and 16 crossings of moving averages that
a search chooses among; they are noise, or their returns follow one of the crossings, which earns
a Sharpe ratio of 3 by it before costs. Counted are searches whose verdict is evidence, and p of at
most .05. ``--seconds`` is the time after which one shift in k is tested.
``importance``: 500 sets of four parameters whose scores are noise. Counted are searches in which
any parameter is over the noise, and those in which any pair is.
``promises``: an account at 1x in markets of normal or GARCH returns, whose policy promises their
annual volatility of 60 %, within a tenth; the market has it, or 1.5 times that.
``starts``: four years of a geometric Brownian motion, of which each day begins a position that is
lost at a level within 30 days. Counted are bounds by starts apart that are below the truth.
``frontier``: searches of ``VolTarget`` for CAGR and drawdown on 4,000 drawn hours. Counted are
those with sets that filled no order, those with a knee, and those whose chosen set has no fill.
Each share has its 95 % interval, of Clopper and Pearson (1934).
"""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.core import FloatArray, parse_duration
from backtest.core.units import DAY
from backtest.results.promises import BROKEN, KEPT, TOO_EARLY
from backtest.risk.past_starts import PastStarts
from backtest.search import shifts
from backtest.search.importance import measure_importance
from backtest.search.trials import Batch
from backtest.signals.rules import MaCross
from backtest.strategies import Constant, VolTarget
from backtest.sweep import VariedTest, read_space
from backtest.sweep.lanes import runner
from benchmarks.intervals import make_noise
from benchmarks.timing import count_share, print_json, read_flags

TERMS: dict[str, Any] = {
    "venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account(capital=1e4),
}  # fmt: skip
SPREAD, DAILY = 0.5, 0.03
PARTS = ("timing", "signals", "importance", "promises", "starts", "frontier")
DAYS = 250
MEMORIES = (0.97, 0.8)
SKILLS = (0.0, 0.1, 0.2)
SEARCHED, VOLATILITY, SHARPE = 1_095, 0.6, 3.0
FAST = [3, 5, 8, 12]
SLOW = [15, 20, 30, 45]
PLANTED = (5, 20)
SETS, PARAMETERS = 500, 4
PROMISED = 0.6
LENGTHS = (60, 365)
TIMES = (1.0, 1.5)
HISTORY = 4 * 365
HORIZON = 30
FALLS = (0.15, 0.25, 0.35)
TRUTH = 200_000
"""Paths by which the true probability of a loss is known."""
FRONTIER_BARS, FRONTIER_TRIALS = 4_000, 60


class Planned(bt.Policy):
    """Leverage that is a column of the bars."""

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return the column."""
        return {"plan": market.columns["plan"]}

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return its value."""
        return bar.plan  # type: ignore[attr-defined, no-any-return]


class Four(bt.Policy):
    """Four parameters that change nothing."""

    a: Annotated[float, bt.Range(0.0, 1.0)] = 0.5
    b: Annotated[float, bt.Range(0.0, 1.0)] = 0.5
    c: Annotated[float, bt.Range(0.0, 1.0)] = 0.5
    d: Annotated[float, bt.Range(0.0, 1.0)] = 0.5

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return 1."""
        return 1.0


class Promising(bt.Policy):
    """1x, of which a volatility is promised."""

    def promises(self) -> tuple[bt.Promise, ...]:
        """Return the promise of ``VolTarget``."""
        return (bt.Promise("volatility at the target", "volatility", PROMISED, 0.1, "about"),)

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return 1."""
        return 1.0


def make_planned(
    noise: FloatArray, memory: float, skill: float, rng: np.random.Generator
) -> bt.Market:
    """Return daily bars of GARCH returns with a column ``plan``, which knows some of the next."""
    n = len(noise)
    level = rng.standard_normal(n)
    for t in range(1, n):
        level[t] = memory * level[t - 1] + math.sqrt(1.0 - memory**2) * level[t]

    # The log of the plan: a part of the next return, the rest of noise that remembers.
    log = skill * np.append(noise[1:], 0.0) + math.sqrt(1.0 - skill**2) * level

    close = 1e4 * np.exp(np.cumsum(DAILY * np.clip(noise, -8.0, 8.0)))
    opens = np.append(1e4, close[:-1])
    bars = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
            "close": close, "plan": np.exp(SPREAD * log)}  # fmt: skip
    index = pd.date_range("2023-01-01", periods=n, freq="1D", tz="UTC")
    return bt.Market.from_frames(pd.DataFrame(bars, index=index), now="2100-01-01")


def measure_timing(draws: int, memory: float, known: float) -> dict[str, Any]:
    """Return how often p is at most .05, of leverage with a memory and some skill."""
    rng = np.random.default_rng([11, round(100 * memory), round(100 * known)])
    noises = make_noise("persistent", (draws + 1) // 2, DAYS, rng).reshape(-1, DAYS)[:draws]
    found = []
    for noise in noises:
        run = bt.Backtest(make_planned(noise, memory, known, rng), **TERMS).run(Planned())
        found.append(bt.timing_test(run).p_growth <= 0.05)
    return {"memory": memory, "skill": known, **count_share(found)}


def make_market(seed: int, sharpe: float) -> bt.Market:
    """Return days whose returns follow the crossing of two averages of the closes before."""
    rng = np.random.default_rng([12, seed])
    daily = VOLATILITY / math.sqrt(365.0)
    fast, slow = PLANTED

    close = [100.0]
    for step in daily * rng.standard_normal(SEARCHED):
        side = 0.0
        if len(close) >= slow:
            side = np.sign(np.mean(close[-fast:]) - np.mean(close[-slow:]))
        drift = sharpe * VOLATILITY / 365.0 * side
        close.append(close[-1] * math.exp(step + drift - 0.5 * daily**2))

    opens = np.array(close[:-1])
    closes = np.array(close[1:])
    bars = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes),
            "close": closes}  # fmt: skip
    index = pd.date_range("2020-01-01", periods=SEARCHED, freq="D", tz="UTC")
    return bt.Market.from_frames(pd.DataFrame(bars, index=index), now="2100-01-01")


def measure_searches(count: int, sharpe: float) -> dict[str, Any]:
    """Return how often a search of a signal is evidence, and how often p is at most .05."""
    claims = []
    small = []
    tested = []

    space = {"signal.fast": FAST, "signal.slow": SLOW}
    for seed in range(count):
        test = bt.Backtest(make_market(seed, sharpe), signal=MaCross(*PLANTED), **TERMS)
        study = test.tune(
            Constant(leverage=1.0), space=space, sampler="grid", robust=False,
            trials=len(FAST) * len(SLOW),
        )  # fmt: skip

        signal = study.verdict.signal
        claims.append(study.has_evidence)
        small.append(signal.p_value <= 0.05)
        tested.append(signal.shifts)
        sys.stderr.write(f"{seed} p {signal.p_value:.3f} of {signal.shifts} {signal.untested}\n")
    return {
        "sharpe": sharpe, "shifts": float(np.median(tested)), "evidence": count_share(claims),
        "p": count_share(small),
    }  # fmt: skip


def measure_noise_forests(count: int) -> dict[str, Any]:
    """Return how often scores of noise give a parameter, or a pair, an importance."""
    market = bt.Market.sample(bars=200)
    space = read_space(VariedTest(bt.Backtest(market, **TERMS), Four), None)
    alone = []
    pairs = []
    for seed in range(count):
        rng = np.random.default_rng([13, seed])
        sets = space.decode(rng.random((SETS, PARAMETERS)))
        scores = rng.standard_normal(SETS)
        zeros = np.zeros(SETS)

        batch = Batch("search", 0.0, sets, {}, scores, zeros, [""] * SETS)
        claims = measure_importance(space, batch, seed)["is_over_noise"]
        alone.append(bool(claims.iloc[:PARAMETERS].any()))
        pairs.append(bool(claims.iloc[PARAMETERS:].any()))
        sys.stderr.write(f"{seed} parameters {sum(alone)} pairs {sum(pairs)}\n")
    return {"sets": SETS, "parameters": count_share(alone), "pairs": count_share(pairs)}


def measure_promises(count: int, kind: str, days: int, times: float) -> dict[str, Any]:
    """Return how often a promised volatility is kept, not kept, or too early to judge."""
    rng = np.random.default_rng([14, days, round(10 * times)])
    noises = make_noise(kind, (count + 1) // 2, days, rng).reshape(-1, days)[:count]

    verdicts = []
    for noise in noises:
        close = 1e4 * np.exp(np.cumsum(times * PROMISED / math.sqrt(365.0) * noise))
        opens = np.append(1e4, close[:-1])
        bars = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
                "close": close}  # fmt: skip
        index = pd.date_range("2023-01-01", periods=days, freq="D", tz="UTC")
        market = bt.Market.from_frames(pd.DataFrame(bars, index=index), now="2100-01-01")
        result = bt.Backtest(market, **TERMS).run(Promising())
        verdicts.append(result.promises["verdict"].iloc[0])

    shares = {}
    for word in (KEPT, BROKEN, TOO_EARLY):
        shares[word] = count_share([verdict == word for verdict in verdicts])
    return {"returns": kind, "days": days, "over promised": times, **shares}


def measure_starts(count: int, fall: float) -> dict[str, Any]:
    """Return how often the bound of starts apart is below the true probability of a loss."""
    daily = VOLATILITY / math.sqrt(365.0)
    rng = np.random.default_rng([15, round(100 * fall)])
    level = math.log(1.0 - fall)

    # The truth, by the lowest of the horizon on many paths.
    drawn = np.cumsum(daily * rng.standard_normal((TRUTH, HORIZON)), axis=1).min(axis=1)
    truth = float(np.mean(drawn <= level))

    # What one history says: when it would have lost from each of its bars.
    times = DAY * np.arange(HISTORY)
    room = HISTORY - np.arange(HISTORY)

    below = []
    shares = []
    bounds = []
    for _ in range(count):
        path = np.append(0.0, np.cumsum(daily * rng.standard_normal(HISTORY)))
        ahead = np.lib.stride_tricks.sliding_window_view(path, HORIZON + 1)
        is_lost = ahead[:, 1:] - ahead[:, :1] <= level

        losses = np.full(HISTORY, HISTORY)
        losses[: len(ahead)] = np.where(is_lost.any(axis=1), is_lost.argmax(axis=1), HISTORY)

        past = PastStarts(times, losses, losses, room, has_marks=True)
        found = past.summarize(HORIZON, parse_duration("30d", "horizon"))
        shares.append(found["history"])
        bounds.append(found["history_high"])
        below.append(found["history_high"] < truth)
    return {
        "fall": fall, "truth": truth, "history": float(np.mean(shares)),
        "median bound": float(np.median(bounds)), "below the truth": count_share(below),
    }  # fmt: skip


def measure_frontiers(count: int) -> dict[str, Any]:
    """Return what frontiers leave out and choose, and the chosen sets in search and holdout."""
    rows = []
    for seed in range(count):
        market = bt.Market.sample(bars=FRONTIER_BARS, seed=seed)
        test = bt.Backtest(market, **TERMS)

        objectives = ("cagr", "max_drawdown")
        found = test.frontier(VolTarget, objectives=objectives, trials=FRONTIER_TRIALS, seed=seed)
        rows.append({**found.points.loc[found.knee], "unfilled": found.unfilled,
                     "has_knee": found.has_knee})  # fmt: skip
        sys.stderr.write(f"{seed} {found.verdict}\n")

    table = pd.DataFrame(rows)
    return {
        "left out sets without fills": count_share([*(table["unfilled"] > 0)]),
        "knee": count_share([*table["has_knee"]]),
        "chosen without a fill": count_share([*(table["fills"] == 0)]),
        "worse on the holdout": count_share([*(table["holdout_cagr"] < table["cagr"])]),
        "median cagr": float(table["cagr"].median()),
        "median holdout cagr": float(table["holdout_cagr"].median()),
    }


def main() -> None:
    """Measure the parts that are asked for, and print a row for each setting."""
    wanted = read_flags(
        __doc__, parts=[*PARTS], draws=200, searches=40, planted=10, forests=100, frontiers=20,
        seconds=3.0,
    )  # fmt: skip

    warnings.simplefilter("ignore")
    if "timing" in wanted.parts:
        runner.LEAST_BAR_SETS = 0  # the same figures, six times as fast on few bars
    if "signals" in wanted.parts:
        shifts.MOST_SECONDS = wanted.seconds

    planned = [(memory, 0.0) for memory in MEMORIES]
    planned += [(0.8, known) for known in SKILLS if known]
    promised = itertools.product(("normal", "volatile"), LENGTHS, TIMES)

    pairs = ((wanted.searches, 0.0), (wanted.planted, SHARPE))

    measures: dict[str, Callable[[], Any]] = {
        "timing": lambda: [measure_timing(wanted.draws, *case) for case in planned],
        "signals": lambda: [measure_searches(*pair) for pair in pairs],
        "importance": lambda: measure_noise_forests(wanted.forests),
        "promises": lambda: [measure_promises(wanted.draws, *case) for case in promised],
        "starts": lambda: [measure_starts(5 * wanted.draws, fall) for fall in FALLS],
        "frontier": lambda: measure_frontiers(wanted.frontiers),
    }

    print_json({part: measures[part]() for part in wanted.parts})


if __name__ == "__main__":
    main()
