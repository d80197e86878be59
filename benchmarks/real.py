"""All policies on real prices: what each would have done to an account. Prints a table.

    python benchmarks/real.py FOLDER [--json] [--from DAY] [--to DAY]
    python benchmarks/real.py FOLDER... --walks [--trials 64] [--from 2020-01-10]

FOLDER holds hourly bars, mark prices and funding of BTCUSDT from 2020 to 2023 (freqtrade's layout
or the project's own). Every policy runs hourly and resampled to daily, in cross and isolated
margin, with 1x, 3x, 10x and 25x as the most it may ask for and as the leverage set at the venue.
Then fresh accounts live through the two days on which most positions of these years died.

With --walks, four policies are re-tuned every month instead, on every coin in the folders, and
compared with the same policies tuned once and with their defaults.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from typing import Annotated, Any

from real_walks import COLUMNS as WALK_COLUMNS
from real_walks import conclude, load_markets, walk_all

import backtest as bt
from backtest.base.units import HOUR
from backtest.strategies import Constant, Cppi, SharpeScaling, VolTarget

LEVERAGES = (1.0, 3.0, 10.0, 25.0)
DAYS = {"2020-03-12": "2020-03-14", "2021-05-19": "2021-05-21"}
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
COLUMNS = (
    ("policy", "{}", 13),
    ("bars", "{}", 5),
    ("margin", "{}", 9),
    ("max", "{:g}x", 5),
    ("final", "{:,.0f}", 9),
    ("cagr", "{:.1%}", 8),
    ("sharpe", "{:.2f}", 7),
    ("drawdown", "{:.1%}", 9),
    ("mean lev", "{:.2f}", 9),
    ("fees", "{:,.0f}", 8),
    ("funding", "{:,.0f}", 9),
    ("liq.", "{:.0f}", 5),
    ("liq. loss", "{:,.0f}", 10),
    ("first liquidation", "{}", 18),
)


class OpenOnce(bt.Policy):
    """Open at the first close and leave the position alone ever after."""

    turns: Annotated[float, bt.Range(0.0, 125.0, "turns of equity")] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the leverage within the first hour, then NaN."""
        return self.turns if account.days < 0.05 else math.nan


def policies_at(leverage: float, hours: float) -> list[bt.Policy]:
    """Return the four policies asking for up to a leverage, on bars of some hours."""
    target, half_life = min(0.6 * leverage, 2.0), 72.0 / hours
    return [
        Constant(leverage=leverage),
        VolTarget(target=target, half_life=half_life),
        SharpeScaling(target=target, half_life=half_life, window=int(2160 / hours)),
        Cppi(multiplier=min(leverage, 20.0)),
    ]


def live(market: bt.Market, policy: bt.Policy, margin: str, leverage: float) -> bt.Result:
    """Run one account whose setting at the venue is the most the policy may ask for."""
    account = bt.Account(
        capital=10_000, margin=margin, venue_leverage=leverage, max_leverage=leverage, band=0.05
    )
    return bt.run(market, policy, venue=VENUE, account=account)


def describe(result: bt.Result, bars: str, margin: str, leverage: float) -> dict[str, Any]:
    """Return one row of the table, with the prices of all liquidations checked."""
    metrics = result.metrics
    dead = result.events[result.events["kind"] == "liquidation"]
    return {
        "policy": type(result.policy).__name__,
        "bars": bars,
        "margin": margin,
        "max": leverage,
        "final": metrics["final_equity"],
        "cagr": metrics["cagr"],
        "sharpe": metrics["sharpe"],
        "drawdown": metrics["max_drawdown"],
        "mean lev": metrics["mean_leverage"],
        "fees": metrics["fees"],
        "funding": metrics["funding"],
        "liq.": metrics["liquidations"],
        "liq. loss": metrics["liquidation_loss"],
        "first liquidation": f"{dead['time'].iloc[0]:%Y-%m-%d %H:%M}" if len(dead) else "never",
    }


def contained(market: bt.Market, result: bt.Result) -> tuple[int, int]:
    """Return how many liquidations there were, and how many at a price inside their mark bar."""
    dead = result.events[result.events["kind"] == "liquidation"]
    rows = market.times.get_indexer(dead["time"])
    price = dead["price"].to_numpy()
    inside = (price >= market.mark_low[rows]) & (price <= market.mark_high[rows])
    return len(dead), int(inside.sum())


def live_through(market: bt.Market) -> list[dict[str, Any]]:
    """Return what fresh accounts lived through on the worst days, one row per account."""
    rows = []
    first, last = (f"{time:%Y-%m-%d}" for time in (market.times[0], market.times[-1]))
    days = [(start, end) for start, end in DAYS.items() if first <= start and end <= last]
    for (start, end), leverage, side in itertools.product(days, LEVERAGES, (1.0, -1.0)):
        day = market.between(start, end)
        account = bt.Account(capital=10_000, margin="isolated", venue_leverage=leverage)
        result = bt.run(day, OpenOnce(turns=leverage), venue=VENUE, account=account, signal=side)
        dead = result.events[result.events["kind"] == "liquidation"]
        row = {"day": start, "side": "long" if side > 0 else "short", "leverage": leverage}
        if len(dead):
            t = int(day.index.get_indexer(dead["time"])[0])
            row |= {
                "liquidated": f"{dead['time'].iloc[0]:%m-%d %H:%M}",
                "price": float(dead["price"].iloc[0]),
                "mark_low": float(day.mark_low[t]),
                "mark_high": float(day.mark_high[t]),
            }
        rows.append(row | {"final": result.metrics["final_equity"]})
    return rows


def show(rows: list[dict[str, Any]], columns: tuple[tuple[str, str, int], ...]) -> str:
    """Return rows as an aligned table."""
    lines = [" ".join(f"{name:>{width}}" for name, _, width in columns)]
    for row in rows:
        cells = (
            f"{(form.format(row[name]) if name in row else '-')[:width]:>{width}}"
            for name, form, width in columns
        )
        lines.append(" ".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--from", dest="start", default="2020-01-01")
    parser.add_argument("--to", dest="end", default="2024-01-01")
    parser.add_argument("--walks", action="store_true")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--train", default="365d")
    parser.add_argument("--test", default="30d")
    wanted = parser.parse_args()
    if wanted.walks:
        found = load_markets(wanted.folder, wanted.start, wanted.end)
        walks = walk_all(found, wanted.trials, wanted.train, wanted.test)
        said = {"walks": walks, "conclusion": conclude(walks)}
        text = f"{show(walks, WALK_COLUMNS)}\n\n{conclude(walks)}\n"
        sys.stdout.write(json.dumps(said, indent=1) + "\n" if wanted.json else text)
        return
    hourly = bt.Market.load(wanted.folder[0], between=(wanted.start, wanted.end))
    markets = {"1h": hourly, "1d": hourly.resample("1d")}
    rows, dead, inside = [], 0, 0
    for (bars, market), margin, leverage in itertools.product(
        markets.items(), ("cross", "isolated"), LEVERAGES
    ):
        for policy in policies_at(leverage, market.interval / HOUR):
            result = live(market, policy, margin, leverage)
            rows.append(describe(result, bars, margin, leverage))
            counts = contained(market, result)
            dead, inside = dead + counts[0], inside + counts[1]
    days = live_through(hourly)
    if wanted.json:
        sys.stdout.write(json.dumps({"runs": rows, "days": days}, indent=1) + "\n")
        return
    day_columns = (
        ("day", "{}", 11), ("side", "{}", 6), ("leverage", "{:g}x", 9), ("liquidated", "{}", 12),
        ("price", "{:,.2f}", 10), ("mark_low", "{:,.2f}", 10), ("mark_high", "{:,.2f}", 10),
        ("final", "{:,.2f}", 10),
    )  # fmt: skip
    sys.stdout.write(f"{show(rows, COLUMNS)}\n\n{inside} of {dead} liquidations at a price ")
    sys.stdout.write(f"inside their mark bar\n\n{show(days, day_columns)}\n")


if __name__ == "__main__":
    main()
