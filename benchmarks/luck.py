"""How well `bt.tune` knows the luck of its best set, on markets in which no set has skill.

    python benchmarks/luck.py [--paths 42] [--sets 240] [--only Lever VolTarget TrendVol]

Each history has 1,460 days of a random walk without drift, costs or interest, so that the true
Sharpe ratio of every set is 0. Each policy is tuned for the highest Sharpe ratio, ``robust=False``,
on the first three years. Prints JSON, a row per policy: the mean over histories of the highest
Sharpe ratio that was found, with its standard error, and of the one that the study expected by luck
alone (``lucky``); the sets tried and the independent ones that they are worth; and the share of
histories with a deflated Sharpe ratio of 0.95 or more, each a false claim.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from typing import Any

import numpy as np
from known_truth import FREE, Lever, simulate

import backtest as bt
from backtest.strategies import TrendVol, VolTarget

POLICIES: dict[str, type[bt.Policy]] = {
    "Lever": Lever, "VolTarget": VolTarget, "TrendVol": TrendVol,
}  # fmt: skip


def measure_policy(name: str, paths: int, sets: int, days: int) -> dict[str, Any]:
    """Return what searches found and expected, means over histories."""
    found = []
    for path in range(paths):
        market = simulate("driftless", days, np.random.default_rng([5, path]))
        verdict = bt.tune(
            market, POLICIES[name], objective="sharpe", trials=sets, robust=False, seed=path, **FREE
        ).verdict
        found.append(
            (verdict.sharpe, verdict.lucky_sharpe, verdict.trials, verdict.effective_trials,
             float(verdict.deflated_sharpe >= 0.95))
        )  # fmt: skip
    table = np.array(found)
    names = ("highest", "lucky", "trials", "independent", "false_claims")
    means = dict(zip(names, table.mean(axis=0).tolist(), strict=True))
    error = float(table[:, 0].std(ddof=1) / math.sqrt(paths))
    return {"policy": name, "histories": paths, "highest_error": error, **means}


def main() -> None:
    """Print the rows as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--paths", type=int, default=42)
    parser.add_argument("--sets", type=int, default=240)
    parser.add_argument("--days", type=int, default=1_460)
    parser.add_argument("--only", nargs="*", default=list(POLICIES), choices=list(POLICIES))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [measure_policy(name, given.paths, given.sets, given.days) for name in given.only]
    json.dump({"rows": rows}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
