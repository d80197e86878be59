"""How often the intervals of a comparison hold the true difference, on simulated accounts.

    python benchmarks/intervals.py [--days 500,2000] [--pairs 1000] [--kinds normal,following,...]

Pairs of accounts correlated at 0.7: one earns 0.1 % a day at a daily volatility of 2 %, the other
nothing at 1.5 %. Prints JSON: for each kind of returns, length and measure, the share of the 95 %
intervals of ``bt.compare`` that hold the true difference, with its standard error. Some pairs share
resampled histories, to save time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any

import numpy as np

from backtest.core import FloatArray
from backtest.results import Sampled, compare_pairs
from backtest.results.differences import STATISTICS

KINDS = {
    "normal": "independent, normal",
    "following": "AR(1) at 0.3",
    "volatile": "GARCH(1, 1) with 0.1 and 0.85",
    "persistent": "GARCH(1, 1) with 0.06 and 0.93",
    "tails": "independent, Student's t with 3 degrees of freedom",
}
GARCH = {"volatile": (0.1, 0.85), "persistent": (0.06, 0.93)}
MEAN = np.array([[0.001], [0.0]])
DEVIATION = np.array([[0.02], [0.015]])
CORRELATION = 0.7
WARM_UP = 1_500
LONG = (2_000, 2_000)
"""Pairs and days by which the true measures are known."""


def make_noise(kind: str, pairs: int, n: int, rng: np.random.Generator) -> FloatArray:
    """Return independent series with mean 0 and variance 1, of shape (2, pairs, n)."""
    shape = (WARM_UP + n, 2, pairs)
    if kind == "tails":
        steps = rng.standard_t(3, shape) / np.sqrt(3.0)
    else:
        steps = rng.standard_normal(shape)

    if kind == "following":
        for t in range(1, len(steps)):
            steps[t] = 0.3 * steps[t - 1] + np.sqrt(1.0 - 0.09) * steps[t]

    if kind in GARCH:
        shock, memory = GARCH[kind]
        variance = np.ones((2, pairs))
        for t in range(1, len(steps)):
            variance = 1.0 - shock - memory + shock * steps[t - 1] ** 2 + memory * variance
            steps[t] *= np.sqrt(variance)

    return np.moveaxis(steps[WARM_UP:], 0, 2)


def make_pairs(kind: str, pairs: int, n: int, rng: np.random.Generator) -> FloatArray:
    """Return the returns of pairs of correlated accounts over n days, of shape (2, pairs, n)."""
    one, other = make_noise(kind, pairs, n, rng)
    mixed = np.array([one, CORRELATION * one + np.sqrt(1.0 - CORRELATION**2) * other])
    return np.maximum(MEAN[:, None] + DEVIATION[:, None] * mixed, -0.9)


def sample(returns: FloatArray) -> Sampled:
    """Return accounts of a market that never closes, sampled by day."""
    return Sampled(returns, np.zeros(returns.shape[1]), per_year=365.0, periods=365.0)


def find_truth(kind: str, rng: np.random.Generator) -> dict[str, float]:
    """Return the true differences, by measure."""
    sampled = sample(make_pairs(kind, *LONG, rng).reshape(2, -1))
    true = {
        name: each.scale(sampled) * float(-np.diff(each.estimate(each.read(sampled))[0])[0])
        for name, each in STATISTICS.items()
    }
    return true | {"sharpe": 0.05 * np.sqrt(365.0)}


def count_held(
    returns: FloatArray, true: dict[str, float], draws: int, seed: int
) -> dict[str, int]:
    """Return how many intervals of pairs that share histories hold the true difference."""
    count = returns.shape[1]
    sampled = sample(returns.reshape(2 * count, -1))
    pairs = np.stack([np.arange(count), count + np.arange(count)], axis=1)

    held = {}
    for name in STATISTICS:
        rng = np.random.default_rng(seed)

        found = compare_pairs(sampled, pairs, name, confidence=0.95, draws=draws, rng=rng)
        held[name] = int(np.sum((found.low <= true[name]) & (true[name] <= found.high)))
    return held


def measure_coverage(
    kind: str, days: int, true: dict[str, float], given: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row per measure."""
    rng = np.random.default_rng([1, days, list(KINDS).index(kind)])

    held = dict.fromkeys(STATISTICS, 0)
    for first in range(0, given.pairs, given.together):
        returns = make_pairs(kind, min(given.together, given.pairs - first), days, rng)
        for name, count in count_held(returns, true, given.draws, first).items():
            held[name] += count
    rows = []

    for name, count in held.items():
        share = count / given.pairs
        error = math.sqrt(share * (1.0 - share) / given.pairs)
        rows.append(
            {"returns": KINDS[kind], "days": days, "measure": name, "pairs": given.pairs,
             "coverage": round(share, 4), "standard_error": round(error, 4)}
        )  # fmt: skip
    return rows


def read_flags(words: list[str] | None = None) -> argparse.Namespace:
    """Return the flags of the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", default="500,2000")
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--draws", type=int, default=399)
    parser.add_argument("--together", type=int, default=10, help="pairs that share histories")
    return parser.parse_args(words)


def main() -> int:
    """Print the coverage of all cells as JSON, and each row on stderr once it is known."""
    given = read_flags()
    rows = []
    for kind in given.kinds.split(","):
        true = find_truth(kind, np.random.default_rng(0))

        for days in map(int, given.days.split(",")):
            found = measure_coverage(kind, days, true, given)
            told = ", ".join(f"{row['measure']} {row['coverage']:.1%}" for row in found)
            print(f"{KINDS[kind]}, {days} days: {told}", file=sys.stderr, flush=True)  # noqa: T201

            rows += found
    print(json.dumps({"confidence": 0.95, "draws": given.draws, "rows": rows}, indent=1))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
