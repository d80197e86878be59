"""Fee tiers of several positions: the volume of the whole account chooses the rates of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backtest.account.portfolio_records import NUMBERS, Terms
from backtest.base.units import DAY, IntArray
from backtest.engine.fee_days import FeeSchedule, Rates, TradedDays, read_schedule
from backtest.venue import Venue
from backtest.venue.book_tables import pack_brackets

FEE, TAKER = NUMBERS.index("fee"), NUMBERS.index("taker")


class BookFees(NamedTuple):
    """The fee tiers of each instrument, None without any, and the UTC day of each bar."""

    schedules: tuple[FeeSchedule | None, ...]
    day: IntArray

    def write(self, terms: Terms, traded: TradedDays) -> Terms:
        """Return the terms with the rates of a day."""
        for i, schedule in enumerate(self.schedules):
            if schedule is not None:
                terms = write_rates(terms, i, schedule.choose(traded))
        return terms


def read_book_fees(venues: Sequence[Venue], time: IntArray) -> BookFees | None:
    """Return the fee tiers of the venues for bars that open at some times; None if none has any."""
    schedules = tuple(read_schedule(venue, time) for venue in venues)
    return BookFees(schedules, time // DAY) if any(schedules) else None


def write_rates(terms: Terms, i: int, rates: Rates) -> Terms:
    """Return the terms with other fee rates of one instrument."""
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
