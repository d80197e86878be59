"""Aymanns, Caccioli, Farmer and Tan (2016): the Basel leverage cycle.

    python benchmarks/replications/basel_cycle.py [--steps 2100] [--seeds 5]

The paper reports three regions (stable, cycling, globally unstable), a period of 10 to 15 years,
and a critical leverage that falls as the bank grows. The period is the mean time between falls of
the bank's leverage under 0.6 of its median; it is held to the middle of the range, give or take
half of it and a chance of one year. The critical leverages, from the eigenvalues of the map at its
fixed point, have no published numbers.

Source: Aymanns, Caccioli, Farmer and Tan (2016), Taming the Basel Leverage Cycle, Journal of
Financial Stability 27; Aymanns and Farmer (2015), The Dynamics of the Leverage Cycle, Journal of
Economic Dynamics and Control 50.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from comparison import Row, write

import backtest as bt
from backtest.crowd.bank_fund_stability import find_critical_leverage

SIZES = (0.05, 0.1, 0.5, 1.0, 2.27, 5.0)
LOW, HIGH = 10.0, 15.0


def find_period(steps: int, seed: int) -> float:
    """Return the mean years between deleveragings."""
    agents = bt.agents.LeverageCycle()
    leverage = bt.simulate_market(agents, steps=steps, seed=seed).leverage["bank"].to_numpy()
    is_low = leverage < 0.6 * np.median(leverage)
    return steps * agents.tau / max(1, int(np.sum(is_low[1:] & ~is_low[:-1])))


def replicate(steps: int = 2_100, seeds: int = 5) -> list[Row]:
    """Return the period and the critical leverages."""
    period = float(np.mean([find_period(steps, seed) for seed in range(seeds)]))
    slack = 0.5 * (HIGH - LOW) + 1.0 if steps >= 2_000 else math.nan
    rows = [Row("years between crashes, paper 10 to 15", period, 0.5 * (LOW + HIGH), slack)]
    critical = [
        find_critical_leverage(bt.agents.LeverageCycle(equity=size, noise=False)) for size in SIZES
    ]
    rows += [
        Row(f"critical leverage, equity {size:g}", each, math.nan)
        for size, each in zip(SIZES, critical, strict=True)
    ]
    falls = float(all(np.diff(critical) < 0.0))
    return [*rows, Row("it falls as the bank grows", falls, 1.0, 0.0)]


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=2_100)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    title = "Basel leverage cycle, Aymanns, Caccioli, Farmer and Tan (2016)"
    rows = replicate(given.steps, given.seeds)
    write(title, rows, vars(given), against="paper's statement")


if __name__ == "__main__":
    main()
