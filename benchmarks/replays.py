"""Replay historical crashes on long accounts of 2x, 5x and 10x, cross and isolated.

    python benchmarks/replays.py FOLDER [--json]

FOLDER holds hourly bars, mark prices and funding of BTCUSDT. An account of 10,000 opens a long in
the last hour before an episode and keeps it. Where the folder covers the days, its bars and funding
are replayed, otherwise the hours and days that are shipped. Margin by the table of Binance's
BTCUSDT perpetual that was in force ("then", where one is known) and by the newest one ("today").
Prints a Markdown table: wealth that is left, in percent, and a cross where the position was
liquidated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import warnings
from typing import Annotated, Any

import pandas as pd

import backtest as bt

LEVERAGES = (2.0, 5.0, 10.0)
MARGINS = ("cross", "isolated")
CAPITAL = 10_000.0
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")


class OpenOnce(bt.Policy):
    """Open a position once, and keep it."""

    turns: Annotated[float, bt.Range(0.0, 125.0, "turns of equity")] = 2.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the leverage until there is a position, then NaN."""
        is_new = account.position == 0.0 and account.bars_since_liquidation > 1e300
        return self.turns if is_new else math.nan


def stand_before(market: bt.Market, scenario: bt.Scenario, turns: float, margin: str) -> bt.Result:
    """Return an account that opened in the last bar before an episode, or before the data end."""
    start = pd.Timestamp(scenario.date, tz="UTC")
    is_covered = scenario.asset == "crypto" and market.times[2] < start <= market.times[-1]
    before = market.between(None, start) if is_covered else market
    account = bt.Account(capital=CAPITAL, margin=margin, venue_leverage=turns, max_leverage=turns)
    return bt.run(
        before, OpenOnce(turns=turns), venue=VENUE, account=account, start=before.times[-2]
    )


def is_known(scenario: bt.Scenario) -> bool:
    """Return whether a margin table of the episode's days is known."""
    start, end = (pd.Timestamp(each, tz="UTC").value for each in (scenario.date, scenario.until))
    return scenario.asset == "crypto" and not VENUE.describe_misfit(start, end)


def replay(market: bt.Market, scenario: bt.Scenario) -> list[dict[str, Any]]:
    """Return a row per leverage."""
    rows = []
    for turns in LEVERAGES:
        row: dict[str, Any] = {"episode": scenario.name, "leverage": turns}
        for margin, rules in itertools.product(MARGINS, ("then", "today")):
            if rules == "then" and not is_known(scenario):
                continue
            result = stand_before(market, scenario, turns, margin)
            found = bt.stress(result, scenario, rules=rules, data=market).table.iloc[0]
            row |= {"from": found["from"], "bars": int(found["bars"])}
            row[f"{margin}, {rules}"] = {
                "left": float(found["equity"]) / (float(found["equity"]) + float(found["loss"])),
                "liquidated": bool(found["liquidated"]),
                "break_even": float(found["break_even"]),
            }
        rows.append(row)
    return rows


def show(row: dict[str, Any], name: str) -> str:
    """Return a cell."""
    if name not in row:
        return "not known"
    cell = row[name]
    return f"{100.0 * cell['left']:.1f}{' †' if cell['liquidated'] else ''}"


def main() -> None:
    """Replay all episodes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--from", dest="start", default="2020-01-01")
    wanted = parser.parse_args()
    market = bt.Market.load(wanted.folder, mark_gaps="last", between=(wanted.start, None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # days without a margin table are in the table
        rows = [row for each in bt.crashes() for row in replay(market, each)]
    if wanted.json:
        sys.stdout.write(json.dumps({"episodes": rows}, indent=1) + "\n")
        return
    names = [f"{margin}, {rules}" for margin in MARGINS for rules in ("then", "today")]
    lines = [f"| episode | from | hours | leverage | {' | '.join(names)} |", "|---" * 8 + "|"]
    for row in rows:
        cells = [show(row, name) for name in names]
        lines.append(
            f"| {row['episode']} | {row['from']} | {row['bars']} | {row['leverage']:g}x | "
            f"{' | '.join(cells)} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
