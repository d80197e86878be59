"""Measure validations: speed against plain sweeps, and bias and coverage under known truth.

    python benchmarks/validation.py speed --bars 43800 --sets 2000 --folds 48

``speed`` compares the CPU time of a cross-validation and of a walk with that of plain sweeps of the
same sets and bars. ``truth`` simulates markets whose process is known, chooses sets by a holdout, a
walk and a cross-validation, and compares what each method said with what the winner earns on fresh
paths of the same process. It prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.strategies import VolTarget
from backtest.sweep.sets.space import draw_sets, read_space
from backtest.validation.spans import WalkPlan, plan_spans

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(capital=10_000.0)
FIX = {"estimator": "ewma", "power": 1.0}
DAY_NS = 86_400_000_000_000


class Lever(bt.Policy):
    """Hold a leverage."""

    size: Annotated[float, bt.Range(0.1, 3.0)] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:
        """Return the size."""
        return self.size


# ------------------------------------------------------------------------------------------ speed


def measure_speed(n_bars: int, n_sets: int, folds: int) -> dict[str, float]:
    """Return CPU seconds of sweeps and validations, and their ratios."""
    market = bt.Market.sample(bars=n_bars)
    space = read_space(VolTarget, None, fix=FIX, account=ACCOUNT, venue=VENUE)
    sets = pd.DataFrame(dict(draw_sets(space, n_sets)))
    terms: dict[str, Any] = {"venue": VENUE, "account": ACCOUNT}
    bt.sweep(market.prefix(2_000), VolTarget, sets, metrics="core", **terms)  # compiles
    swept = count_cpu(lambda: bt.sweep(market, VolTarget, sets, metrics="core", **terms))
    crossed = count_cpu(
        lambda: bt.cross_validate(market, VolTarget, fix=FIX, trials=n_sets, **terms)
    )
    days = n_bars // 24
    train, test = f"{days // 3}d", f"{max(1, (days - days // 3) // folds)}d"
    given = {"train": train, "test": test, "sampler": "sobol", "robust": False}
    walked = count_cpu(
        lambda: bt.walk_forward(market, VolTarget, fix=FIX, trials=n_sets, **given, **terms)
    )
    plan = WalkPlan(days // 3 * DAY_NS, int(test[:-1]) * DAY_NS)
    spans = plan_spans(market, plan)
    plain = sum(
        count_cpu(lambda a=a, b=b: bt.sweep(market.slice(a, b), VolTarget, sets, metrics="core",
                                            **terms))
        for span in spans
        for a, b in ((span.train, span.train_stop), (span.test, span.stop))
    )  # fmt: skip
    return {
        "sweep": swept, "cross_validate": crossed, "cross_validate_ratio": crossed / swept,
        "folds": len(spans), "sweeps_of_folds": plain, "walk_forward": walked,
        "walk_forward_ratio": walked / plain,
    }  # fmt: skip


def count_cpu(call: Callable[[], Any]) -> float:
    """Return the CPU seconds of a call, over all threads."""
    began = time.process_time()
    call()
    return time.process_time() - began


# ------------------------------------------------------------------------------------------ truth

YEAR = 365.0
METHODS = ("in sample", "holdout", "walk-forward", "cross-validate")
MODELS = ("gbm", "heston", "merton", "regimes", "burst")


def simulate(model: str, days: int, rng: np.random.Generator) -> bt.Market:
    """Return daily bars of a process with a known law, without costs of funding.

    GBM with drift 20 % and volatility 60 %; Heston and Merton with the same mean variance; two
    regimes of drift 60 % and -40 %; a drift burst: 100 % in the first half, -20 % in the second.
    """
    dt, mu, sigma = 1.0 / YEAR, 0.2, 0.6
    shocks = rng.standard_normal(days)
    drift, deviation, jumps = np.full(days, mu), np.full(days, sigma), np.zeros(days)
    if model == "heston":
        deviation = np.sqrt(simulate_variance(days, sigma**2, rng))
    elif model == "merton":
        counts = rng.poisson(12.0 * dt, days)
        jumps = counts * -0.03 + np.sqrt(counts) * 0.06 * rng.standard_normal(days)
        jumps += 12.0 * dt * 0.03
        deviation = np.full(days, math.sqrt(sigma**2 - 12.0 * (0.03**2 + 0.06**2)))
    elif model == "regimes":
        state = np.cumsum(rng.random(days) < 2.0 * dt) % 2
        drift = np.where(state == 0, 0.6, -0.4)
    elif model == "burst":
        drift = np.where(np.arange(days) < days // 2, 1.0, -0.2)
    steps = (drift - 0.5 * deviation**2) * dt + deviation * math.sqrt(dt) * shocks + jumps
    close = 100.0 * np.exp(np.cumsum(steps))
    opened = np.concatenate(([100.0], close[:-1]))
    index = pd.date_range("2015-01-01", periods=days, freq="D", tz="UTC")
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    frame = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close}, index=index)
    return bt.Market.from_frames(frame, instrument=model.upper())


def simulate_variance(days: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Return variances of a square-root process that reverts three times a year."""
    found, value = np.empty(days), mean
    for t in range(days):
        found[t] = value
        step = 3.0 * (mean - value) / YEAR + 0.9 * math.sqrt(value / YEAR) * rng.standard_normal()
        value = max(value + step, 1e-4)
    return found


def measure_truth(models: list[str], paths: int, days: int, sets: int) -> list[dict[str, Any]]:
    """Return bias and coverage of each method by process."""
    rows = []
    for model in models:
        errors: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
        for path in range(paths):
            rng = np.random.default_rng([path, MODELS.index(model)])
            market = simulate(model, days, rng)
            fresh = [simulate(model, days, np.random.default_rng([path, k, 7])) for k in range(8)]
            for name, (said, error) in estimate_all(market, sets).items():
                truth = true_sharpe(said[1], fresh)
                errors[name].append((said[0] - truth, error))
        for name, found in errors.items():
            gaps, widths = np.array(found).T
            rows.append({
                "process": model, "method": name, "paths": paths,
                "bias": float(np.mean(gaps)), "sd": float(np.std(gaps)),
                "coverage_95": float(np.mean(np.abs(gaps) <= 1.96 * widths)),
            })  # fmt: skip
    return rows


def estimate_all(market: bt.Market, sets: int) -> dict[str, tuple[tuple[float, float], float]]:
    """Return, by method, the Sharpe ratio it promises with its size, and the standard error."""
    terms: dict[str, Any] = {"venue": PLAIN_VENUE, "account": ACCOUNT, "trials": sets}
    study = bt.tune(market, Lever, holdout="25%", sampler="sobol", robust=False, **terms)
    years = market.n_bars / YEAR
    size = float(study.best_values["size"])
    walk = bt.walk_forward(market, Lever, train="365d", test="90d", sampler="sobol", robust=False,
                           **terms)  # fmt: skip
    cross = bt.cross_validate(market, Lever, groups=5, embargo=0, **terms)
    assert_run(walk)
    sizes = walk.folds["size"].to_numpy()
    walked = float(walk.figures["sharpe"])
    common = float(cross.splits["size"].median())
    paths = float(cross.paths["sharpe"].mean())
    return {
        "in sample": ((study.verdict.score, size), 1.0 / math.sqrt(0.75 * years)),
        "holdout": ((study.verdict.holdout_score, size), 1.0 / math.sqrt(0.25 * years)),
        "walk-forward": ((walked, float(np.median(sizes))), 1.0 / math.sqrt(years - 1.0)),
        "cross-validate": ((paths, common), 1.0 / math.sqrt(years)),
    }


def assert_run(walk: bt.WalkForward) -> None:
    """Raise if a walk has no account to measure."""
    if walk.result is None:
        raise RuntimeError("the walk was made without carry")


def true_sharpe(size: float, fresh: list[bt.Market]) -> float:
    """Return the Sharpe ratio of a size over fresh paths of the same process."""
    runs = [
        bt.run(market, Lever(size=size), venue=PLAIN_VENUE, account=ACCOUNT) for market in fresh
    ]
    returns = np.concatenate([run.returns.to_numpy() for run in runs])
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(YEAR))


PLAIN_VENUE = bt.Venue(
    contract=bt.Contract(lot=0.0, tick=0.01, min_notional=0.0),
    brackets=[bt.Bracket(0.0, 1e12, 20.0, 0.005)],
    fees=bt.Fees(taker=5e-4, maker=2e-4),
    slippage=bt.Slippage(rate=1e-4),
    liquidation=bt.Liquidation(mode="close", fee=0.0125, slippage=0.002),
)


def main() -> None:
    """Print the chosen measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "truth"])
    parser.add_argument("--bars", type=int, default=43_800)
    parser.add_argument("--sets", type=int, default=2_000)
    parser.add_argument("--folds", type=int, default=48)
    parser.add_argument("--paths", type=int, default=20)
    parser.add_argument("--days", type=int, default=1_460)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "speed":
        found: Any = measure_speed(given.bars, given.sets, given.folds)
    else:
        found = measure_truth(given.models, given.paths, given.days, min(given.sets, 64))
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
