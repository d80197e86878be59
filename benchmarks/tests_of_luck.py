"""How often tests of luck err, and what they find: ``bt.timing_test``, searches of signals. JSON.

    python -m benchmarks.tests_of_luck [--parts timing signals] [--draws 200] [--searches 40]
        [--planted 10] [--seconds 3]

``timing``: 250 days of returns of GARCH beside leverage that is drawn on its own, with a median of
1 and a memory of 0.97 (slow) or 0.8 a day; with ``skill``, the logarithm of the leverage has that
correlation with the next return. Counted are p of at most .05.
``signals``: 1,095 days at an annual volatility of 60 %, and 16 crossings of moving averages that
a search chooses among; they are noise, or their returns follow one of the crossings, which earns
a Sharpe ratio of 3 by it before costs. Counted are searches whose verdict is evidence, and p of at
most .05. ``--seconds`` is the time after which one shift in k is tested.
Each share has its 95 % interval, of Clopper and Pearson (1934).
"""

from __future__ import annotations

import math
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta

import backtest as bt
from backtest.core import FloatArray
from backtest.search import shifts
from backtest.signals.rules import MaCross
from backtest.strategies import Constant
from backtest.sweep.lanes import runner
from benchmarks.intervals import make_noise
from benchmarks.timing import print_json, read_flags

TERMS: dict[str, Any] = {
    "venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account(capital=1e4),
}  # fmt: skip
SPREAD, DAILY = 0.5, 0.03
DAYS, MEMORIES, SKILLS = 250, (0.97, 0.8), (0.0, 0.1, 0.2)
SEARCHED, VOLATILITY, SHARPE = 1_095, 0.6, 3.0
FAST, SLOW, PLANTED = [3, 5, 8, 12], [15, 20, 30, 45], (5, 20)


class Planned(bt.Policy):
    """Leverage that is a column of the bars."""

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return the column."""
        return {"plan": market.columns["plan"]}

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return its value."""
        return bar.plan  # type: ignore[attr-defined, no-any-return]


def count_share(found: list[bool]) -> dict[str, Any]:
    """Return a share, its number, and its 95 % interval."""
    n, k = len(found), int(sum(found))
    low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
    return {"n": n, "count": k, "share": k / n, "interval": [round(low, 3), round(high, 3)]}


def make_planned(
    noise: FloatArray, memory: float, skill: float, rng: np.random.Generator
) -> bt.Market:
    """Return daily bars of GARCH returns with a column ``plan``, which knows some of the next."""
    n = len(noise)
    level = rng.standard_normal(n)
    for t in range(1, n):
        level[t] = memory * level[t - 1] + math.sqrt(1.0 - memory**2) * level[t]
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
    opens, closes = np.array(close[:-1]), np.array(close[1:])
    bars = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes),
            "close": closes}  # fmt: skip
    index = pd.date_range("2020-01-01", periods=SEARCHED, freq="D", tz="UTC")
    return bt.Market.from_frames(pd.DataFrame(bars, index=index), now="2100-01-01")


def measure_searches(count: int, sharpe: float) -> dict[str, Any]:
    """Return how often a search of a signal is evidence, and how often p is at most .05."""
    claims, small, tested = [], [], []
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


def main() -> None:
    """Measure the parts that are asked for, and print a row for each setting."""
    wanted = read_flags(
        __doc__, parts=["timing", "signals"], draws=200, searches=40, planted=10, seconds=3.0
    )
    warnings.simplefilter("ignore")
    report: dict[str, Any] = {}
    if "timing" in wanted.parts:
        runner.LEAST_BAR_SETS = 0  # the same figures, six times as fast on few bars
        cases = [(memory, 0.0) for memory in MEMORIES]
        cases += [(0.8, known) for known in SKILLS if known]
        report["timing"] = [measure_timing(wanted.draws, *case) for case in cases]
    if "signals" in wanted.parts:
        shifts.MOST_SECONDS = wanted.seconds
        pairs = ((wanted.searches, 0.0), (wanted.planted, SHARPE))
        report["signals"] = [measure_searches(*pair) for pair in pairs]
    print_json(report)


if __name__ == "__main__":
    main()
