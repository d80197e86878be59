"""Hedge options on simulated paths, and compare what they earn with theory.

    python benchmarks/hedging_error.py [--paths 2000] [--steps 16 --steps 64 --steps 256]

A call at the money of 30 days on driftless geometric Brownian motion of 60 % volatility, bought and
hedged at each close by `DeltaHedge` without costs. All profits are those of accounts of `bt.run`;
the paths of a block share one account. Prints JSON:

- hedged at the true volatility: the mean, which is 0 in theory, and the standard deviation of the
  error beside that of Bertsimas, Kogan and Lo (2000), theorem 1: a constant over the root of the
  number of steps. Each step errs by gamma S^2 sigma^2 dt (z^2 - 1) / 2 (Boyle and Emanuel 1980);
- bought and hedged at a wrong volatility: the mean beside that of the sum over each path of
  gamma S^2 (sigma^2 - implied^2) dt / 2, and beside the difference of the two prices.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest import options
from backtest.options import SVI, Surface, Surfaces
from backtest.strategies import Constant, DeltaHedge

SPOT, DAYS, SIGMA = 20_000.0, 30.0, 0.6
YEARS = DAYS / 365.0
START = pd.Timestamp("2023-01-01", tz="UTC")
FREE = bt.OptionCosts(fee=0, fee_cap=1, delivery_fee=0, delivery_cap=1, tick=0, spread=0, lot=0)
ALWAYS = DeltaHedge(Constant(0.0), band=0.0)
FINEST = 256
"""The steps of the paths; those of fewer steps are the same ones, seen less often."""


def simulate(n: int, n_paths: int, finest: int = FINEST, seed: int = 4) -> np.ndarray:
    """Return paths of n steps over the days of the call: driftless geometric Brownian motions."""
    moves = np.random.default_rng(seed).normal(0.0, 1.0, (n_paths, finest))
    moves = moves.reshape(n_paths, n, finest // n).sum(axis=2) * math.sqrt(YEARS / finest)
    drifts = -0.5 * SIGMA**2 * YEARS * np.arange(n + 1) / n
    return SPOT * np.exp(np.pad(SIGMA * moves.cumsum(axis=1), ((0, 0), (1, 0))) + drifts)


def make_market(path: np.ndarray) -> bt.Market:
    """Return bars from one price of a path to the next, after two quiet ones."""
    prices = np.concatenate(([path[0]] * 2, path))
    time = START + pd.Timedelta(days=DAYS) / (len(path) - 1) * np.arange(len(prices) - 1)
    bars = pd.DataFrame({"open": prices[:-1], "close": prices[1:], "volume": 0.0}, index=time)
    ends = bars[["open", "close"]]
    return bt.Market.from_frames(bars.assign(high=ends.max(axis=1), low=ends.min(axis=1)))


def make_flat(volatility: float) -> Surfaces:
    """Return one flat surface, an hour before the first bar."""
    time = START - pd.Timedelta(hours=1)
    years = np.array([7.0, 30.0]) / 365.0
    expiries = [time + pd.Timedelta(days=days) for days in (7, 30)]
    fits = pd.DataFrame({"expiry": expiries, "years": years, "forward": SPOT})

    smiles = tuple(SVI(volatility**2 * t, 0.0, 0.0, 0.0, 0.1) for t in years)
    none = pd.DataFrame()
    surface = Surface(time, "A", "svi", smiles, fits, none, SPOT, "cash", none, None)
    return Surfaces((surface,), pd.DataFrame(columns=["time", "reason"]))


def hedge(
    paths: np.ndarray,
    implied: float,
    policy: bt.Policy = ALWAYS,
    *,
    kind: str = "linear",
    quantity: float = 1.0,
) -> bt.Result:
    """Return an account that holds a call at the money on each path, without any cost.

    It is bought in the first quiet bar and hedged from the end of the second on; it expires with
    the path.
    """
    markets: dict[str, Any] = {f"A{i}": make_market(path) for i, path in enumerate(paths)}
    first = markets["A0"]
    expiry = str(first.times[-1] + (first.times[1] - first.times[0]))

    names = [*markets]
    settlement = "coin" if kind == "inverse" else "cash"
    for name in names:
        markets[f"C{name}"] = bt.Option(
            kind="call", strike=SPOT, underlying=name, expiry=expiry, settlement=settlement
        )

    surfaces = dict.fromkeys(names, make_flat(implied))
    listed = bt.Markets(markets, surfaces=surfaces, max_age="400d", currency="USD")
    venue = bt.Venue.simple(
        taker=0, slippage=0, maintenance_rate=0.005, max_leverage=50, liquidation_fee=0
    ).override({"option_costs": FREE, "contract": bt.Contract(kind=kind, size=1e-6, lot=0.0)})

    capital = 100.0 if kind == "inverse" else 1e7
    account = bt.Account(capital=capital, requirement="deribit-standard")
    calls = [f"C{name}" for name in names]
    return bt.run(
        listed, policy, venue=venue, account=account, compile=False,
        option_quantities=pd.DataFrame(quantity, index=first.times[:1], columns=calls),
    )  # fmt: skip


def find_gains(result: bt.Result, n: int) -> np.ndarray:
    """Return what call and hedge made on each path after the quiet bars."""
    rows = result.positions[result.positions["time"] > result.bars.index[1]]
    gains = rows.groupby(rows["instrument"].astype(str).str.removeprefix("C"))["price_pnl"].sum()
    return np.array([gains[f"A{i}"] for i in range(n)])


def collect_gains(paths: np.ndarray, implied: float, block: int) -> np.ndarray:
    """Return the gains on all paths, in accounts of some paths each."""
    parts = [paths[first : first + block] for first in range(0, len(paths), block)]
    return np.concatenate([find_gains(hedge(each, implied), len(each)) for each in parts])


def compute_error(n: int) -> float:
    """Return the standard deviation of the hedging error of n steps, by the limit theorem.

    The variance is the mean over paths of the sum of (gamma S^2 sigma^2 dt)^2 / 2.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)

    # Prices at 2,000 times, at the quantiles of a normal distribution.
    times = (np.arange(2_000) + 0.5) / 2_000 * YEARS
    shifts = SIGMA * np.sqrt(times)[:, None] * nodes - 0.5 * SIGMA**2 * times[:, None]
    spots = SPOT * np.exp(shifts)

    # Gamma of the call at each, by Black's formula.
    left = (YEARS - times)[:, None]
    d1 = np.log(spots / SPOT) / (SIGMA * np.sqrt(left)) + 0.5 * SIGMA * np.sqrt(left)
    gammas = np.exp(-0.5 * d1**2) / math.sqrt(2 * math.pi) / (spots * SIGMA * np.sqrt(left))

    # The mean over paths, then over times.
    squared = ((gammas * spots**2 * SIGMA**2) ** 2 * weights).sum(axis=1) / weights.sum()
    return math.sqrt(0.5 * squared.mean() * YEARS * YEARS / n)


def integrate_gamma(paths: np.ndarray, implied: float) -> np.ndarray:
    """Return half of the sum of gamma S^2 (sigma^2 - implied^2) dt of each path."""
    n = paths.shape[1] - 1
    left = YEARS * (1.0 - np.arange(n) / n)
    gamma = options.greeks("call", paths[:, :-1], SPOT, left, implied).gamma
    return 0.5 * (gamma * paths[:, :-1] ** 2).sum(axis=1) * (SIGMA**2 - implied**2) * YEARS / n


def describe_mean(values: np.ndarray) -> dict[str, float]:
    """Return the mean, its standard error, and how many of them it is from 0."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return {
        "mean": float(values.mean()),
        "standard_error": error,
        "in_errors": float(values.mean()) / error,
    }


def describe_true(n: int, n_paths: int, block: int, seed: int) -> dict[str, Any]:
    """Return the error of n steps hedged at the true volatility."""
    gains = collect_gains(simulate(n, n_paths, seed=seed), SIGMA, block)
    deviation = float(gains.std(ddof=1))
    expected = compute_error(n)
    squares = (gains - gains.mean()) ** 2
    spread = float(squares.std(ddof=1)) / math.sqrt(n_paths) / (2.0 * deviation)
    return {
        "steps": n, **describe_mean(gains), "deviation": deviation, "its_error": spread,
        "by_theorem": expected, "times_root_of_steps": deviation * math.sqrt(n),
    }  # fmt: skip


def describe_wrong(implied: float, n: int, n_paths: int, block: int, seed: int) -> dict[str, Any]:
    """Return what a call earns that is bought and hedged at a wrong volatility."""
    paths = simulate(n, n_paths, seed=seed)
    gains = collect_gains(paths, implied, block)
    expected = integrate_gamma(paths, implied)
    place = ("call", SPOT, SPOT, YEARS)
    return {
        "implied": implied, "steps": n, "gain": describe_mean(gains),
        "by_gamma": describe_mean(expected), "rest": describe_mean(gains - expected),
        "by_prices": float(options.price(*place, SIGMA) - options.price(*place, implied)),
    }  # fmt: skip


def main() -> int:
    """Print both tables as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=2_000)
    parser.add_argument("--steps", type=int, action="append", help="divisors of 256")
    parser.add_argument("--implied", type=float, action="append", help="0.45 and 0.8")
    parser.add_argument("--block", type=int, default=40, help="paths that share an account")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    steps = given.steps or [16, 64, 256]
    size = (given.paths, given.block, given.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        true = [describe_true(n, *size) for n in steps]
        wrong = [describe_wrong(implied, 64, *size) for implied in given.implied or [0.45, 0.8]]

    found = {
        "paths": given.paths, "seed": given.seed, "volatility": SIGMA, "true": true, "wrong": wrong,
    }  # fmt: skip
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
