"""Measure what hours, hours with minutes, and minutes say of one account, and the speed of both.

    python benchmarks/slow_decisions.py FOLDER [--json] [--from TIME] [--to TIME] [--sets N]

FOLDER holds minute bars of BTCUSDT and its funding. Constant leverages run on hours, on hours with
minutes in the second half, on minutes decided every hour, and on minutes decided every minute.
Prints the table of docs/decide.md: final equity, and liquidations or stops. Then sets of VolTarget
are swept on the minutes, decided every hour and every minute, in turn; prints both times and their
ratio. There are no mark prices in the folder: last prices stand for them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from typing import Any

import backtest as bt
from backtest.strategies import Constant, VolTarget

os.environ["BACKTEST_COMPILE"] = "now"  # compiled code is timed
ACCOUNT = bt.Account(capital=10_000.0, max_leverage=125.0)
STOPPED = bt.Account(capital=10_000.0, max_leverage=125.0, equity_stop=0.1)
CASES = (
    (ACCOUNT, "liquidations", (5.0, 20.0, 30.0, 40.0)),
    (STOPPED, "stops", (5.0, 10.0, 20.0)),
)
HALF_LIVES = [3.0, 6.0, 12.0, 24.0]
ROUNDS = 3
SHOWN = ("hours", "hours, half with minutes", "minutes, by hour", "minutes, by minute")


def measure_row(minutes: bt.Market, leverage: float, kind: str, given: dict[str, Any]) -> Any:
    """Return the final equity of one leverage and the number of its exits, four times."""
    hours, policy = minutes.resample("1h"), Constant(leverage=leverage)
    half = minutes.slice(minutes.n_bars // 2, minutes.n_bars)
    found = (
        bt.run(hours, policy, **given),
        bt.run(hours, policy, detail=half, **given),
        bt.run(minutes, policy, decide="1h", **given),
        bt.run(minutes, policy, **given),
    )
    cells = [[run.metrics["final_equity"], run.metrics[kind]] for run in found]
    return {"exits": kind, "leverage": leverage, **dict(zip(SHOWN, cells, strict=True))}


def measure_speed(minutes: bt.Market, sets: int, given: dict[str, Any]) -> dict[str, float]:
    """Return the median seconds of a sweep decided every hour and every minute, and the ratio."""
    n = sets // len(HALF_LIVES)
    grid = {"target": [0.05 + 1.95 * k / n for k in range(n)], "half_life": HALF_LIVES}
    times: dict[str, list[float]] = {"1h": [], "1m": []}
    for _ in range(ROUNDS + 1):
        for decide, own in times.items():
            begin = time.perf_counter()
            bt.sweep(minutes, VolTarget, grid, decide=decide, **given)
            own.append(time.perf_counter() - begin)
    slow, each = (statistics.median(own[1:]) for own in times.values())
    return {"1h": slow, "1m": each, "ratio": slow / each}


def main() -> None:
    """Run all, and print the table and the speed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--from", dest="start", default="2025-05-04 16:00")
    parser.add_argument("--to", dest="end", default="2025-06-03 08:00")
    parser.add_argument("--sets", type=int, default=1024)
    wanted = parser.parse_args()
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no mark prices: said above
        between = (wanted.start, wanted.end)
        minutes = bt.Market.load(wanted.folder, mark_gaps="last", between=between)
        rows = [
            measure_row(minutes, leverage, kind, {"venue": venue, "account": account})
            for account, kind, leverages in CASES
            for leverage in leverages
        ]
        speed = measure_speed(minutes, wanted.sets, {"venue": venue, "account": ACCOUNT})
    if wanted.json:
        sys.stdout.write(json.dumps({"accounts": rows, "seconds": speed}, indent=1) + "\n")
        return
    lines = [f"| exits | leverage | {' | '.join(SHOWN)} |", "|---" * 6 + "|"]
    for row in rows:
        cells = [f"{row[name][0]:,.0f}; {row[name][1]:.0f}" for name in SHOWN]
        lines.append(f"| {row['exits']} | {row['leverage']:g} | {' | '.join(cells)} |")
    lines.append(
        f"\n{wanted.sets:,} sets: {speed['1h']:.2f} s by hour, {speed['1m']:.2f} s by minute, "
        f"ratio {speed['ratio']:.2f}"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
