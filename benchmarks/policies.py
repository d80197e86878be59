"""What each policy of the library costs, in a run and in a sweep. Prints a table and JSON.

    python benchmarks/policies.py [--data FOLDER] [--bars 61320] [--sets 512] [--only NAME ...]

Without a folder of hourly bars (``--data``, cut to 2020 to 2023) the market is synthetic. Every
policy is run once, recorded, and swept on one thread in two ways: over parameters that only its
formula reads, with one estimate for all sets, and over draws from all its declared numbers, where
every set has estimates of its own. Before anything is timed, rows must equal single runs bit for
bit. Nanoseconds are per bar, and per bar and set; "times" is over Constant.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any, NamedTuple

import numpy as np

import backtest as bt
from backtest import strategies
from backtest.base import Choice
from backtest.policy import find_policies
from backtest.sweep import Evaluator
from backtest.sweep.policy_columns import find_reads

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(band=0.05, max_leverage=10.0)
PARITY_BARS = 3_000


class Cost(NamedTuple):
    """Nanoseconds of one policy; NaN where there is nothing to vary."""

    run: float
    formula: float
    estimates: float


def instances() -> dict[str, bt.Policy]:
    """Return every policy of the library with its defaults; combinators over the plainest ones."""
    inner = (strategies.Constant(2.0), strategies.VolTarget())
    found: dict[str, bt.Policy] = {}
    for cls in find_policies(strategies):
        if issubclass(cls, bt.Combinator):
            found[cls.__name__] = cls(*inner[-cls.takes[0] :])
        else:
            found[cls.__name__] = cls()
    return found


def draw(market: bt.Market, policy: bt.Policy, n: int, *, is_formula: bool) -> dict[str, Any]:
    """Return n sets of the policy's numbers: those its columns do not read, or all of them."""
    read = find_reads(policy, "observe", market)
    rng = np.random.default_rng(0)
    sets = {}
    for name, parameter in type(policy).parameters().items():
        space = parameter.space
        if space is None or isinstance(space, Choice) or (is_formula and name in read):
            continue
        high = min(space.high, max(10.0 * abs(float(policy.settings()[name])), space.low + 1.0))
        if not np.isfinite(high):
            high = max(10.0, 2.0 * space.low)
        values = rng.uniform(space.low, high, n)
        if space.log:
            values = np.exp(rng.uniform(np.log(space.low), np.log(high), n))
        sets[name] = np.round(values) if parameter.kind is int else values
    return sets


def build(market: bt.Market, policy: bt.Policy) -> Evaluator:
    """Return what scores a policy's sets, on one thread."""
    return Evaluator(
        market, policy, venue=VENUE, account=ACCOUNT, metrics="core", threads=1, memory="4GiB"
    )


def check_parity(market: bt.Market, name: str, policy: bt.Policy) -> None:
    """Compare rows of a sweep with single runs bit for bit; raise where one differs."""
    evaluator = build(market, policy)
    sets = draw(market, policy, 70, is_formula=False)
    if not sets:
        return
    rows = evaluator.evaluate(sets)
    for k in (k for k in (0, 33, 69) if not rows.errors[k]):
        result = evaluator.replay({key: values[k] for key, values in sets.items()})
        for metric, column in rows.metrics.items():
            if not np.array_equal(column[k], result.metrics[metric], equal_nan=True):
                raise SystemExit(f"{name}, set {k}, {metric}: the sweep differs from the run")


def time_sweep(market: bt.Market, policy: bt.Policy, sets: dict[str, Any], repeat: int) -> float:
    """Return nanoseconds per bar and set, the best of some sweeps."""
    if not sets:
        return float("nan")
    evaluator = build(market, policy)
    evaluator.evaluate({name: values[:64] for name, values in sets.items()})
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        evaluator.evaluate(sets)
        best = min(best, time.perf_counter() - start)
    return best / market.n_bars / len(next(iter(sets.values()))) * 1e9


def time_run(market: bt.Market, policy: bt.Policy, repeat: int) -> float:
    """Return nanoseconds per bar of a recorded run with its measures, the best of some."""
    best = float("inf")
    for k in range(repeat + 1):
        start = time.perf_counter()
        bt.run(market, policy, venue=VENUE, account=ACCOUNT).metrics  # noqa: B018 - worked out there
        best = min(best, time.perf_counter() - start) if k else best
    return best / market.n_bars * 1e9


def measure(market: bt.Market, policy: bt.Policy, n_sets: int, repeat: int) -> Cost:
    """Return what a policy costs."""
    return Cost(
        time_run(market, policy, repeat),
        time_sweep(market, policy, draw(market, policy, n_sets, is_formula=True), repeat),
        time_sweep(market, policy, draw(market, policy, n_sets, is_formula=False), repeat),
    )


def main() -> None:
    """Measure, and print a table on the terminal's side and JSON on the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data")
    parser.add_argument("--bars", type=int, default=61_320)
    parser.add_argument("--sets", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*")
    wanted = parser.parse_args()
    if wanted.data:
        market = bt.Market.load(wanted.data, between=("2020-01-01", "2024-01-01"))
    else:
        market = bt.Market.sample(bars=wanted.bars)
    # no real data at hand has an implied volatility: its cost is that of a column
    market = market.with_columns(implied_volatility=0.5 + 10.0 * np.log(market.high / market.low))
    policies = {k: v for k, v in instances().items() if not wanted.only or k in wanted.only}
    base = measure(market, strategies.Constant(), wanted.sets, wanted.repeat)
    rows = {}
    sys.stderr.write(f"{'policy':24}{'run':>8}{'formula':>10}{'times':>7}{'all':>10}{'times':>7}\n")
    for name, policy in policies.items():
        check_parity(market.prefix(min(PARITY_BARS, market.n_bars)), name, policy)
        cost = measure(market, policy, wanted.sets, wanted.repeat)
        rows[name] = {
            "run_ns_per_bar": cost.run,
            "formula_ns_per_bar_and_set": cost.formula,
            "all_ns_per_bar_and_set": cost.estimates,
            "formula_times_constant": cost.formula / base.formula,
            "all_times_constant": cost.estimates / base.formula,
        }
        sys.stderr.write(
            f"{name:24}{cost.run:8.0f}{cost.formula:10.2f}{cost.formula / base.formula:7.1f}"
            f"{cost.estimates:10.2f}{cost.estimates / base.formula:7.1f}\n"
        )
    report = {"market": str(market), "bars": market.n_bars, "sets": wanted.sets, "policies": rows}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
