"""Margin tables: brackets with their amounts, and the days on which each table is in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, NamedTuple

from backtest import core
from backtest.core import Faults, Value
from backtest.core.fields import COST, NOT_NEGATIVE, OVER_ZERO, POSITIVE
from backtest.core.units import TOLERANCE

AMOUNT_SLACK = 0.02


AMOUNT_SLACK_RELATIVE = 1e-6
"""How far a published cumulative amount may be from the derived one: venues round theirs."""


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
        Cumulative amount: MM(N) = maintenance_rate N - amount. Derived; one that is given is
        checked.
    """

    floor: Annotated[float, NOT_NEGATIVE]
    cap: Annotated[float, OVER_ZERO]
    max_leverage: Annotated[float, POSITIVE]
    maintenance_rate: Annotated[float, COST]
    amount: Annotated[float | None, NOT_NEGATIVE] = None

    def faults(self) -> Faults:
        if not self.cap > self.floor:
            yield "cap", f"must be over the floor {self.floor:.12g}"
        yield from self.find_demand_faults(0.0)

    def find_demand_faults(self, close_fee: float) -> Faults:
        """Yield a demand over 1 at the largest leverage: rates of maintenance and of closing."""
        demand = (self.maintenance_rate + close_fee) * self.max_leverage
        if demand > 1 + TOLERANCE:
            rate = "maintenance_rate"
            if close_fee:
                rate = "(maintenance_rate + closing fee)"
            rule = f"must be at most 1 / {rate}, or an order is liquidated at once"
            yield "max_leverage", f"{rule}: their product is {demand:g}"


def derive_amounts(brackets: Sequence[Bracket]) -> list[float]:
    """Return c_k = c_{k-1} + f_k (r_k - r_{k-1}) of each bracket, in the settlement currency.

    In exact fractions of the written decimals: the amounts that venues publish, to the last digit.
    """
    amounts = []
    amount = Fraction(0)
    last_rate = Fraction(0)
    for row in brackets:
        rate = Fraction(repr(row.maintenance_rate))
        floor = Fraction(repr(row.floor))
        amount += floor * (rate - last_rate)
        last_rate = rate

        amounts.append(float(amount))
    return amounts


def find_table_faults(
    table: Sequence[Bracket], place: str, close_fee: float = 0.0, *, is_spot: bool = False
) -> Faults:
    """Yield what is wrong with a margin table, row by row, and then between rows.

    ``place`` is the field of the table, ``close_fee`` the fee rate that the venue adds to each
    maintenance rate, 0 for none.
    """
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
        # Without a closing fee the row has said so itself.
        if close_fee:
            for name, rule in row.find_demand_faults(close_fee):
                yield f"{place}.{k}.{name}", rule

    # A bracket begins where the one below ends, with a higher rate and no higher leverage.
    for k, (lower, row) in enumerate(pairwise(table), start=1):
        if row.floor != lower.cap:
            yield f"{place}.{k}.floor", f"must be {lower.cap:.12g}, the cap before it"
        if not row.maintenance_rate > lower.maintenance_rate:
            rule = f"must be over {lower.maintenance_rate}, the one before it"
            yield f"{place}.{k}.maintenance_rate", rule
        if row.max_leverage > lower.max_leverage:
            rule = f"must be at most {lower.max_leverage:g}, the one before it"
            yield f"{place}.{k}.max_leverage", rule


def complete_table(table: Sequence[Bracket]) -> tuple[Bracket, ...]:
    """Return a margin table in which each bracket has its amount, derived from floors and rates."""
    rows = []
    for row, amount in zip(table, derive_amounts(table), strict=True):
        complete = row
        if row.amount != amount:
            complete = replace(row, amount=amount)
        rows.append(complete)
    return tuple(rows)


class InForce(Value, kw_only=True):
    """The preset or listing, and the days, that the brackets of a venue come from.

    Parameters
    ----------
    preset : str
        The preset and its symbol, or the file and the symbol of a listing, ``tiers.json#BTCUSDT``.
    since : str or None
        The day on which the oldest table came into force or, if no source says that, was read;
        None if a listing has no day.
    until : str or None
        The day of the preset's next table, if there is one.
    like : str or None
        Of a listing, the preset of the rules that it does not state.
    listed : sequence of str
        What a listing states.
    """

    _omitted = frozenset({"like", "listed"})

    preset: Annotated[str, core.Text()]
    since: Annotated[str | None, core.Time()] = None
    until: Annotated[str | None, core.Time()] = None
    like: Annotated[str | None, core.Text()] = None
    listed: Annotated[Sequence[str], core.AS_TUPLE] = ()

    @property
    def symbol(self) -> str:
        """The venue's name of the instrument."""
        separator = ":"
        if self.like:
            separator = "#"
        return self.preset.rpartition(separator)[2]


class ChangedFrom(Value, kw_only=True):
    """The preset that the rules of a venue are of, where its margin table is another one's.

    ``override`` writes it, so that what a preset assumes is not taken for what a user said.

    Parameters
    ----------
    preset : str
        The preset and its symbol, ``"reg-t:STOCK"``.
    stated : sequence of str
        The interest rates that were set, also where they are the preset's.
    """

    preset: Annotated[str, core.Text()]
    stated: Annotated[Sequence[str], core.AS_TUPLE] = ()


class Earlier(Value, kw_only=True):
    """A margin table that a later one replaced at bars that open at ``until`` (UTC) or later."""

    until: Annotated[str, core.Time()]
    brackets: Annotated[Sequence[Bracket], core.AS_TUPLE]

    def faults(self) -> Faults:
        yield from find_table_faults(self.brackets, "brackets")

    def _settle(self) -> None:
        self._set_fields(brackets=complete_table(self.brackets))

    @property
    def end(self) -> int:
        """``until`` in ns."""
        return core.to_nanoseconds(self.until)


class InUse(NamedTuple):
    """A margin table with its day, and the bars to which it applies: ``first`` up to ``stop``."""

    since: str | None
    brackets: Sequence[Bracket]
    first: int
    stop: int
