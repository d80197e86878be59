"""Margin brackets: a venue's table of leverage and maintenance margin by notional."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, ParameterError, Value, VenueError, check_number
from backtest.base.units import TOLERANCE

AMOUNT_SLACK = 0.02
AMOUNT_SLACK_RELATIVE = 1e-6
"""How far a published cumulative amount may be from the derived one: venues round theirs."""


@dataclass(frozen=True, eq=False, repr=False)
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
    VenueError
        Listing all defects of the row.
    """

    floor: float
    cap: float
    max_leverage: float
    maintenance_rate: float
    amount: float | None = None

    def __post_init__(self) -> None:
        defects = self._convert_numbers() or self._find_defects()
        if defects:
            raise VenueError(
                "; ".join(defects),
                where=f"Bracket(floor={self.floor!r}, cap={self.cap!r})",
                cure="give 0 <= floor < cap, 0 < maintenance_rate < 1 and "
                "0 < max_leverage <= 1 / maintenance_rate",
            )

    def _convert_numbers(self) -> list[str]:
        defects = []
        for each in fields(self):
            name, value = each.name, getattr(self, each.name)
            if name == "amount" and value is None:
                continue
            try:
                self._set_fields(**{name: float(check_number(name, value, where=name))})
            except ParameterError as error:
                defects.append(error.problem)
        return defects

    def _find_defects(self) -> list[str]:
        rate, leverage = self.maintenance_rate, self.max_leverage
        demand = rate * leverage
        rules = (
            (0 <= self.floor < np.inf, f"floor must be at least 0 and finite, got {self.floor}"),
            (self.cap > self.floor, f"cap must be over the floor, got {self.cap}"),
            (0 < leverage < np.inf, f"max_leverage must be over 0 and finite, got {leverage}"),
            (0 <= rate < 1, f"maintenance_rate must be at least 0 and below 1, got {rate}"),
            (not demand > 1 + TOLERANCE, _describe_demand("maintenance_rate", demand)),
            (self.amount is None or 0 <= self.amount < np.inf,
             f"amount must be at least 0 and finite, got {self.amount}"),
        )  # fmt: skip
        return [problem for holds, problem in rules if not holds]


class BracketArrays(NamedTuple):
    """A margin table as float64 arrays of shape (n_brackets,)."""

    floors: FloatArray
    caps: FloatArray
    rates: FloatArray
    amounts: FloatArray
    leverages: FloatArray


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


def complete_table(
    brackets: Sequence[Bracket], close_fee: float, *, is_spot: bool = False
) -> tuple[Bracket, ...]:
    if (
        not isinstance(brackets, Sequence)
        or not brackets
        or not all(isinstance(row, Bracket) for row in brackets)
    ):
        raise VenueError(
            f"brackets must be a list of at least one Bracket, got {brackets!r}",
            where="Venue.brackets",
            cure="give brackets=[Bracket(0.0, cap, max_leverage, maintenance_rate), ...]",
        )
    amounts = derive_amounts(brackets)
    defects = [
        f"bracket {k + 1} (floor {row.floor:.12g}): {defect}"
        for k, row in enumerate(brackets)
        for defect in (
            *_check_order(brackets[k - 1] if k else None, row),
            *_check_amount(row, amounts[k]),
            *_check_demand(row, close_fee),
            *_check_rate(row, is_spot=is_spot),
        )
    ]
    if defects:
        raise VenueError(
            "brackets must form a table:\n  " + "\n  ".join(defects),
            where="Venue.brackets",
            cure="repair those rows with the venue's table, or leave amounts out to derive them",
        )
    return tuple(replace(row, amount=amounts[k]) for k, row in enumerate(brackets))


def _check_order(before: Bracket | None, row: Bracket) -> list[str]:
    if before is None:
        first = f"floor must be 0, where the table begins, got {row.floor:.12g}"
        return [] if row.floor == 0 else [first]
    rules = (
        (row.floor == before.cap,
         f"floor must be {before.cap:.12g}, the cap before it, got {row.floor:.12g}"),
        (row.maintenance_rate > before.maintenance_rate,
         f"maintenance_rate must be over {before.maintenance_rate}, the one before it, "
         f"got {row.maintenance_rate}"),
        (row.max_leverage <= before.max_leverage,
         f"max_leverage must be at most {before.max_leverage:g}, the one before it, "
         f"got {row.max_leverage:g}"),
    )  # fmt: skip
    return [problem for holds, problem in rules if not holds]


def _check_amount(row: Bracket, derived: float) -> list[str]:
    slack = AMOUNT_SLACK + AMOUNT_SLACK_RELATIVE * abs(derived)
    if row.amount is None or abs(row.amount - derived) <= slack:
        return []
    return [f"amount must be {derived!r}, derived from floors and rates, got {row.amount!r}"]


def _check_rate(row: Bracket, *, is_spot: bool) -> list[str]:
    if is_spot == (row.maintenance_rate == 0.0):
        return []
    if is_spot:
        return [f"maintenance_rate of a spot contract must be 0, got {row.maintenance_rate}"]
    return [f"maintenance_rate must be over 0, got {row.maintenance_rate}"]


def _check_demand(row: Bracket, close_fee: float) -> list[str]:
    demand = (row.maintenance_rate + close_fee) * row.max_leverage
    name = "maintenance_rate with the closing fee"
    return [_describe_demand(name, demand)] if demand > 1 + TOLERANCE else []


def _describe_demand(name: str, demand: float) -> str:
    return (
        f"{name} x max_leverage must be at most 1, or an order at max_leverage is liquidated "
        f"at once, got {demand:g}"
    )
