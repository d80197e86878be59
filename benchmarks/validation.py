"""Measure validations: speed against plain sweeps, and bias and coverage under known truth.

    python benchmarks/validation.py speed --bars 43800 --sets 2000 --folds 48
    python benchmarks/validation.py truth --paths 40
    python benchmarks/validation.py plain --paths 3000

``speed`` compares the CPU time of a cross-validation and of a walk with that of plain sweeps of the
same sets and bars. ``truth`` simulates histories of four years whose process is known, chooses sets
by growth with a holdout, a walk and a cross-validation, and compares what each method says with
what the chosen set truly earns: in the long run of a stationary process, and after the burst where
the drift changes. ``spread_coverage`` is how often the lowest and the highest path of a
cross-validation have the true figure between them. ``plain`` computes the biases on the GBM a
second time without the package. All print JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from known_truth import (
    DEVIATION,
    DRIFT,
    FREE,
    MODELS,
    YEAR,
    Figures,
    Lever,
    draw_steps,
    gbm_growth,
    simulate,
    true_figures,
)

import backtest as bt
from backtest.strategies import VolTarget
from backtest.sweep import draw_sets, read_space
from backtest.validation.fold_spans import WalkPlan, plan_spans

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(capital=10_000.0)
FIX = {"estimator": "ewma", "power": 1.0}
DAY_NS = 86_400_000_000_000


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

METHODS = ("in sample", "holdout", "walk-forward", "cross-validate")
SEARCH: dict[str, Any] = {"objective": "cagr", "sampler": "sobol", "robust": False}
LENGTHS: dict[str, Any] = {"train": "365d", "test": "180d"}


class Promise(NamedTuple):
    """What a method says of a set that it chose: figures and their standard errors.

    ``spread`` are the lowest and the highest figures of the paths of a cross-validation.
    """

    said: Figures
    error: Figures
    size: float
    window: int
    spread: tuple[Figures, Figures] | None = None


def measure_truth(models: Sequence[str], paths: int, days: int, sets: int) -> list[dict[str, Any]]:
    """Return bias and coverage of each method by process."""
    rows = []
    for model in models:
        promises: dict[str, list[Promise]] = {name: [] for name in METHODS}
        for path in range(paths):
            rng = np.random.default_rng([path, 1 + MODELS.index(model)])
            market = simulate(model, days, rng)
            for name, promise in promise_all(market, sets).items():
                promises[name].append(promise)
        law = "burst-after" if model == "burst" else model
        rows += [{"process": model, **judge_method(law, name, promises[name])} for name in METHODS]
    return rows


def promise_all(market: bt.Market, sets: int) -> dict[str, Promise]:
    """Return, by method, what it says of the set that it would hand to a trader."""
    terms: dict[str, Any] = {**FREE, **SEARCH, "trials": sets}
    study = bt.tune(market, Lever, holdout="25%", **terms)
    size, window = float(study.best_values["size"]), int(study.best_values["window"])
    cut = market.n_bars * 3 // 4
    policy = Lever(size=size, window=window)
    inside = bt.run(market.prefix(cut), policy, **FREE)
    outside = bt.run(market, policy, **FREE, start=market.times[cut])
    return {
        "in sample": read_account(inside, size, window),
        "holdout": read_account(outside, size, window),
        "walk-forward": promise_walk(market, terms),
        "cross-validate": promise_paths(market, sets),
    }


def read_account(result: bt.Result, size: float, window: int) -> Promise:
    """Return growth and Sharpe ratio of an account with their standard errors."""
    years = len(result.close) / YEAR
    growth = math.log1p(result.metrics["total_return"]) / years
    sharpe, deviation = result.metrics["sharpe"], result.metrics["volatility"]
    return Promise(Figures(growth, sharpe), find_errors(sharpe, deviation, years), size, window)


def find_errors(sharpe: float, deviation: float, years: float) -> Figures:
    """Return the standard errors of growth and Sharpe ratio of independent returns."""
    return Figures(deviation / math.sqrt(years), math.sqrt((1.0 + sharpe**2 / 730.0) / years))


def promise_walk(market: bt.Market, terms: dict[str, Any]) -> Promise:
    """Return what the re-tuned account earned, with the winner of the last fold."""
    walk = bt.walk_forward(market, Lever, **LENGTHS, **terms)
    if walk.result is None:
        raise RuntimeError("the walk was made without carry")
    last = walk.folds.iloc[-1]
    return read_account(walk.result, float(last["size"]), int(last["window"]))


def promise_paths(market: bt.Market, sets: int) -> Promise:
    """Return the mean of the paths, with the set that is best over all groups."""
    cross = bt.cross_validate(market, Lever, groups=6, objective="cagr", trials=sets, **FREE)
    best = cross.sets.loc[np.log1p(cross.matrix).mean(axis=1).idxmax()]
    paths, years = cross.paths, market.n_bars / YEAR
    figures = np.array([np.log1p(paths["total_return"]) / years, paths["sharpe"]])
    growth, sharpe = figures.mean(axis=1).tolist()
    errors = find_errors(sharpe, float(paths["volatility"].mean()), years)
    spread = Figures(*figures.min(axis=1).tolist()), Figures(*figures.max(axis=1).tolist())
    return Promise(
        Figures(growth, sharpe), errors, float(best["size"]), int(best["window"]), spread
    )


def judge_method(law: str, name: str, promises: Sequence[Promise]) -> dict[str, Any]:
    """Return bias with its standard error, and coverage of 95 % intervals, of both figures."""
    found: dict[str, Any] = {"method": name, "histories": len(promises)}
    true = [true_figures(law, each.size, each.window) for each in promises]
    for figure in Figures._fields:
        truth = np.array([getattr(each, figure) for each in true])
        gaps = np.array([getattr(each.said, figure) for each in promises]) - truth
        widths = np.array([getattr(each.error, figure) for each in promises])
        found |= {
            f"true_{figure}": float(truth.mean()),
            f"{figure}_bias": float(gaps.mean()),
            f"{figure}_bias_error": float(gaps.std(ddof=1) / math.sqrt(len(gaps))),
            f"{figure}_coverage": float(np.mean(np.abs(gaps) <= 1.96 * widths)),
        }
        spreads = [
            [getattr(end, figure) for end in each.spread] for each in promises if each.spread
        ]
        if spreads:
            low, high = np.array(spreads).T
            is_inside = (low <= truth) & (truth <= high)
            found[f"{figure}_spread_coverage"] = float(np.mean(is_inside))
    return found


# ------------------------------------------------------------------------------------------ plain

LEVERAGES = np.linspace(0.1, 3.0, 30)


def measure_plain(histories: int) -> dict[str, dict[str, float]]:
    """Return the biases for constant leverages on the GBM, in NumPy alone, by method.

    It shares no code with the validations: a second computation of what ``truth`` measures.
    """
    rng = np.random.default_rng(0)
    found: dict[str, list[Figures]] = {name: [] for name in METHODS}
    for _ in range(histories):
        returns = np.expm1(draw_steps("gbm", 1, 1_460, rng)[0])
        logs = np.log1p(LEVERAGES[:, None] * returns)
        sums = np.concatenate((np.zeros((len(LEVERAGES), 1)), np.cumsum(logs, axis=1)), axis=1)
        best = int(np.argmax(sums[:, 1_095]))
        chosen = float(LEVERAGES[best])
        found["in sample"].append(measure_gap(chosen * returns[:1_095], chosen))
        found["holdout"].append(measure_gap(chosen * returns[1_095:], chosen))
        found["walk-forward"].append(walk_plainly(returns, sums))
        found["cross-validate"].append(cross_plainly(returns, sums))
    return {
        name: {
            f"{figure}_{what}": float(value)
            for figure, column in zip(Figures._fields, np.array(gaps).T, strict=True)
            for what, value in (
                ("bias", column.mean()),
                ("bias_error", column.std(ddof=1) / math.sqrt(histories)),
            )
        }
        for name, gaps in found.items()
    }


def measure_gap(held: np.ndarray, leverage: float) -> Figures:
    """Return growth and Sharpe ratio of daily returns, less the true ones of a leverage."""
    growth = float(np.log1p(held).mean()) * YEAR - gbm_growth(leverage)
    sharpe = float(held.mean() / held.std(ddof=1)) * math.sqrt(YEAR)
    return Figures(growth, sharpe - DRIFT / DEVIATION)


def walk_plainly(returns: np.ndarray, sums: np.ndarray) -> Figures:
    """Return the gaps of a walk: trained on 365 days, tested on 180."""
    held, chosen = [], 0.0
    for first in range(365, len(returns) - 20, 180):
        last = min(first + 180, len(returns))
        last = len(returns) if len(returns) - last < 20 else last
        chosen = float(LEVERAGES[np.argmax(sums[:, first] - sums[:, first - 365])])
        held.append(chosen * returns[first:last])
    return measure_gap(np.concatenate(held), chosen)


def cross_plainly(returns: np.ndarray, sums: np.ndarray) -> Figures:
    """Return the mean gaps of the five paths through six groups, two of them tested at a time."""
    edges = np.linspace(0, len(returns), 7).astype(int)
    groups = np.diff(sums[:, edges], axis=1)
    total = groups.sum(axis=1)
    pairs = list(itertools.combinations(range(6), 2))
    sizes = [LEVERAGES[np.argmax(total - groups[:, a] - groups[:, b])] for a, b in pairs]
    tested = [[size for size, pair in zip(sizes, pairs, strict=True) if g in pair]
              for g in range(6)]  # fmt: skip
    best = float(LEVERAGES[np.argmax(total)])
    paths = [
        np.concatenate([tested[g][path] * returns[edges[g] : edges[g + 1]] for g in range(6)])
        for path in range(5)
    ]
    gaps = np.array([measure_gap(held, best) for held in paths])
    return Figures(*gaps.mean(axis=0).tolist())


def main() -> None:
    """Print the chosen measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speed", "truth", "plain"])
    parser.add_argument("--bars", type=int, default=43_800)
    parser.add_argument("--sets", type=int, default=2_000)
    parser.add_argument("--folds", type=int, default=48)
    parser.add_argument("--paths", type=int, default=40, help="histories of each process")
    parser.add_argument("--days", type=int, default=1_460)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "speed":
        found: Any = measure_speed(given.bars, given.sets, given.folds)
    elif given.what == "plain":
        found = measure_plain(given.paths)
    else:
        found = measure_truth(given.models, given.paths, given.days, min(given.sets, 64))
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
