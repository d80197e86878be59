"""Time prices, volatilities, margins and runs of options.

    python benchmarks/options.py                     # nanoseconds per option
    python benchmarks/options.py --margin            # microseconds per requirement of 50 options
    python benchmarks/options.py --run               # seconds per year of hours with 10 options

Prints JSON.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from timing import best_of, print_json, read_flags, timed

import backtest as bt
from backtest._compile import compile_module
from backtest.margin import option_kernels
from backtest.margin.functions import read_book
from backtest.options import implied_kernels

os.environ["BACKTEST_COMPILE"] = "now"  # compiled code is timed
REPEAT = 9
LOOPS = 200
EXPIRIES = ("2026-01-30", "2026-02-27", "2026-03-27", "2026-06-26", "2026-12-25")


def time_each(work: Callable[[], Any], n: int) -> float:
    """Return the least nanoseconds of CPU per option."""
    return round(best_of(REPEAT, timed(work, n / 1e9))[0], 1)


def time_kernels(n: int) -> dict[str, float]:
    """Return nanoseconds per price, per set of Greeks, and per implied volatility."""
    rng = np.random.default_rng(0)
    forward = np.full(n, 100.0)
    rate = np.full(n, 0.02)
    strike = forward * np.exp(rng.normal(0.0, 0.2, n))
    years = rng.uniform(0.02, 1.0, n)
    volatility = rng.uniform(0.2, 1.0, n)
    sign = np.where(strike > forward, 1.0, -1.0)
    values = np.empty(n)
    found = np.empty(n)
    greeks = np.empty((n, 7))
    terms = np.stack([sign, forward, strike, years, volatility, rate])
    implied = compile_module(implied_kernels)
    implied.fill_prices(terms, False, values)
    prices = np.stack([sign, values, forward, strike, years, rate])
    return {
        "price_ns": time_each(lambda: implied.fill_prices(terms, False, values), n),
        "greeks_ns": time_each(lambda: implied.fill_greeks(terms, False, greeks), n),
        "implied_volatility_ns": time_each(
            lambda: implied.fill_volatilities(prices, False, found), n
        ),
        "largest_error": float(np.nanmax(np.abs(found - volatility))),
        "load": os.getloadavg()[0],
    }


def time_margin(n: int) -> dict[str, float]:
    """Return microseconds per requirement of n options on 27 scenarios, with and without prices.

    ``table_us`` computes the prices and the requirement, ``reused_us`` the requirement alone.
    """
    rng = np.random.default_rng(0)
    rows = [(k / 25, 1.0, move) for k in range(-4, 5) for move in (0.0, 0.5, -0.25)]
    rule = bt.ScenarioMargin(moves=rows, options=bt.OptionShocks(power=(0.3, 0.13)))
    held = [
        bt.OptionPosition(
            bt.Option(
                kind=("call", "put")[k % 2], strike=float(strike), expiry=EXPIRIES[k % 5],
                underlying="BTC",
            ),
            float(rng.normal()), index=60_000.0, at="2026-01-01", volatility=0.6,
        )
        for k, strike in enumerate(np.linspace(30_000.0, 120_000.0, n))
    ]  # fmt: skip
    book = read_book({}, {}, {}, rule, options=held)
    options = book.options
    rules = book.option_rules
    kernels = compile_module(option_kernels)

    def reuse() -> None:
        for _ in range(LOOPS):
            for is_initial in (False, True):
                kernels.compute_option_requirement(
                    book.packed, book.held, options, rules, is_initial
                )

    def fill() -> None:
        for _ in range(LOOPS):
            kernels.fill_options(options, rules)

    reused = time_each(reuse, LOOPS) / 2_000.0
    return {
        "rows": float(rules.shocks.moves.shape[1]),
        "table_us": round(time_each(fill, LOOPS) / 1_000.0 + reused, 1),
        "reused_us": round(reused, 1),
        "load": os.getloadavg()[0],
    }


def make_account(n_bars: int, n: int) -> dict[str, Any]:
    """Return the arguments of a run that holds n options under 27 scenarios from its first day."""
    strikes = np.linspace(15_000.0, 60_000.0, n)
    options = {
        f"O{k}": bt.Option(
            kind=("call", "put")[k % 2], strike=float(strike), expiry="2024-01-26 08:00",
            underlying="BTC",
        )
        for k, strike in enumerate(strikes)
    }  # fmt: skip
    markets = bt.Markets(
        {"BTC": bt.Market.sample(bars=n_bars), **options},
        surfaces={"BTC": bt.Surfaces.fit(bt.Chain.sample())},
        max_age="400d",
    )
    costs = bt.OptionCosts(
        fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125, tick=0.1, spread=0.02
    )
    rows = [(k / 25, 1.0, move) for k in range(-4, 5) for move in (0.0, 0.5, -0.25)]
    rule = bt.ScenarioMargin(moves=rows, options=bt.OptionShocks(power=(0.3, 0.13)))
    held = {name: (-0.2, 0.1)[k % 2] for k, name in enumerate(options)}
    return {
        "market": markets,
        "policy": bt.strategies.VolTarget(target=0.4),
        "venue": bt.Venue.preset("binance-usdm", "BTCUSDT").override(option_costs=costs),
        "account": bt.Account(capital=100_000.0, requirement=rule),
        "option_quantities": pd.DataFrame(held, index=markets.times[24:25]),
    }


def time_run(n: int) -> dict[str, float]:
    """Return the seconds of a compiled year of hours that holds n options."""
    given = make_account(8_760, n)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        result = bt.run(**given)
        seconds.append(time.perf_counter() - start)
    return {
        "options": float(n),
        "bars": float(len(result.bars)),
        "liquidations": float((result.events["kind"] == "liquidation").sum()),
        "first_seconds": round(seconds[0], 2),
        "seconds": round(min(seconds[1:]), 2),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Print the figures."""
    given = read_flags(__doc__, margin=False, run=False, options=20_000)
    if given.margin or given.run:
        print_json(time_margin(50) if given.margin else time_run(10))
    else:
        print_json(time_kernels(given.options))


if __name__ == "__main__":
    main()
