"""Fees by the account's own volume: the traded notional by UTC day, and the rates it leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import Terms
from backtest.account.portfolio_records import NUMBERS
from backtest.base import FloatArray, IntArray
from backtest.base.units import DAY
from backtest.venue import find_newest, pack_brackets

if TYPE_CHECKING:
    from backtest.venue import FeeTier, Venue

FEE, TAKER = NUMBERS.index("fee"), NUMBERS.index("taker")
WINDOW = 30
"""Days of the volume that chooses a tier."""
ROUNDING = 1e-9
"""Relative rounding of a volume that reaches a tier."""


class TradedDays(NamedTuple):
    """Traded notional by UTC day: ``today``, of day number ``day``, and the 30 days before it.

    ``past`` has shape (30,), the oldest day first.
    """

    day: int
    today: float
    past: FloatArray

    def at(self, day: int) -> TradedDays:
        passed = min(day - self.day, WINDOW + 1)
        if passed <= 0:
            return self
        rows = np.concatenate([self.past, [self.today], np.zeros(passed - 1)])
        return TradedDays(day, 0.0, rows[-WINDOW:])

    def add(self, amount: float) -> TradedDays:
        return self._replace(today=self.today + amount)

    def sum_past(self) -> float:
        total = 0.0  # not sum(), which rounds in another way from Python 3.12 on
        for amount in self.past.tolist():
            total += amount
        return total

    def to_dict(self) -> dict[str, Any]:
        return {"day": self.day, "today": self.today, "past": self.past.tolist()}


def read_traded(data: Mapping[str, Any] | None) -> TradedDays | None:
    if data is None:
        return None
    return TradedDays(data["day"], data["today"], np.array(data["past"], dtype=np.float64))


def start_day(day: IntArray, traded: TradedDays | None, t: int) -> tuple[TradedDays, int]:
    now, end = int(day[t]), int(np.searchsorted(day, day[t], side="right"))
    return (TradedDays(now, 0.0, np.zeros(WINDOW)) if traded is None else traded.at(now)), end


class Rates(NamedTuple):
    taker: float
    maker: float
    maker_share: float

    @property
    def blended(self) -> float:
        return self.taker * (1.0 - self.maker_share) + self.maker * self.maker_share


class FeeSchedule(NamedTuple):
    day: IntArray
    tiers: tuple[FeeTier, ...]
    first: Rates
    charged: tuple[tuple[int, float], ...] = ()

    def choose(self, traded: TradedDays) -> Rates:
        rates = self.first
        volume = traded.sum_past() * (1.0 + ROUNDING)
        for tier in self.tiers:
            if volume >= tier.volume:
                rates = rates._replace(taker=tier.taker, maker=tier.maker)
        return rates


def read_schedule(venue: Venue, time: IntArray) -> FeeSchedule | None:
    fees = venue.fees
    if not fees.tiers:
        return None
    first = Rates(find_newest(fees.taker), find_newest(fees.maker), fees.maker_share)
    return FeeSchedule(time // DAY, tuple(fees.tiers), first)


# --------------------------------------------------------------------------- of several positions


class PortfolioFees(NamedTuple):
    schedules: tuple[FeeSchedule | None, ...]
    day: IntArray

    def write(self, terms: Terms, traded: TradedDays) -> Terms:
        for i, schedule in enumerate(self.schedules):
            if schedule is not None:
                terms = write_rates(terms, i, schedule.choose(traded))
        return terms


def read_portfolio_fees(venues: Sequence[Venue], time: IntArray) -> PortfolioFees | None:
    schedules = tuple(read_schedule(venue, time) for venue in venues)
    return PortfolioFees(schedules, time // DAY) if any(schedules) else None


def write_rates(terms: Terms, i: int, rates: Rates) -> Terms:
    own, numbers = list(terms.instruments), terms.numbers.copy()
    makers = terms.makers.copy()
    makers[i] = rates.maker
    margin = own[i].margin._replace(taker=rates.taker)
    own[i] = own[i]._replace(fee=rates.blended, taker=rates.taker, margin=margin)
    numbers[FEE, i], numbers[TAKER, i] = rates.blended, rates.taker
    width = terms.rules.brackets.floors.shape[1]
    brackets = pack_brackets([each.margin for each in own], width)
    rules = terms.rules._replace(brackets=brackets)
    return terms._replace(instruments=own, numbers=numbers, makers=makers, rules=rules)
