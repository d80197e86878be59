"""Measure how far results depend on the order of prices inside hourly bars.

    python benchmarks/order_in_bars.py FOLDER [--json] [--from TIME] [--to TIME]

FOLDER holds minute bars of BTCUSDT and its funding. Policies of the library run on hourly bars made
of them, under four sets of exits. Prints a Markdown table: ambiguous bars, and the worst, own, best
and expected final equity; in how many hours their minutes contradict the order that the run takes,
and what is expected by them. There are no mark prices in the folder: last prices stand for them, so
the order of mark and last does not count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import warnings
from typing import Any

import backtest as bt
from backtest.strategies import Constant, Cppi, VolTarget

CAPITAL = 10_000.0
DEPTH = 3
"""At most 2^3 lives are followed: with stops they rarely become one again."""
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
POLICIES = (
    Constant(leverage=3.0),
    VolTarget(target=1.5, half_life=24.0),
    Cppi(multiplier=5.0),
)
EXITS: dict[str, dict[str, Any]] = {
    "none": {},
    "stop 1 %": {"stop_loss": 0.01},
    "stop 0.5 %, profit 0.5 %": {"stop_loss": 0.005, "take_profit": 0.005},
    "trailing 1 %": {"trailing_stop": 0.01},
}
SHOWN = ("worst", "as_run", "best", "expected")


def measure(hours: bt.Market, minutes: bt.Market, policy: bt.Policy, exits: str) -> dict[str, Any]:
    """Return one row: the bounds of final equity by hours, and by minutes where hours are open."""
    account = bt.Account(capital=CAPITAL, band=0.1, **EXITS[exits])
    given: dict[str, Any] = {"venue": VENUE, "account": account, "depth": DEPTH}
    wide = bt.bounds(hours, policy, **given)
    fine = bt.bounds(hours, policy, **given, refine=minutes) if len(wide.bars) else wide
    row: dict[str, Any] = {"policy": type(policy).__name__, "exits": exits}
    for name, found in (("hours", wide), ("minutes", fine)):
        values = found.table.loc["final_equity"]
        row[name] = {
            "ambiguous": len(found.bars),
            "is_inner": found.is_inner,
            **{each: float(values[each]) for each in SHOWN},
        }
    return row


def main() -> None:
    """Run all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--from", dest="start", default="2025-05-04 16:00")
    parser.add_argument("--to", dest="end", default="2025-06-03 00:00")
    wanted = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no mark prices: said above
        between = (wanted.start, wanted.end)
        minutes = bt.Market.load(wanted.folder, mark_gaps="last", between=between)
        hours = minutes.resample("1h")
        rows = [
            measure(hours, minutes, policy, exits)
            for policy, exits in itertools.product(POLICIES, EXITS)
        ]
    if wanted.json:
        sys.stdout.write(json.dumps({"results": rows}, indent=1) + "\n")
        return
    lines = [
        "| policy | exits | ambiguous hours | worst | as run | best | expected "
        "| contradicted by minutes | expected by minutes |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        wide, fine = row["hours"], row["minutes"]
        cells = [f"{wide[each]:,.0f}" for each in SHOWN]
        cells += [str(fine["ambiguous"]), f"{fine['expected']:,.0f}"]
        inner = " (inner)" if wide["is_inner"] else ""
        lines.append(
            f"| {row['policy']} | {row['exits']} | {wide['ambiguous']}{inner} | "
            f"{' | '.join(cells)} |"
        )
    open_ = sum(row["hours"]["worst"] < row["hours"]["best"] for row in rows)
    lines.append(f"\n{open_} of {len(rows)} results depend on the order inside hourly bars.")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
