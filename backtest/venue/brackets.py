"""Margin brackets: tables of leverage and maintenance margin by notional, and their days."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from backtest.base import (
    AS_TUPLE,
    Declaration,
    Faults,
    IntArray,
    Number,
    Text,
    Time,
    Value,
    declared,
    format_time,
    read_time,
    to_nanoseconds,
)
from backtest.base.fields import COST, NOT_NEGATIVE, POSITIVE
from backtest.base.units import TOLERANCE
from backtest.venue import preset_files

AMOUNT_SLACK = 0.02
AMOUNT_SLACK_RELATIVE = 1e-6
"""How far a published cumulative amount may be from the derived one: venues round theirs."""


@declared
class Bracket(Value):
    """One row of a venue's margin table.

    Parameters
    ----------
    floor, cap : float
        The notionals that it covers, floor < N <= cap, in the settlement currency; the last cap of
        a table may be infinite.
    max_leverage : float
        Largest leverage of an order that reaches into this bracket.
    maintenance_rate : float
        Maintenance margin per unit of notional, between 0 and 1; 0 only of spot contracts.
    amount : float or None
        Cumulative amount: MM(N) = maintenance_rate N - amount. A venue derives it; if it is given,
        the venue checks it.

    Raises
    ------
    ParameterError
        Listing all faults of the row.
    """

    floor: Annotated[float, NOT_NEGATIVE]
    cap: Annotated[float, Number(0, open_low=True, may_be_infinite=True)]
    max_leverage: Annotated[float, POSITIVE]
    maintenance_rate: Annotated[float, COST]
    amount: Annotated[float | None, NOT_NEGATIVE] = None

    def faults(self) -> Faults:
        """Yield a row that covers nothing, or that liquidates its orders at once."""
        if not self.cap > self.floor:
            yield "cap", f"must be over the floor {self.floor:.12g}"
        yield from self.find_demand_faults(0.0)

    def find_demand_faults(self, close_fee: float) -> Faults:
        """Yield a demand over 1 at the largest leverage: rates of maintenance and of closing."""
        demand = (self.maintenance_rate + close_fee) * self.max_leverage
        if demand > 1 + TOLERANCE:
            rate = "(maintenance_rate + closing fee)" if close_fee else "maintenance_rate"
            rule = f"must be at most 1 / {rate}, or an order is liquidated at once"
            yield "max_leverage", f"{rule}: their product is {demand:g}"


def derive_amounts(brackets: Sequence[Bracket]) -> list[float]:
    """Return the cumulative amount of each bracket, in the settlement currency.

    Notes
    -----
    c_0 = 0, c_k = c_{k-1} + f_k (r_k - r_{k-1}), in exact fractions of the written decimals, so
    that a table gives the amounts that its venue publishes, to the last digit.
    """
    rates = [Fraction(repr(row.maintenance_rate)) for row in brackets]
    amounts = [Fraction(0)]
    for k in range(1, len(rates)):
        floor = Fraction(repr(brackets[k].floor))
        amounts.append(amounts[k - 1] + floor * (rates[k] - rates[k - 1]))
    return [float(amount) for amount in amounts]


def find_table_faults(
    table: Sequence[Bracket], place: str, close_fee: float = 0.0, *, is_spot: bool = False
) -> Faults:
    """Yield what keeps brackets from forming a table; ``place`` is its dotted name."""
    if not table:
        yield place, "must have at least one bracket"
        return
    if table[0].floor != 0:
        yield f"{place}.0.floor", "must be 0, where the table begins"
    for k, (row, derived) in enumerate(zip(table, derive_amounts(table), strict=True)):
        slack = AMOUNT_SLACK + AMOUNT_SLACK_RELATIVE * abs(derived)
        if row.amount is not None and abs(row.amount - derived) > slack:
            yield f"{place}.{k}.amount", f"must be {derived!r}, derived from floors and rates"
        if is_spot != (row.maintenance_rate == 0.0):
            rule = "must be 0 of a spot contract, and over 0 of others"
            yield f"{place}.{k}.maintenance_rate", rule
        for name, rule in row.find_demand_faults(close_fee) if close_fee else ():
            yield f"{place}.{k}.{name}", rule
    for k, (before, row) in enumerate(pairwise(table), 1):
        if row.floor != before.cap:
            yield f"{place}.{k}.floor", f"must be {before.cap:.12g}, the cap before it"
        if not row.maintenance_rate > before.maintenance_rate:
            rule = f"must be over {before.maintenance_rate}, the one before it"
            yield f"{place}.{k}.maintenance_rate", rule
        if row.max_leverage > before.max_leverage:
            rule = f"must be at most {before.max_leverage:g}, the one before it"
            yield f"{place}.{k}.max_leverage", rule


def complete_table(table: Sequence[Bracket]) -> tuple[Bracket, ...]:
    """Return brackets with their amounts."""
    return tuple(
        row if row.amount == amount else replace(row, amount=amount)
        for row, amount in zip(table, derive_amounts(table), strict=True)
    )


class Day(Declaration):
    kind: ClassVar[type] = str

    def read(self, value: Any) -> str:
        read_time(str(value) if type(value) is dt.date else value)
        return preset_files.read_day(value)


@declared(kw_only=True)
class InForce(Value):
    """The preset and the days that the brackets of a venue come from.

    Parameters
    ----------
    preset : str
        The venue and the symbol, ``"binance-usdm:BTCUSDT"``.
    since : str
        The day on which the oldest table came into force or, if no source says that, was read.
    until : str or None
        The day of the preset's next table; None if the newest is included.
    """

    preset: Annotated[str, Text()]
    since: Annotated[str, Day()]
    until: Annotated[str | None, Day()] = None

    def describe_misfit(self, start: int, end: int) -> str:
        """Describe the part of a span, in ns, outside of these days; empty if there is none.

        Examples
        --------
        >>> InForce(preset="x:Y", since="1970-01-03").describe_misfit(0, 10**15)
        'the margin table of x:Y is of 1970-01-03, but the run uses it from 1970-01-01 on'
        """
        parts = []
        if start < to_nanoseconds(self.since):
            parts.append(f"but the run uses it from {format_time(start)[:10]} on")
        if self.until is not None and end > to_nanoseconds(self.until):
            parts.append(f"it was replaced on {self.until}, before the run ends")
        table = f"the margin table of {self.preset} is of {self.since}, "
        return table + " and ".join(parts) if parts else ""


@declared(kw_only=True)
class Earlier(Value):
    """A margin table that was replaced by a later one.

    Parameters
    ----------
    until : str
        The day, or time, in UTC from which the next table applies: to bars that open then or later.
    brackets : sequence of Bracket
        The margin table.
    """

    until: Annotated[str, Time()]
    brackets: Annotated[Sequence[Bracket], AS_TUPLE]

    def faults(self) -> Faults:
        """Yield what keeps the brackets from forming a table."""
        yield from find_table_faults(self.brackets, "brackets")

    def _settle(self) -> None:
        self._set_fields(brackets=complete_table(self.brackets))

    @property
    def end(self) -> int:
        """``until`` in ns."""
        return to_nanoseconds(self.until)


class InUse(NamedTuple):
    since: str | None
    brackets: Sequence[Bracket]
    first: int
    stop: int


def list_in_use(
    tables: Sequence[Sequence[Bracket]],
    days: Sequence[str | None],
    ends: Sequence[int],
    time: IntArray,
) -> list[InUse]:
    """Return the tables that apply to at least one of the bars that open at ``time``.

    ``tables`` and ``days``, from which each applies, are in order from the oldest; ``ends`` are the
    times (ns) at which all but the last end.
    """
    bars = [0, *np.searchsorted(time, np.array(ends, dtype=np.int64)).tolist(), len(time)]
    found = (
        InUse(day, table, first, stop)
        for day, table, (first, stop) in zip(days, tables, itertools.pairwise(bars), strict=True)
    )
    return [each for each in found if each.first < each.stop]
