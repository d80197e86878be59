"""How many seeds of the default search come near the best that any of them finds. Prints JSON.

    python benchmarks/restarts.py [--data ../shared/data] [--seeds 20] [--only eth ltc btc ...]
        [--until SCORE]

Budgets are numbers of sets, so that the answer does not depend on the machine: what ten quiet
seconds of two cores evaluate (``btc``: two seconds), and a tenth of it. The problems:

* ``eth``: the highest Calmar ratio of a volatility target on ETHUSDT, hourly, 2020 to 2023;
* ``ltc``: the highest growth of the same policy on LTCUSDT, with a drawdown of 60 % at most;
* ``btc``: its highest Sharpe ratio on BTCUSDT, four-hourly, with a drawdown of 50 % at most;
* ``sample``: the problem of ``benchmarks/tune.py``;
* ``kelly``: the highest growth of Kelly on BTCUSDT, hourly, with a drawdown of 40 % at most.

Regret is (best ever - best so far) / best ever, in percent; best ever is that of all seeds. With
``--until``, a seed ends once it has found this score, to save time: its regret is an upper bound.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tune import ACCOUNT, MARKET_SEED, OBJECTIVE, SPACE, VENUE, load, make_market

import backtest as bt
from backtest.measures import read_constraints, read_objectives, total_violation
from backtest.strategies import Kelly, VolTarget
from backtest.sweep import Evaluator, read_space
from backtest.tune.samplers import make_sampler

ETH_SPACE = {
    "target": (0.1, 2.0),
    "half_life": (2.0, 2000.0),
    "account.max_leverage": (1.0, 10.0),
    "account.band": (0.0, 0.3),
}
NEAR = 0.5
"""Percent of regret that count as found."""


class Problem(NamedTuple):
    """What is to be found, and how many sets ten seconds evaluate."""

    market: bt.Market
    policy: type[bt.Policy]
    venue: bt.Venue
    space: dict[str, Any] | None
    objective: str
    constraints: dict[str, str]
    budget: int


def make_eth(data: Path) -> Problem:
    """Return the volatility target on ETHUSDT."""
    venue = bt.Venue.preset("binance-usdm", "ETHUSDT")
    market = load(data, "perps-1h", "ETH")
    return Problem(market, VolTarget, venue, ETH_SPACE, "calmar", {}, 80_000)


def make_sample(data: Path) -> Problem:  # noqa: ARG001 - as the others
    """Return the problem of benchmarks/tune.py."""
    market = make_market(61_320, MARKET_SEED)
    return Problem(market, VolTarget, VENUE, SPACE, OBJECTIVE, {}, 50_000)


def make_ltc(data: Path) -> Problem:
    """Return the volatility target on LTCUSDT, with a limit of its drawdown."""
    market = load(data, "perps-1h", "LTC", "2020-02-01")
    bounds = {"max_drawdown": "<= 0.6"}
    return Problem(market, VolTarget, VENUE, ETH_SPACE, "cagr", bounds, 80_000)


def make_btc(data: Path) -> Problem:
    """Return the volatility target on four-hourly bars of BTCUSDT."""
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    market = load(data, "btc-usdm-1h", "BTC").resample("4h")
    bounds = {"max_drawdown": "<= 0.5"}
    return Problem(market, VolTarget, venue, ETH_SPACE, "sharpe", bounds, 40_000)


def make_kelly(data: Path) -> Problem:
    """Return Kelly on BTCUSDT."""
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    market = load(data, "btc-usdm-1h", "BTC")
    return Problem(market, Kelly, venue, None, "cagr", {"max_drawdown": "<= 0.4"}, 10_000)


PROBLEMS: dict[str, Callable[[Path], Problem]] = {
    "eth": make_eth,
    "ltc": make_ltc,
    "btc": make_btc,
    "sample": make_sample,
    "kelly": make_kelly,
}


def climb(problem: Problem, seeds: int, marks: list[int], until: float) -> np.ndarray:
    """Return the best so far after some numbers of sets, of shape (seeds, len(marks)).

    A seed ends once it has found a score of ``until``.
    """
    base = {"venue": problem.venue, "account": ACCOUNT}
    space = read_space(problem.policy, problem.space, **base)
    evaluator = Evaluator(problem.market, problem.policy, metrics="core", **base)
    (objective,) = read_objectives(problem.objective)
    constraints = read_constraints(problem.constraints)
    best = np.full((seeds, len(marks)), -math.inf)
    for seed in range(seeds):
        sampler, done = make_sampler("auto", space, seed=seed), 0
        while done < marks[-1] and best[seed, -1] < until and len(cube := sampler.ask()):
            metrics = evaluator.evaluate(space.decode(cube)).metrics
            broken = total_violation(constraints, metrics)
            violation = np.where(metrics["ruined"] > 0, np.inf, broken)
            score = objective.score(metrics)
            sampler.tell(cube, score, violation)
            is_kept = (violation == 0.0) & np.isfinite(score)
            found = np.max(score[is_kept], initial=-math.inf)
            done += len(cube)
            late = np.array(marks) >= min(done, marks[-1])
            best[seed, late] = np.maximum(best[seed, late], found)
        sys.stderr.write(f"seed {seed}: {best[seed].tolist()} after {done} sets\n")
    return best


def report(best: np.ndarray, marks: list[int]) -> dict[str, Any]:
    """Return the regrets, and how many seeds came near."""
    ever = float(best.max())
    regret = 100.0 * (ever - best) / abs(ever)
    return {
        "best_ever": ever,
        "sets": marks,
        "median_regret": np.median(regret, axis=0).tolist(),
        "found": int((regret[:, -1] <= NEAR).sum()),
        "seeds": len(best),
        "regrets": regret[:, -1].round(4).tolist(),
    }


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--budget", type=int, help="sets instead of what ten seconds evaluate")
    parser.add_argument("--until", type=float, default=math.inf, help="end a seed at this score")
    wanted = parser.parse_args()
    found = {}
    for name in wanted.only:
        problem = PROBLEMS[name](wanted.data)
        budget = wanted.budget or problem.budget
        marks = [budget // 10, budget]
        found[name] = report(climb(problem, wanted.seeds, marks, wanted.until), marks)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
