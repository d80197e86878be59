"""A policy tuned in calm history and one tuned over whole leverage cycles, run in new cycles.

    python benchmarks/calm_and_cycle.py [--steps 3000] [--trials 60] [--seeds 3]

Calm history is the longest time between two crashes of a leverage cycle, in which prices rise
slowly and the bank's leverage is over its median; the other history is all of that market, crashes
included. The leverage of Constant is tuned for growth with ``bt.tune`` in each, and both winners
run in cycles of other seeds. Prints JSON: settings, growth, volatility, drawdown, liquidations and
the share of accounts that were ruined.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import Any

import numpy as np

import backtest as bt
from backtest.strategies import Constant

SPACE = {"leverage": (0.5, 20.0)}
CYCLE = bt.agents.LeverageCycle(a_0=1e-4)
ACCOUNT = bt.Account(capital=1_000_000.0)
MEASURES = ("cagr", "volatility", "max_drawdown", "liquidations", "ruined")


def tune_in(market: bt.Market, venue: bt.Venue, trials: int) -> Constant:
    """Return the best settings in a market."""
    study = bt.tune(
        market, Constant, objective="cagr", trials=trials, holdout=None, sampler="random",
        space=SPACE, robust=False,
        venue=venue, account=ACCOUNT, seed=0, store=None,
    )  # fmt: skip
    return Constant(**{name: float(study.best[name]) for name in SPACE})


def find_calm(sim: bt.SimulatedMarket) -> bt.Market:
    """Return the longest part of a market in which the bank's leverage is over its median."""
    bank = sim.leverage["bank"].to_numpy()
    edges = np.flatnonzero(np.diff(np.concatenate(([0], bank > np.median(bank), [0]))))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return sim.market.slice(int(starts[longest]), int(ends[longest]))


def run_in(policy: Constant, venue: bt.Venue, steps: int, seeds: range) -> dict[str, Any]:
    """Return the mean measures of a policy in cycles of some seeds."""
    rows = []
    for seed in seeds:
        market = bt.simulate_market(CYCLE, steps=steps, seed=seed).market
        metrics = bt.run(market, policy, venue=venue, account=ACCOUNT).metrics
        rows.append([metrics[name] for name in MEASURES])
    means = np.mean(np.array(rows), axis=0).tolist()
    return {"settings": repr(policy), **dict(zip(MEASURES, means, strict=True))}


def main() -> None:
    """Print what survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    venue = bt.Venue.simple(taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=50,
                            liquidation_fee=0.005)  # fmt: skip
    found: dict[str, Any] = dict(vars(given))
    whole = bt.simulate_market(CYCLE, steps=given.steps, seed=0)
    for name, home in (("calm", find_calm(whole)), ("cycles", whole.market)):
        policy = tune_in(home, venue, given.trials)
        at_home = bt.run(home, policy, venue=venue, account=ACCOUNT).metrics
        found[f"tuned in {name}"] = {
            "bars": home.n_bars,
            "at home": {each: at_home[each] for each in MEASURES},
            "in new cycles": run_in(policy, venue, given.steps, range(1, 1 + given.seeds)),
        }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
