"""Cash and carry on real prices: what a pair earns by its size. Prints JSON.

    python benchmarks/carry.py FOLDER [--from DAY] [--to DAY]

FOLDER holds hourly bars, mark prices and funding of a perpetual (freqtrade's layout or the
project's own). An account of 100,000 holds a long spot leg and a short of the perpetual, each of
some times its equity, or as large as :class:`backtest.strategies.Carry` decides. The last prices
stand for spot, and the perpetual is valued at its mark: the basis between the two is real. Money is
borrowed at 8 % a year; a spot trade costs 0.1 %, one of the perpetual 0.05 %, and 0.01 % slippage
each.
"""

from __future__ import annotations

import argparse
import json
import warnings
from typing import Any

import backtest as bt
from backtest.strategies import Carry, Constant

SIZES = (0.5, 1.0, 2.0, 4.0)
SHOWN = ("cagr", "volatility", "max_drawdown", "liquidations")
PAID = ("funding", "interest", "fees", "slippage")


def make_pair(market: bt.Market) -> bt.Markets:
    """Return the spot leg, which has the funding for the policy only, and the perpetual."""
    bars, funding = market.bars()[["open", "high", "low", "close", "volume"]], market.funding()
    spot = bt.Market.from_frames(bars, funding=funding, instrument="SPOT", funding_gaps="zero")
    return bt.Markets({"spot": spot, "perpetual": market}, currency="USDT")


def make_venues() -> dict[str, bt.Venue]:
    """Return the venues of the two legs."""
    rates = {"interest_on": "balance", "borrow_rate": 0.08}
    perpetual = bt.Venue.preset("binance-usdm", "BTCUSDT").override(rates)
    spot = bt.Venue.spot(taker=0.001, slippage=1e-4, haircut=0.05, borrow_rate=0.04, like=perpetual)
    return {"spot": spot, "perpetual": perpetual}


def measure(markets: bt.Markets, policy: bt.Policy) -> dict[str, Any]:
    """Return what a pair earns, and pays, per year of the mean equity."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bt.VenueDateWarning)  # before the first margin table
        result = bt.run(
            markets,
            policy,
            venue=make_venues(),
            account=bt.Account(capital=100_000.0, band=0.1),
            signal={"spot": 1.0, "perpetual": -1.0},
        )
    bars, metrics = result.bars, result.metrics
    yearly = 8760.0 / (float(bars["equity"].mean()) * len(bars))
    return {
        **{name: metrics[name] for name in SHOWN},
        **{name: metrics[name] * yearly for name in PAID},
        "basis": metrics["price_pnl"] * yearly,
        "gross_leverage": float(bars["gross_leverage"].mean()),
        "peak_margin_ratio": float(bars["margin_ratio"].max()),
    }


def main() -> None:
    """Run the pairs and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--from", dest="start", default="2020-01-01")
    parser.add_argument("--to", dest="end", default="2024-01-01")
    given = parser.parse_args()
    market = bt.Market.load(given.folder, between=(given.start, given.end))
    markets = make_pair(market)
    rows = {f"{size:g}x": measure(markets, Constant(size)) for size in SIZES}
    rows["Carry"] = measure(markets, Carry())
    print(json.dumps(rows))  # noqa: T201 - a script


if __name__ == "__main__":
    main()
