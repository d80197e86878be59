"""Several positions on one collateral, on real prices: cross against isolated. Prints a table.

    python benchmarks/real_portfolio.py FOLDER [--json] [--from DAY] [--to DAY] [--gross X ...]

FOLDER holds hourly bars, mark prices and funding of BTCUSDT, ETHUSDT and LTCUSDT from January 2020
to 2023, in itself or in folders inside it (freqtrade's layout or the project's own). Accounts of
10,000 hold the three at a gross leverage of 1x to 10x, rebalanced in a band: ``long`` with a third
in each, ``hedged`` with half in BTC against a quarter each of ETH and LTC. Each runs in isolated
margin, and in cross margin under each requirement (brackets, and scenarios of 15 % with and without
BTC, ETH and LTC as one group) and each order of a partial liquidation.

Then fresh accounts open positions before the worst two days of these years and leave them alone;
what happened to them is told in words.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd

import backtest as bt
from backtest.strategies import Constant

NAMES = ("BTCUSDT", "ETHUSDT", "LTCUSDT")
START, END = "2020-01-09 08:00", "2024-01-01"
LEVERAGES = (1.0, 2.0, 3.0, 5.0, 10.0)
BOOKS = {
    "long": dict.fromkeys(NAMES, 1.0 / 3.0),
    "hedged": {"BTCUSDT": 0.5, "ETHUSDT": -0.25, "LTCUSDT": -0.25},
}
ORDERS = ("largest_loss", "most_relief", "largest_requirement", "largest_notional")
ROWS = [(-0.15, 1.0), (-0.10, 1.0), (-0.05, 1.0), (0.05, 1.0), (0.10, 1.0), (0.15, 1.0)]
RULES = {
    "brackets": bt.Brackets(),
    "scenarios": bt.ScenarioMargin(moves=ROWS, contingency=0.005),
    "one group": bt.ScenarioMargin(moves=ROWS, groups={"coins": NAMES}, contingency=0.005),
}
LTC = (
    (0.0, 10e3, 75, 0.005), (10e3, 50e3, 50, 0.01), (50e3, 100e3, 40, 0.015),
    (100e3, 750e3, 25, 0.02), (750e3, 1e6, 20, 0.025), (1e6, 5e6, 10, 0.05), (5e6, 10e6, 5, 0.1),
)  # fmt: skip
"""Binance's margin table of LTCUSDT on 2024-10-24, up to 10 million: the preset has none."""
DAYS = {"2020-03-12": "2020-03-14", "2021-05-19": "2021-05-21"}
COLUMNS = (
    ("book", "{}", 7),
    ("margin", "{}", 9),
    ("rule", "{}", 10),
    ("order", "{}", 20),
    ("gross", "{:g}x", 6),
    ("final", "{:,.0f}", 11),
    ("drawdown", "{:.1%}", 9),
    ("liq.", "{:.0f}", 5),
    ("liq. loss", "{:,.0f}", 10),
    ("pulled down", "{:.0f}", 12),
    ("first liquidation", "{}", 18),
)


class Hold(bt.Policy):
    """Open at the first close and leave the position alone ever after."""

    turns: Annotated[float, bt.Range(0.0, 125.0, "turns of equity")] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the leverage within the first hour, then NaN."""
        return self.turns if account.days < 0.05 else math.nan


class Terms(NamedTuple):
    """What an account is run under."""

    margin: str
    rule: str
    order: str


def list_terms() -> Iterator[Terms]:
    """Yield isolated margin, then cross margin under each requirement and order."""
    yield Terms("isolated", "-", "-")
    yield from (Terms("cross", *pair) for pair in itertools.product(RULES, ORDERS))


def load(folder: Path, start: str = START, end: str = END) -> bt.Markets:
    """Return the three markets, in the folder itself or in folders inside it."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and is_named(path)]
    places = [folder] if is_named(folder) else inside
    return bt.Markets.load(*places, instruments=list(NAMES), between=(start, end))


def is_named(place: Path) -> bool:
    """Return whether a folder, or a file in it, is named after one of the instruments, by hour."""
    coins = tuple(name.removesuffix("USDT") for name in NAMES)
    files = [path.name for path in place.iterdir() if "1h" in path.name]
    return place.name in NAMES or any(name.startswith(coins) for name in files)


def make_venues(order: str) -> dict[str, bt.Venue]:
    """Return Binance's rules, with one order for partial liquidations."""
    venues = bt.Venue.preset("binance-usdm", list(NAMES[:2]))
    brackets = [bt.Bracket(*row) for row in LTC]
    venues[NAMES[2]] = venues[NAMES[1]].override(brackets=brackets)
    if order == "-":
        return venues
    steps = {"liquidation.order": order, "liquidation.mode": "partial", "liquidation.step": 0.2}
    return {name: venue.override(steps) for name, venue in venues.items()}


def live(
    markets: bt.Markets, policy: bt.Policy, book: str, terms: Terms, gross: float
) -> bt.Result:
    """Run one account."""
    isolated = {} if terms.margin == "cross" else {"venue_leverage": max(gross, 1.0)}
    account = bt.Account(
        capital=10_000,
        margin=terms.margin,
        band=0.02 * gross,
        requirement=RULES.get(terms.rule, RULES["brackets"]),
        **isolated,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bt.run(
            markets, policy, venue=make_venues(terms.order), account=account, signal=BOOKS[book]
        )


def describe(result: bt.Result, book: str, terms: Terms, gross: float) -> dict[str, Any]:
    """Return one row of the table."""
    metrics, contagion = result.metrics, result.contagion()
    dead = result.events[result.events["kind"] == "liquidation"]
    pulled = contagion[(contagion["profit"] > 0.0) & (contagion["quantity"] != 0.0)]
    return {
        "book": book,
        **terms._asdict(),
        "gross": gross,
        "final": metrics["final_equity"],
        "drawdown": metrics["max_drawdown"],
        "liq.": metrics["liquidations"],
        "liq. loss": metrics["liquidation_loss"],
        "pulled down": len(pulled),
        "first liquidation": f"{dead['time'].iloc[0]:%Y-%m-%d %H:%M}" if len(dead) else "never",
        "contagion": [
            {"time": f"{row.time:%Y-%m-%d %H:%M}", "winner": row.cause, "profit": row.profit}
            for row in pulled.head(20).itertuples()
        ],
    }


def tell_days(markets: bt.Markets) -> list[dict[str, Any]]:
    """Return what fresh accounts lived through on the worst days, with a sentence each."""
    rows = []
    for (first, last), book, gross in itertools.product(DAYS.items(), BOOKS, LEVERAGES[2:]):
        if not is_inside(markets, first, last):
            continue
        day = markets.between(first, last)
        for terms in (Terms("cross", "brackets", "largest_loss"), Terms("isolated", "-", "-")):
            result = live(day, Hold(turns=gross), book, terms, gross)
            rows.append(describe_day(result, first, book, terms, gross))
    return rows


def is_inside(markets: bt.Markets, first: str, last: str) -> bool:
    """Return whether the markets have both days."""
    days = (pd.Timestamp(first, tz="UTC").value, pd.Timestamp(last, tz="UTC").value)
    return markets.start <= days[0] and days[1] <= markets.end


def describe_day(
    result: bt.Result, day: str, book: str, terms: Terms, gross: float
) -> dict[str, Any]:
    """Return what one account lived through, in words too."""
    dead = result.events[result.events["kind"] == "liquidation"]
    final = result.metrics["final_equity"]
    row = {"day": day, "book": book, "margin": terms.margin, "gross": gross, "final": final}
    words = f"{day}, {book} at {gross:g}x, {terms.margin}: "
    if not len(dead):
        return row | {"words": f"{words}not liquidated, {final:,.0f} of 10,000 left"}
    hits = [
        f"{name} at {part['time'].iloc[0]:%H:%M}"
        for name, part in dead.groupby("instrument", observed=True)
    ]
    words += f"liquidated {', '.join(hits)}"
    causes = result.contagion()
    if len(causes):
        blamed = causes[causes["liquidation"] == causes["liquidation"].iloc[0]]
        worst = blamed.sort_values("share", ascending=False).iloc[0]
        words += f"; {worst['share']:.0%} of the fall was {worst['cause']}"
        winners = blamed[(blamed["profit"] > 0.0) & (blamed["quantity"] != 0.0)]
        if len(winners):
            words += f"; {', '.join(winners['cause'])} was in profit"
    return row | {"words": f"{words}; {final:,.0f} of 10,000 left"}


def show(rows: list[dict[str, Any]]) -> str:
    """Return rows as an aligned table."""
    lines = [" ".join(f"{name:>{width}}" for name, _, width in COLUMNS)]
    lines += [
        " ".join(f"{form.format(row[name])[:width]:>{width}}" for name, form, width in COLUMNS)
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--from", dest="start", default=START)
    parser.add_argument("--to", dest="end", default=END)
    parser.add_argument("--gross", nargs="+", type=float, default=LEVERAGES)
    wanted = parser.parse_args()
    markets = load(wanted.folder, wanted.start, wanted.end)
    report = {
        "runs": [
            describe(
                live(markets, Constant(leverage=gross), book, terms, gross), book, terms, gross
            )
            for book, gross, terms in itertools.product(BOOKS, wanted.gross, list_terms())
        ],
        "days": tell_days(markets),
    }
    if wanted.json:
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
        return
    told = "\n".join(row["words"] for row in report["days"])
    sys.stdout.write(f"{show(report['runs'])}\n\n{told}\n")


if __name__ == "__main__":
    main()
