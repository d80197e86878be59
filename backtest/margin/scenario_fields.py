"""What scenarios are declared of: moves by group, groups of names, and shocks of options."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from backtest import core
from backtest.core import Fault, Faults, repr_plain
from backtest.core.fields import NOT_NEGATIVE, OVER_ZERO, POSITIVE

EVERY = "*"
EXAMPLE = "[(-0.15, 1), (0.15, 1)]"
FROM_ALL = core.Real(-1)
NUMBERS_OF_ROW = (FROM_ALL, NOT_NEGATIVE, FROM_ALL, NOT_NEGATIVE)
"""Move, weight, and for options move of volatility and relief."""
Row = tuple[float, ...]


def is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


class Moves(core.Declaration):
    is_table: ClassVar[bool] = True

    def read(self, value: Any) -> core.FrozenTable:
        """Return scenarios by the name of a group, each as a tuple of rows.

        A row is (move, weight), and for options also a move of volatility and a relief. The user
        gives a table of lists, or one list, which is kept under the name EVERY. Raises Fault for
        anything else.
        """
        table = {EVERY: value}
        if isinstance(value, Mapping):
            table = dict(value)
        if not table:
            raise Fault(f"must have scenarios for at least one group, {{'BTC': {EXAMPLE}}}")

        for rows in table.values():
            if not is_list(rows) or not rows:
                rule = f"must be lists of at least one (move, weight), {EXAMPLE}"
                raise Fault(rule, repr_plain(rows))
        moves = {str(group): tuple(map(read_row, rows)) for group, rows in table.items()}
        return core.FrozenTable(moves)


def read_row(row: Any) -> Row:
    """Return a scenario as a tuple: move, weight, and for options move of volatility and relief.

    Raises Fault if a number is missing or out of its range. Zeros at the end are left out.
    """
    # A move alone has the weight 1.
    numbers = (row, 1.0)
    if is_list(row):
        numbers = tuple(row)
    if not 2 <= len(numbers) <= len(NUMBERS_OF_ROW):
        rule = "must be rows of (move, weight), and for options a move of volatility and a relief"
        raise Fault(rule, repr_plain(row))

    read = []
    try:
        for kind, number in zip(NUMBERS_OF_ROW, numbers, strict=False):
            read.append(kind.read(number))
    except Fault:
        rule = "must be moves of at least -1, weights and reliefs of at least 0, all finite"
        raise Fault(rule, repr_plain(row)) from None

    # Rows that say the same are equal: zeros at the end are left out.
    while len(read) > 2 and read[-1] == 0.0:
        read.pop()
    return tuple(read)


@dataclass(frozen=True)
class NameGroups(core.Declaration):
    member: str
    is_table: ClassVar[bool] = True

    def read(self, value: Any) -> core.FrozenTable:
        """Return lists of names by group; Fault if one name is in two of them."""
        if not isinstance(value, Mapping) or not value:
            raise Fault(f"must be a table of lists of names, {{'first': ['{self.member} 1']}}")
        for names in value.values():
            if not is_list(names) or not names or not all(isinstance(name, str) for name in names):
                rule = f"must list the names of at least one {self.member} each"
                raise Fault(rule, repr_plain(names))

        counts = Counter(itertools.chain.from_iterable(value.values()))
        repeated = sorted(name for name, count in counts.items() if count > 1)
        if repeated:
            raise Fault(f"must name each {self.member} once", f"{', '.join(repeated)} twice")
        return core.FrozenTable({str(group): tuple(names) for group, names in value.items()})


@dataclass(frozen=True)
class Figures(core.Declaration):
    count: int
    number: core.Real = NOT_NEGATIVE

    def read(self, value: Any) -> tuple[float, ...]:
        if not is_list(value) or len(value) != self.count:
            raise Fault(f"must be {self.count} numbers")
        return tuple(float(self.number.read(figure)) for figure in value)


class OptionShocks(core.Value, kw_only=True):
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
        expiry: the larger of a constant and a rate per year to expiry.
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
    futures_range: Annotated[float, OVER_ZERO] = math.inf
    discounts: Annotated[Sequence[float] | None, Figures(6)] = None
    skew: Annotated[Sequence[float] | None, Figures(8, core.Real())] = None
    expiry_charge: Annotated[Sequence[float] | None, Figures(3)] = None

    def faults(self) -> Faults:
        if self.short_charge[1] < self.short_charge[0]:
            yield "short_charge", "must have an initial charge of at least the maintenance charge"
        if self.expiry_charge is not None and not 0.0 < self.expiry_charge[0] < 1.0:
            yield "expiry_charge", "must have a move between 0 and 1, (0.045, 0.5, 2.0) for example"


NO_SHOCKS = OptionShocks()
