"""Time prices and implied volatilities of options on one thread, and fit a folder of chains.

    python benchmarks/options.py                     # nanoseconds per option
    python benchmarks/options.py --chains FOLDER     # every snapshot loaded, inspected and fitted

Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.base.kernels import compile_module
from backtest.options import black_kernels, implied_kernels

REPEAT = 9


def best_of(work: Callable[[], Any], n: int) -> float:
    """Return the least nanoseconds per option over some repeats, after one not counted."""
    seconds = []
    for _ in range(REPEAT + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return round(min(seconds[1:]) / n * 1e9, 1)


def time_kernels(n: int) -> dict[str, float]:
    """Return nanoseconds per price, per set of Greeks, and per implied volatility."""
    rng = np.random.default_rng(0)
    forward, rate = np.full(n, 100.0), np.full(n, 0.02)
    strike = forward * np.exp(rng.normal(0.0, 0.2, n))
    years, volatility = rng.uniform(0.02, 1.0, n), rng.uniform(0.2, 1.0, n)
    sign = np.where(strike > forward, 1.0, -1.0)
    values, found, greeks = np.empty(n), np.empty(n), np.empty((n, 7))
    black, implied = compile_module(black_kernels), compile_module(implied_kernels)
    given = (forward, strike, years)
    return {
        "price_ns": best_of(
            lambda: black.fill_prices(sign, *given, volatility, rate, False, values), n
        ),
        "greeks_ns": best_of(
            lambda: black.fill_greeks(sign, *given, volatility, rate, False, greeks), n
        ),
        "implied_volatility_ns": best_of(
            lambda: implied.fill_volatilities(sign, values, *given, rate, False, found), n
        ),
        "largest_error": float(np.nanmax(np.abs(found - volatility))),
    }


def fit_chains(folder: Path) -> list[dict[str, Any]]:
    """Return a row per snapshot and underlying: quotes, defects and the quality of the fit."""
    rows = []
    for file in sorted(folder.glob("*.parquet")):
        chain = bt.Chain.load(file)
        table = chain.inspect().table.set_index("underlying")
        for name in chain.underlyings:
            fitted = bt.Surface.fit(chain, underlying=name)
            fits = fitted.fits
            judged = fits[(fits["years"] >= 2.0 / 365.0) & (fits["strikes"] >= 8)]
            arbitrage = fitted.arbitrage()
            rows.append(
                {
                    "time": f"{fitted.time:%Y-%m-%d %H:%M}",
                    "underlying": name,
                    **table.loc[name, ["quotes", "two_sided", "disagrees", "no_future"]].to_dict(),
                    "expiries": len(fits),
                    "inside": float(np.average(fits["inside"], weights=fits["quotes"])),
                    "median_error": float(judged["median_error"].median()),
                    "worst_expiry": float(judged["median_error"].max()),
                    "butterflies": int(arbitrage["butterfly"].sum()),
                    "crossing_expiries": int((arbitrage["crossings"] > 0.0).sum()),
                }
            )
    return rows


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--chains", type=Path, help="a folder of snapshots to fit")
    parser.add_argument("--options", type=int, default=200_000, help="options to time")
    given = parser.parse_args()
    chains = given.chains
    if chains is None:
        found: dict[str, Any] = time_kernels(given.options)
    else:
        rows = pd.DataFrame(fit_chains(chains))
        total = rows.drop(columns=["time", "underlying"]).agg(["sum", "median", "min", "max"])
        found = {"snapshots": rows.to_dict("records"), "total": total.to_dict()}
    print(json.dumps(found, indent=1, default=float))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
