"""A policy tuned in a calm market and one tuned in a leverage cycle, both run in new cycles.

    python benchmarks/calm_and_cycle.py [--steps 3000] [--trials 60] [--seeds 3]

Calm is the market of a small bank, where the fixed point is stable; the cycle is that of a large
one. VolTarget is tuned for growth with ``bt.tune`` in each, and both winners run in cycles of
other seeds. Prints JSON: settings, growth, volatility, drawdown and liquidations.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from typing import Any

import numpy as np

import backtest as bt
from backtest.strategies import VolTarget

CALM = bt.agents.LeverageCycle(equity=0.01)
CYCLE = bt.agents.LeverageCycle()
ACCOUNT = bt.Account(capital=1_000_000.0)
MEASURES = ("cagr", "volatility", "max_drawdown", "liquidations")


def tune_in(market: bt.Market, venue: bt.Venue, trials: int) -> VolTarget:
    """Return the best settings in a market."""
    study = bt.tune(
        market, VolTarget, objective="cagr", trials=trials, holdout=None, sampler="random",
        venue=venue, account=ACCOUNT, seed=0, store=None,
    )  # fmt: skip
    names = VolTarget.parameters()
    return VolTarget(**{name: study.best[name] for name in names if name in study.best})


def run_in(policy: VolTarget, venue: bt.Venue, steps: int, seeds: range) -> dict[str, Any]:
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
    for name, agents in (("calm", CALM), ("cycle", CYCLE)):
        home = bt.simulate_market(agents, steps=given.steps, seed=0).market
        policy = tune_in(home, venue, given.trials)
        at_home = bt.run(home, policy, venue=venue, account=ACCOUNT).metrics
        found[f"tuned in {name}"] = {
            "at home": {each: at_home[each] for each in MEASURES},
            "in new cycles": run_in(policy, venue, given.steps, range(1, 1 + given.seeds)),
        }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
