"""The bracket table of one bar, a position as the requirement sees it, and what collateral counts.

A position here is a *leg*: a signed number of contracts at a value ``u`` of one contract, so that
linear and inverse contracts are one formula: the move of ``u`` under a relative move m of the
price is ``u·m`` (linear) or ``u·(1/(1 + m) - 1)`` (inverse).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from tests.oracle.numbers import INFINITY, ONE, REMAINDER, ZERO, exact

SUBSTITUTION = Decimal("1e-25")  # a liquidation price put back into its equation
ROUNDING = Decimal("1e-25")  # of an order that goes to the cap of its bracket


@dataclass(frozen=True)
class Brackets:
    """§3: the bracket table that holds for one bar (multiplier and close fee inside). Bracket k
    reaches from its floor to the floor of the next; the last one has no end for the maintenance of
    a position, while its cap still limits new orders."""

    floors: tuple[Decimal, ...]
    caps: tuple[Decimal, ...]
    rates: tuple[Decimal, ...]
    leverages: tuple[Decimal, ...]

    def segments(self) -> Iterator[tuple[Decimal, Decimal, Decimal]]:
        return zip(self.floors, (*self.floors[1:], INFINITY), self.rates, strict=True)

    def requirement(self, notional: Decimal) -> Decimal:
        """MM(N): each slice of the notional at the rate of its bracket (= r_k·N - c_k)."""
        return sum(
            (
                rate * (min(notional, top) - floor)
                for floor, top, rate in self.segments()
                if notional > floor
            ),
            ZERO,
        )

    def floor_of(self, notional: Decimal) -> Decimal:
        """The floor of the bracket that contains N; within 1e-9 of a floor it is the one below.
        Reduced to a floor, a position fails again a little further on, and again: steps shrink
        without end. One that would close less than 1e-9 counts as done."""
        inside = [floor for floor in self.floors if notional * (ONE - REMAINDER) > floor]
        return inside[-1] if inside else self.floors[0]

    def boundary(self, cash: Decimal, side: int) -> Decimal | None:
        """The notional n ≥ 0 at which cash + side·n = MM(n), or None. With side +1 the requirement
        fails at or below it, with side -1 at or above it."""
        surplus = cash  # cash + side·n - MM(n) at the floor of the bracket
        for floor, top, rate in self.segments():
            slope = side - rate
            if slope != 0:
                root = floor - surplus / slope
                if floor <= root <= top:
                    left = cash + side * root - self.requirement(root)
                    assert abs(left) <= SUBSTITUTION * max(abs(cash), root), "no root"
                    return root
            if top != INFINITY:
                surplus += slope * (top - floor)
        return None


def brackets_of(venue: Any, multiplier: Decimal, initial: Decimal, close_fee: Decimal) -> Brackets:
    """§3: rates min(1, x·r_k), plus the fee of closing where the venue includes it. The multiplier
    of initial margin divides the leverages."""
    table = venue.brackets
    rates = [min(ONE, multiplier * exact(row.maintenance_rate)) for row in table]
    return Brackets(
        floors=tuple(exact(row.floor) for row in table),
        caps=tuple(exact(row.cap) for row in table),
        rates=tuple(min(ONE, rate + close_fee) for rate in rates),
        leverages=tuple(exact(row.max_leverage) / initial for row in table),
    )


class Leg(NamedTuple):
    """One position as the requirement sees it."""

    name: str
    quantity: Decimal
    value: Decimal  # u
    entry: Decimal  # in u
    is_linear: bool
    table: Brackets
    setting: Decimal | None  # the leverage set at the venue, as far as its brackets allow it
    at_entry: bool  # the requirement values the notional at the entry
    size: Decimal = ONE  # units of the underlying of one contract, or of quote currency

    @property
    def notional(self) -> Decimal:
        """|q·u|."""
        return abs(self.quantity * self.value)

    @property
    def maintenance(self) -> Decimal:
        return self.table.requirement(
            abs(self.quantity * self.entry) if self.at_entry else self.notional
        )

    @property
    def initial(self) -> Decimal:
        """The least of notional / leverage over the brackets whose cap holds the notional."""
        notional = self.notional
        if self.setting is not None:
            return notional / self.setting
        rows = zip(self.table.caps, self.table.leverages, strict=True)
        holding = [
            notional / leverage for cap, leverage in rows if cap * (ONE + ROUNDING) >= notional
        ]
        return min(holding) if holding else notional / self.table.leverages[-1]

    def change(self, move: Decimal) -> Decimal:
        """Profit of the position if its price moves by a fraction."""
        factor = move if self.is_linear else ONE / (ONE + move) - ONE
        return self.quantity * self.value * factor


class Asset(NamedTuple):
    """Collateral as a scenario sees it: the group whose risk it cancels, and its full value."""

    group: str | None
    value: Decimal


class Collateral:
    """An asset held beside the money."""

    def __init__(self, declared: Any) -> None:
        self.name, self.market = declared.name, declared.prices
        self.amount = +exact(declared.amount)  # in the digits in use: a sale of all leaves nothing
        self.slippage = exact(declared.slippage)
        self.group = declared.cancels_risk
        tiers = declared.tiers or [(0.0, float("inf"), declared.rate)]
        self.tiers = [(exact(floor), exact(cap), exact(rate)) for floor, cap, rate in tiers]
        self.valued_at = ZERO

    def counted(self, price: Decimal) -> Decimal:
        """Value in M: marginal tiers, nothing beyond the last cap; a debt in full."""
        value = self.amount * price
        if value <= 0:
            return value
        return sum(
            (rate * (min(value, cap) - floor) for floor, cap, rate in self.tiers if value > floor),
            ZERO,
        )
