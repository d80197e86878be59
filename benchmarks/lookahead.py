"""What the check for looking ahead costs in sweeps and runs. Prints JSON.

    python benchmarks/lookahead.py [--bars 35064] [--sets 64] [--repeat 3] [--only NAME ...]

For each policy, in milliseconds of processor time: the check before a sweep of so many sets drawn
from its declared ranges, the sweep itself without the check (core measures, one thread), the check
of a single run with defaults, and that run. A check may cost a quarter of what it checks, or 50 ms,
whichever is more. Each figure is the least of the repeats; what compiles is warmed up before, and
fits that are kept by their content are there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable

import backtest as bt
from backtest import strategies
from backtest.engine import check_causality, observe
from backtest.policy import find_policies
from backtest.sweep import Evaluator, draw_sets, read_space

POLICIES = (
    "HealthTarget",
    "Kelly",
    "Ladder",
    "LeverageLoop",
    "LiquidationProbability",
    "MarginBuffer",
    "Regime",
    "SharpeScaling",
    "TailRisk",
    "TrendVol",
    "VolTarget",
)
SHARE, LEAST = 0.25, 50.0
TERMS = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}


def take_time(call: Callable[[], object]) -> float:
    """Return the milliseconds of processor time that a call takes."""
    begin = time.process_time()
    call()
    return 1e3 * (time.process_time() - begin)


def measure_sweep(market: bt.Market, policy: type[bt.Policy], n: int) -> tuple[float, float]:
    """Return the milliseconds of the check and of the sweep."""
    space = read_space(policy, account=TERMS["account"], venue=TERMS["venue"])
    sets = draw_sets(space, n, seed=0)
    evaluator = Evaluator(market, policy, **TERMS, metrics="core", threads=1)
    check = take_time(lambda: evaluator.check_causal(sets))
    sweep = take_time(lambda: evaluator.evaluate(sets))
    return check, sweep


def measure_run(market: bt.Market, policy: bt.Policy) -> tuple[float, float]:
    """Return the milliseconds of the check of a run, and of the run without it."""
    observe(policy, market)  # keeps its fits
    check = take_time(lambda: check_causality(policy, market))
    return check, take_time(lambda: bt.run(market, policy, **TERMS)) - check


def judge(check: float, whole: float) -> dict[str, float | bool]:
    """Return what a check costs, what it may cost, and whether it is within."""
    allowed = max(SHARE * whole, LEAST)
    found = {"check_ms": check, "rest_ms": whole, "allowed_ms": allowed}
    return {name: round(each, 1) for name, each in found.items()} | {"is_met": check <= allowed}


def main() -> int:
    """Measure the policies named; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bars", type=int, default=35_064)
    parser.add_argument("--sets", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=POLICIES)
    asked = parser.parse_args()
    market = bt.Market.sample(bars=asked.bars)
    known = {each.__name__: each for each in find_policies(strategies)}
    found = {}
    for name in asked.only:
        policy = known[name]
        sweeps, runs = [(math.inf, math.inf)], [(math.inf, math.inf)]
        for k in range(asked.repeat + 1):
            one, other = measure_sweep(market, policy, asked.sets), measure_run(market, policy())
            if k or not asked.repeat:
                sweeps.append(one)
                runs.append(other)
        found[name] = {
            "sweep": judge(min(each[0] for each in sweeps), min(each[1] for each in sweeps)),
            "run": judge(min(each[0] for each in runs), min(each[1] for each in runs)),
        }
    sys.stdout.write(json.dumps({"bars": asked.bars, "sets": asked.sets, **found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
