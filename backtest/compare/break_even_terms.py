"""Break-even costs: the fee and the funding that reverse the order of two accounts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from backtest.base import list_values
from backtest.compare.compared_accounts import count_years, find_growth
from backtest.compare.compared_terms import Row
from backtest.engine import Result
from backtest.market import as_given, as_markets
from backtest.measures import is_lost
from backtest.venue import Venue, check_no_column, list_numbers

BPS = 1e-4
FEE_STEPS = tuple(bps * BPS for bps in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0))
FUNDING_STEPS = tuple(bps * BPS for bps in (0.25, 0.5, 1.0, 2.0, 5.0, 10.0))
LEAST_GAP = 1e-9
"""Log growths per year that differ by less than this are equal."""
HALVINGS = 12
"""Bisections between two steps."""

ALIKE_GROWTH, BOTH_LOST = "their growth is equal", "both were lost"
COLUMNS = ("policy", "against", "cost", "gap", "added", "low", "high", "note")


class BreakEven(NamedTuple):
    """The cost that reverses the order of two accounts if it is added to both.

    ``gap`` is the log growth per year of ``policy`` less that of ``against`` as they ran. ``added``
    is the cost at which it changes its sign, nearest to 0; None if none was found from ``low`` to
    ``high``, or for the reason in ``note``.
    """

    policy: str
    against: str
    cost: str
    gap: float
    added: float | None
    low: float
    high: float
    note: str = ""


def find_turns(
    rows: Mapping[str, Row], results: Mapping[str, Result], baseline: str
) -> list[dict[str, Any]]:
    grow = Growths(rows, results)
    found = []
    for name in (each for each in rows if each != baseline):
        found += [
            find_break_even_fee(grow, name, baseline)._asdict(),
            find_break_even_funding(grow, name, baseline)._asdict(),
        ]
    return found


class Growths:
    """Log growth per year of accounts with a cost added; each is run once."""

    def __init__(self, rows: Mapping[str, Row], results: Mapping[str, Result]) -> None:
        self.rows = rows
        self.lost = {name for name, result in results.items() if is_lost(result.metrics)}
        self.known = {
            (name, cost, 0.0): measure_growth(result)
            for name, result in results.items()
            for cost in ("fee", "funding")
        }

    def gap(self, one: str, other: str, cost: str, added: float) -> float:
        return self.grow(one, cost, added) - self.grow(other, cost, added)

    def grow(self, name: str, cost: str, added: float) -> float:
        key = (name, cost, added)
        if key not in self.known:
            row = self.rows[name]
            policy: Any = row.entry  # results are refused where costs are changed
            changes = add_fee(row, added) if cost == "fee" else add_funding(row, added)
            self.known[key] = measure_growth(row.setting.run(policy, **changes))
        return self.known[key]


def measure_growth(result: Result) -> float:
    """Return the log growth of a result per year; -inf after ruin."""
    return find_growth(result, count_years(result))


def add_fee(row: Row, added: float) -> dict[str, Any]:
    given = row.setting.venue
    if isinstance(given, Venue):
        return {"venue": change_fees(given, added)}
    return {"venue": {name: change_fees(venue, added) for name, venue in given.items()}}


def change_fees(venue: Venue, added: float) -> Venue:
    fees = venue.fees
    for name in ("taker", "maker"):
        check_no_column(getattr(fees, name), f"Fees.{name}")
    tiers = [
        dataclasses.replace(each, taker=each.taker + added, maker=each.maker + added)
        for each in fees.tiers
    ]
    changed = dataclasses.replace(
        fees,
        taker=fees.taker + added,  # type: ignore[operator] # not a column
        maker=fees.maker + added,  # type: ignore[operator]
        tiers=tiers,
    )
    return dataclasses.replace(venue, fees=changed)


def add_funding(row: Row, added: float) -> dict[str, Any]:
    given = row.setting.market
    markets = as_markets(given)
    changed = {
        name: dataclasses.replace(each, funding_rate=each.funding_rate + added)
        for name, each in markets.items()
    }
    return {"market": as_given(markets.with_markets(changed), given)}


def find_break_even_fee(grow: Growths, one: str, other: str) -> BreakEven:
    given = [grow.rows[name].setting.venue for name in (one, other)]
    venues = [each for own in given for each in list_values(own)]
    least = min(map(find_least_fee, venues))
    down = tuple(-step for step in FEE_STEPS if step < least)
    down += (-least,) if least > 0.0 else ()
    return search_break_even(grow, one, other, "fee", FEE_STEPS, down)


def find_least_fee(venue: Venue) -> float:
    check_no_column(venue.fees.taker, "Fees.taker")
    own: list[float] = list_numbers(venue.fees.taker).tolist()
    return float(min([*own, *(tier.taker for tier in venue.fees.tiers)]))


def find_break_even_funding(grow: Growths, one: str, other: str) -> BreakEven:
    markets = as_markets(grow.rows[one].setting.market)
    if not any(each.funding_time.size for each in markets.values()):
        gap = grow.gap(one, other, "funding", 0.0)
        return BreakEven(one, other, "funding", gap, None, 0.0, 0.0, "the data have no funding")
    down = tuple(-step for step in FUNDING_STEPS)
    return search_break_even(grow, one, other, "funding", FUNDING_STEPS, down)


def search_break_even(
    grow: Growths,
    one: str,
    other: str,
    cost: str,
    up: tuple[float, ...],
    down: tuple[float, ...],
) -> BreakEven:
    def gap(added: float) -> float:
        return grow.gap(one, other, cost, added)

    first = math.nan if {one, other} <= grow.lost else gap(0.0)
    found = BreakEven(one, other, cost, first, None, min(down, default=0.0), max(up))
    if math.isnan(first):
        return found._replace(note=BOTH_LOST)
    if abs(first) < LEAST_GAP:
        return found._replace(note=ALIKE_GROWTH)
    before = {1: 0.0, -1: 0.0}
    for step in sorted((*up, *down), key=abs):
        side = 1 if step > 0.0 else -1
        if gap(step) * first < 0.0:
            return found._replace(added=bisect(gap, before[side], step, first))
        before[side] = step
    return found._replace(note="none in range")


def bisect(gap: Callable[[float], float], low: float, high: float, first: float) -> float:
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if gap(middle) * first < 0.0:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)
