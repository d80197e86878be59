"""What portfolio margin adds for options: the tenor of volatility moves, charges, discounts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from backtest.base import (
    Declaration,
    Fault,
    Faults,
    Number,
    ParameterError,
    Value,
    declared,
    repr_plain,
)
from backtest.base.fields import NOT_NEGATIVE, POSITIVE
from backtest.venue.scenario_fields import Row, is_list, read_row


@dataclass(frozen=True)
class Figures(Declaration):
    count: int
    number: Number = NOT_NEGATIVE

    def read(self, value: Any) -> tuple[float, ...]:
        if not is_list(value) or len(value) != self.count:
            raise Fault(f"must be {self.count} numbers")
        return tuple(float(self.number.read(each)) for each in value)


@declared(kw_only=True)
class OptionShocks(Value):
    """What :class:`ScenarioMargin` adds for options; all of it is off by default.

    Parameters
    ----------
    power : (float, float)
        A move of volatility is multiplied by ``(days / max(T, least_days)) ** power`` for T days to
        expiry: the first power up to ``days``, the second beyond.
    days, least_days : float
        As above.
    least_volatility : float
        The lowest volatility of a row in which volatility rises.
    short_charge : (float, float)
        Maintenance and initial charge per unit of notional that is net short by strike and expiry.
    delta_charge : (float, float)
        What is added to the worst loss per unit of the absolute delta of the options of each
        expiry: the least, and that per year to expiry; the larger counts.
    futures_range : float
        The largest move of futures; rows beyond it move options only.
    discounts : six numbers, optional
        Base, multiple of the rate and addition for an expiry worth over 0 in a scenario, which is
        multiplied by ``base exp(-T (multiple rate + addition))``; then those for one worth less,
        multiplied by ``base exp(T (multiple rate + addition))``, at most by ``exp(rate T)``.
    skew : eight numbers, optional
        Two rows that turn the smile: cap and its slope by root of T of the linear and of the
        absolute row; least width, scale of the width, volatility level and its slope. The result
        of each expiry counts as a loss.
    expiry_charge : three numbers, optional
        A move of the forward of each expiry, and the share of its loss that is charged: a constant
        and one per year. The sum over expiries counts if it is larger than the worst loss.
    """

    power: Annotated[Sequence[float], Figures(2)] = (0.0, 0.0)
    days: Annotated[float, POSITIVE] = 30.0
    least_days: Annotated[float, NOT_NEGATIVE] = 1.0
    least_volatility: Annotated[float, NOT_NEGATIVE] = 0.0
    short_charge: Annotated[Sequence[float], Figures(2)] = (0.0, 0.0)
    delta_charge: Annotated[Sequence[float], Figures(2)] = (0.0, 0.0)
    futures_range: Annotated[float, Number(0, open_low=True, may_be_infinite=True)] = math.inf
    discounts: Annotated[Sequence[float] | None, Figures(6)] = None
    skew: Annotated[Sequence[float] | None, Figures(8, Number())] = None
    expiry_charge: Annotated[Sequence[float] | None, Figures(3)] = None

    def faults(self) -> Faults:
        """Yield charges that fall, and a move that is none."""
        if self.short_charge[1] < self.short_charge[0]:
            yield "short_charge", "must have an initial charge of at least that of maintenance"
        if self.expiry_charge is not None and not 0.0 < self.expiry_charge[0] < 1.0:
            yield "expiry_charge", "must have a move between 0 and 1, (0.045, 0.5, 2.0) for example"


def scenario_grid(
    moves: Sequence[float],
    volatilities: Sequence[float] = (0.0,),
    tails: Sequence[Sequence[float]] = (),
) -> list[Row]:
    """Return the scenarios of each move of the price with each move of volatility.

    Parameters
    ----------
    moves : sequence of float
        Relative moves of the price.
    volatilities : sequence of float
        Relative moves of volatility.
    tails : sequence of rows
        Further rows of (move, weight, move of volatility, relief), the relief in quote currency.

    Examples
    --------
    >>> scenario_grid([-0.15, 0.15], [0.5, 0.0], [(1.0, 0.16, 0.5)])
    [(-0.15, 1.0, 0.5), (-0.15, 1.0), (0.15, 1.0, 0.5), (0.15, 1.0), (1.0, 0.16, 0.5)]
    """
    for name, given in (("moves", moves), ("volatilities", volatilities), ("tails", tails)):
        if not is_list(given):
            raise ParameterError(f"{name} must be a list, got {repr_plain(given)}")
    rows = itertools.product(moves, volatilities)
    table = [(move, 1.0, volatility) for move, volatility in rows] + [*tails]
    try:
        return [*map(read_row, table)]
    except Fault as fault:
        raise ParameterError(f"tails: {fault}, got {fault.found}") from None
