"""A cross account closes its winner because another position lost: the example of the docs.

    python benchmarks/contagion.py [--out docs/contagion.svg]

Runs the account in cross and in isolated margin, prints what is left of it as JSON, and draws the
backing and the requirement of both along the bar in which they fail.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Annotated, NamedTuple

import pandas as pd

import backtest as bt

PICTURE = Path(__file__).parent.parent / "docs" / "contagion.svg"
RATE = 0.05
"""Maintenance rate of both venues."""
RISE = {"A": 0.04, "B": 0.25}
"""How far each price rises along the last bar, as a fraction."""
HELD = {"A": 4000.0, "B": -6000.0}
"""Notional at the open of the last bar; negative for a short."""
PRICE = {"A": 100.0, "B": 1.0}
CAPITAL = 1000.0
WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 200, 20, 40


class OpenOnce(bt.Policy):
    """Open at the first close and leave the position alone ever after."""

    turns: Annotated[float, bt.Range(0.0, 125.0, "turns of equity")] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the leverage within the first hour, then NaN."""
        return self.turns if account.days < 0.05 else math.nan


class Line(NamedTuple):
    """A straight line over the share of the way: start, change, color, dashes and name."""

    start: float
    change: float
    color: str
    dashes: str
    name: str


def make_markets() -> bt.Markets:
    """Return three hours: two without a move, then the rise."""
    time = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC", name="time")
    markets = {}
    for name, price in PRICE.items():
        end = price * (1.0 + RISE[name])
        rows = [(price,) * 4, (price,) * 4, (price, end, price, end)]
        frame = pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=time)
        frame = frame.assign(volume=1e9)
        markets[name] = bt.Market.from_frames(frame, mark=frame, instrument=name)
    return bt.Markets(markets)


def live(margin: str) -> bt.Result:
    """Run the account, with 10x set at the venue in isolated margin."""
    venue = bt.Venue.simple(
        taker=0.0, slippage=0.0, maintenance_rate=RATE, max_leverage=16, liquidation_fee=0.0
    )
    account = bt.Account(
        capital=CAPITAL, margin=margin, venue_leverage=10 if margin == "isolated" else None
    )
    most = max(map(abs, HELD.values()))  # a signal is at most 1
    return bt.run(
        make_markets(),
        OpenOnce(turns=most / CAPITAL),
        venue=venue,
        account=account,
        signal={name: notional / most for name, notional in HELD.items()},
        compile=False,
    )


def find_failure(backing: Line, requirement: Line) -> float:
    """Return the share of the way at which two lines meet."""
    return (backing.start - requirement.start) / (requirement.change - backing.change)


def make_lines() -> list[tuple[Line, Line]]:
    """Return backing and requirement of the cross account, and of B alone at 10x."""
    gains = {name: HELD[name] * RISE[name] for name in HELD}
    gross = sum(map(abs, HELD.values()))
    growth = sum(abs(gains[name]) for name in HELD)
    own = abs(HELD["B"])
    return [
        (
            Line(CAPITAL, sum(gains.values()), "#1f6feb", "", "backing, cross"),
            Line(RATE * gross, RATE * growth, "#1f6feb", "6 4", "requirement, cross"),
        ),
        (
            Line(own / 10, gains["B"], "#d1242f", "", "margin of B, isolated"),
            Line(RATE * own, RATE * abs(gains["B"]), "#d1242f", "6 4", "requirement of B"),
        ),
    ]


def place(share: float, money: float) -> tuple[float, float]:
    """Return where a point of the chart is on the picture."""
    x = LEFT + share * (WIDTH - LEFT - RIGHT)
    return x, TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - money / (1.05 * CAPITAL))


def draw(pairs: list[tuple[Line, Line]]) -> str:
    """Return the picture as SVG."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
    head += 'font-family="sans-serif" font-size="12">'
    parts = [head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *draw_axes()]
    for row, line in enumerate(line for pair in pairs for line in pair):
        parts += draw_line(line, TOP + 12 + 22 * row)
    for backing, requirement in pairs:
        parts += draw_failure(backing, requirement)
    return "\n".join([*parts, "</svg>", ""])


def draw_axes() -> list[str]:
    """Return the grid with its labels."""
    parts = []
    for money in range(0, 1001, 250):
        x, y = place(0.0, money)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}" stroke="#d8dee4"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{money:,}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(share, 0.0)
        parts.append(write_text(x, y + 18.0, f"{share:.0%}"))
    middle, _ = place(0.5, 0.0)
    return [*parts, write_text(middle, HEIGHT - 4.0, "share of the way from open to close")]


def write_text(x: float, y: float, text: str) -> str:
    """Return centered text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text>'


def draw_line(line: Line, row: int) -> list[str]:
    """Return a line, down to 0 at most, and its entry in the legend."""
    last = min(1.0, line.start / -line.change) if line.change < 0.0 else 1.0
    (x0, y0), (x1, y1) = place(0.0, line.start), place(last, line.start + last * line.change)
    dash = f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
    style = f'fill="none" stroke="{line.color}" stroke-width="2"{dash}'
    side = WIDTH - RIGHT + 16
    return [
        f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" {style}/>',
        f'<path d="M{side} {row}h24" {style}/>',
        f'<text x="{side + 32}" y="{row + 4}">{line.name}</text>',
    ]


def draw_failure(backing: Line, requirement: Line) -> list[str]:
    """Return the point at which a backing meets its requirement."""
    share = find_failure(backing, requirement)
    x, y = place(share, backing.start + share * backing.change)
    text = f'<text x="{x + 10:.1f}" y="{y - 8:.1f}" fill="{backing.color}">'
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{backing.color}"/>',
        f"{text}fails at {share:.1%}</text>",
    ]


def main() -> None:
    """Run both accounts, draw the picture, and print what is left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=PICTURE)
    wanted = parser.parse_args()
    lines = make_lines()
    wanted.out.write_text(draw(lines), encoding="utf-8")
    report = {"picture": str(wanted.out)}
    for (backing, requirement), margin in zip(lines, ("cross", "isolated"), strict=True):
        report[margin] = {
            "fails_at": find_failure(backing, requirement),
            "final_equity": live(margin).metrics["final_equity"],
        }
    print(json.dumps(report))  # noqa: T201 - a script


if __name__ == "__main__":
    main()
