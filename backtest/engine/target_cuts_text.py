"""How often and how far limits cut the targets of an account: as rows, and in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import FloatArray, IntArray, format_leverage, format_percent

if TYPE_CHECKING:
    from backtest.account import Account

WORDS = {
    "min_leverage": "the account's min_leverage",
    "max_leverage": "the account's max_leverage",
    "band": "the band",
    "unfilled": "limit orders that did not fill",
    "initial_margin": "initial margin",
    "venue_leverage": "the venue leverage",
    "wallet": "the wallet (isolated margin)",
    "participation": "max_participation",
    "lot": "lots",
    "min_notional": "the least notional",
    "max_gross_leverage": "the account's max_gross_leverage",
    "margin_call": "an unmet margin call",
}
LEAST_SHARE = 0.05
"""Limits are mentioned if they moved the decisions that they touched by this share on average."""
EITHER_WAY = 0.5
"""A limit moves targets either way if its mean shortfall is below this share of its distance."""


def describe_targets(rows: Sequence[Mapping[str, Any]], noun: str = "") -> Iterator[str]:
    if not rows:
        yield "not measured: the result was saved without them"
        return
    total = rows[0]
    if not total["decisions"]:
        yield "none reached an open"
        return
    shown = [row for row in rows[1:] if is_large(row, total)]
    start = (
        f"asked for {format_leverage(total['mean_asked'])}{noun} on average, held "
        f"{format_leverage(total['mean_held'])} after the fill, over "
        f"{total['decisions']:,} decisions"
    )
    yield start if shown else f"{start}; no limit moved those it touched by 5 % or more on average"
    yield from map(describe_cut, shown)


def is_large(row: Mapping[str, Any], total: Mapping[str, Any]) -> bool:
    asked = max(abs(float(row["mean_asked"])), abs(float(total["mean_asked"])))
    return bool(row["mean_distance"] >= LEAST_SHARE * asked)


def describe_cut(row: Mapping[str, Any]) -> str:
    often = f"at {row['decisions']:,} decisions ({format_percent(row['share'], 1)})"
    means = f"asked {format_leverage(row['mean_asked'])}, held {format_leverage(row['mean_held'])}"
    words = WORDS[row["cause"]]
    if row["cause"] == "band":
        apart = format_leverage(row["mean_distance"])
        return f"left alone within {words} {often}, {apart} from the target on average"
    if row["cause"] == "max_leverage" and "days" in row:
        often += f" on {count_days(row['days'])}"
    moved, distance = float(row["mean_shortfall"]), float(row["mean_distance"])
    how = f"{'cut' if moved >= 0.0 else 'raised'} by {format_leverage(abs(moved))}"
    if abs(moved) < EITHER_WAY * distance:
        how = f"cut or raised by {format_leverage(distance)}"
    return f"{how} on average by {words} {often}: {means}"


def count_days(days: int) -> str:
    return f"{days:,} day{'s' * (days != 1)}"


def describe_isolated(account: Account) -> str:
    if account.margin != "isolated":
        return ""
    setting = account.venue_leverage or 1.0
    rest = "the rest of the wallet does not back it"
    if account.auto_margin:
        rest = "the rest of the wallet is added to it before a liquidation"
    posted = f"its notional / {setting:g}, the venue leverage"
    return f"isolated: the margin of a position is {posted}; {rest}"


def average_row(
    cause: str, cut: FloatArray, asked: FloatArray, held: FloatArray, day: IntArray, total: int
) -> dict[str, Any]:
    columns = {
        "mean_asked": asked,
        "mean_held": held,
        "mean_shortfall": cut,
        "mean_distance": np.abs(cut),
    }
    n = len(cut)
    return {
        "cause": cause,
        "decisions": n,
        "share": n / total if total else math.nan,
        **{name: float(np.mean(x)) if n else math.nan for name, x in columns.items()},
        "days": len(np.unique(day)),
    }
