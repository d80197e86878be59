"""Live a levered BTC account through the first quarter of 2026, with and without a tail hedge.

    python benchmarks/tail_hedge.py [FOLDER] [--drift 0.25] [--budget 0.005] [--leverage 2 ...]

FOLDER has perps-1h-2026 (hourly bars of BTCUSDT with marks and funding) and deribit-chains (a
snapshot of Deribit's options a day). All is in coins: the inverse perpetual of Deribit, whose
prices and funding are taken from those bars, one USDT as one USD; options settled in coins, bought
at the rows' own ask and sold at their bid. Three arms: the leverage; the leverage with puts of 30
days and a delta of -0.1, rolled at 7; and the leverage less the premiums and fees paid a year over
the stated drift of the price a year: the same money, given up as expected profit. Prints JSON.

Margin, fees and liquidation are those of the preset of BTC_USDC-PERPETUAL, with brackets by size in
coins: it has no coin-settled contract. The margin rule of options is Deribit's standard one, under
which a long put counts nothing before it is sold. One quarter shows what happened, not what
protection costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.strategies import Constant, TailHedge

START, END = pd.Timestamp("2025-12-30", tz="UTC"), pd.Timestamp("2026-04-01", tz="UTC")
COSTS = bt.OptionCosts(
    fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125, tick=0.0001,
    delivery_window="30m",
)  # fmt: skip
DAYS, MONEYNESS = (15.0, 50.0), (0.5, 0.97)
"""The puts that are listed: days to expiry and strike over forward in a snapshot."""
CAPITAL = 10.0
INDEX = 100_000.0
"""The price at which the preset states brackets in money."""
MEASURES = (
    "final_equity", "total_return", "max_drawdown", "total_return_quote", "max_drawdown_quote",
    "liquidations", "ruined", "peak_margin_ratio", "funding",
)  # fmt: skip


def load_quarter(folder: Path) -> tuple[bt.Market, bt.Chain]:
    """Return the bars and the chains of the quarter."""
    market = bt.Market.load(folder / "perps-1h-2026", instrument="BTCUSDT")
    first, stop = np.searchsorted(market.times, [START, END])
    chain = bt.Chain.load(folder / "deribit-chains").select("BTC")
    rows = chain.table[(chain.table["time"] < END) & (chain.table["time"] > START)]
    chain = bt.Chain(rows.reset_index(drop=True), chain.settlement, chain.source)
    return market.slice(int(first), int(stop)), chain


def make_sample() -> tuple[bt.Market, bt.Chain]:
    """Return made-up bars of two weeks, and a made-up chain a day."""
    market, one = bt.Market.sample(bars=24 * 14), bt.Chain.sample().table
    parts = []
    for day in range(13):
        ratio = float(market.mark_close[24 * day + 12]) / float(one["index"].iloc[0])
        later = one.assign(underlying="BTC", strike=(one["strike"] * ratio).round(-1))
        for name in ("forward", "index"):
            later[name] *= ratio
        for name in ("time", "expiry"):
            later[name] += pd.Timedelta(days=day, minutes=20)
        parts.append(later)
    return market, bt.Chain.from_frame(pd.concat(parts, ignore_index=True), settlement="coin")


def list_markets(market: bt.Market, chain: bt.Chain) -> bt.Markets:
    """Return the bars with the puts that a hedge may choose, under a chain a day."""
    puts = chain.contracts("BTC", kind="put", days=DAYS, moneyness=MONEYNESS, lot=0.1)
    return bt.Markets(
        {"BTC": market, **puts},
        surfaces={"BTC": bt.Surfaces.fit(chain)},
        chains={"BTC": chain},
        currency="BTC",
    )


def describe_rolls(result: bt.Result) -> dict[str, Any]:
    """Return the cost of protection by roll, and in per cent of mean equity a year."""
    rolls = result.rolls()
    for name in ("opened", "closed"):
        rolls[name] = rolls[name].astype(str)
    shares = 100.0 * result.rolls("leg").loc["total"].drop("rolls")
    return {"per_cent_a_year": shares.to_dict(), "by_roll": rolls.to_dict("records")}


def make_venue() -> bt.Venue:
    """Return Deribit's preset with its inverse contract: brackets by size in coins, at 100,000."""
    usdc = bt.Venue.preset("deribit", "BTC_USDC-PERPETUAL")
    brackets = [
        bt.Bracket(each.floor / INDEX, each.cap / INDEX, each.max_leverage, each.maintenance_rate)
        for each in usdc.brackets
    ]
    inverse = bt.Contract(kind="inverse", size=10.0, lot=1.0, tick=0.5, min_notional=0.0)
    given = {"contract": inverse, "brackets": brackets, "option_costs": COSTS}
    return usdc.override({**given, "liquidation.full_below": 1_000.0 / INDEX})


def compare(markets: bt.Markets, leverage: float, budget: float, drift: float) -> dict[str, Any]:
    """Return the three arms of one leverage, in coins and in dollars."""
    account = bt.Account(
        capital=CAPITAL, requirement="deribit-standard", max_leverage=50.0, band=0.05
    )
    terms: dict[str, Any] = {"venue": make_venue(), "account": account}
    policy = TailHedge(Constant(leverage), delta=-0.1, tenor=30.0, roll=7.0, budget=budget)
    hedged = bt.run(markets, policy, **terms)
    rolls = describe_rolls(hedged)
    paid = rolls["per_cent_a_year"]["premium"] + rolls["per_cent_a_year"]["fees"]
    lower = max(leverage - paid / 100.0 / drift, 0.0)
    arms = {
        "no_hedge": bt.run(markets, Constant(leverage), **terms),
        "hedge": hedged,
        "less_leverage": bt.run(markets, Constant(lower), **terms),
    }
    found = bt.compare(arms, draws=99)
    return {
        "leverage": leverage,
        "leverage_of_the_third": lower,
        "arms": found.table[[*MEASURES]].to_dict("index"),
        "protection": rolls,
    }


def main() -> int:
    """Print the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="default: made-up markets")
    parser.add_argument("--drift", type=float, default=0.25, help="of the price, per year")
    parser.add_argument("--budget", type=float, default=0.005, help="of equity per roll")
    parser.add_argument("--leverage", type=float, action="append")
    given = parser.parse_args()
    if not given.drift > 0.0:
        parser.error(
            f"--drift must be above 0, got {given.drift}: it is what less leverage gives up"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        markets = list_markets(*(load_quarter(given.folder) if given.folder else make_sample()))
        arms = [
            compare(markets, each, given.budget, given.drift)
            for each in given.leverage or (2.0, 5.0)
        ]
    found = {
        "bars": markets.n_bars,
        "from": str(markets.times[0]),
        "to": str(markets.times[-1]),
        "contracts": len(markets.options),
        "snapshots": len(markets.listing.surfaces["BTC"].times),
        "drift_a_year": given.drift,
        "budget_per_roll": given.budget,
        "arms": arms,
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
