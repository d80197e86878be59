"""Margin: the bracket table of one bar, the requirement of an account, and what collateral counts.

A position here is a *leg*: a signed number of contracts at a value ``u`` of one contract, so that
linear and inverse contracts are one formula: the move of ``u`` under a relative move m of the
price is ``u·m`` (linear) or ``u·(1/(1 + m) - 1)`` (inverse).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from tests.oracle.numbers import INFINITY, ONE, REMAINDER, ZERO, exact

SUBSTITUTION = Decimal("1e-25")  # a liquidation price put back into its equation
ROUNDING = Decimal("1e-25")  # of an order that goes to the cap of its bracket


@dataclass(frozen=True)
class Brackets:
    """§3: the bracket table that holds for one bar (multiplier and close fee inside).

    Bracket k reaches from its floor to the floor of the next; the last one has no end for the
    maintenance of a position, while its cap still limits new orders.
    """

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
        without end. One that would close less than 1e-9 counts as done.
        """
        inside = [floor for floor in self.floors if notional * (ONE - REMAINDER) > floor]
        return inside[-1] if inside else self.floors[0]

    def boundary(self, cash: Decimal, side: int) -> Decimal | None:
        """The notional n ≥ 0 at which cash + side·n = MM(n), or None.

        With side +1 the requirement fails at or below it, with side -1 at or above it.
        """
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
    """§3: rates min(1, x·r_k), plus the fee of closing where the venue includes it.

    The multiplier of initial margin divides the leverages.
    """
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


class Standard:
    """``Brackets``: each position for itself."""

    has_scenarios = False

    def nets(self, legs: Sequence[Leg]) -> dict[str, Decimal]:
        return {}

    def requirement(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        return sum((leg.maintenance for leg in legs), ZERO)

    def initial(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        """Σ of the positions' initial margins."""
        return sum((leg.initial for leg in legs), ZERO)


class Scenarios:
    """``ScenarioMargin``: losses under moves of each group, row by row."""

    has_scenarios = True

    def __init__(self, rule: Any) -> None:
        self.moves = {
            group: [(exact(move), exact(weight)) for move, weight in rows]
            for group, rows in rule.moves.items()
        }
        groups, products = rule.groups or {}, rule.products or {}
        self.group_of = {name: group for group, names in groups.items() for name in names}
        self.product_of = {group: name for name, owned in products.items() for group in owned}
        self.is_same_row = rule.across == "same row"
        self.offset, self.minimum = exact(rule.offset), exact(rule.minimum)
        self.of_maintenance = (exact(rule.factor), exact(rule.contingency))
        self.of_initial = tuple(map(exact, rule.initial or (rule.factor, rule.contingency)))
        self.pair_contingency = exact(rule.pair_contingency)

    def group(self, name: str) -> str:
        """The group of an instrument: its own, where none is named."""
        return self.group_of.get(name, name)

    def losses(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> dict[str, list[Decimal]]:
        """Losses by row of each group that holds something, be it collateral alone."""
        held = dict.fromkeys(self.group(leg.name) for leg in legs if leg.quantity != 0)
        held |= dict.fromkeys(asset.group for asset in assets)
        result = {}
        for group in held:
            inside = [leg for leg in legs if self.group(leg.name) == group]
            cancelling = sum((asset.value for asset in assets if asset.group == group), ZERO)
            result[group] = [
                -weight * sum((leg.change(move) for leg in inside), move * cancelling)
                for move, weight in self.moves.get(group, self.moves.get("*"))
            ]
        return result

    def worst(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        losses = self.losses(legs, assets)
        if not self.is_same_row:
            return sum((max(ZERO, *rows) for rows in losses.values()), ZERO)
        products: dict[str, list[list[Decimal]]] = {}
        for group, rows in losses.items():
            own = group if self.product_of else ""
            products.setdefault(self.product_of.get(group, own), []).append(rows)
        total = ZERO
        for groups in products.values():
            rows = zip(*groups, strict=True)
            total += max(ZERO, *(sum(x if x > 0 else self.offset * x for x in row) for row in rows))
        return total

    def nets(self, legs: Sequence[Leg]) -> dict[str, Decimal]:
        """Long less short notional of each group; where it changes sign, R is not convex."""
        nets: dict[str, Decimal] = {}
        for leg in legs if self.pair_contingency > 0 else ():
            group = self.group(leg.name)
            nets[group] = nets.get(group, ZERO) + leg.notional.copy_sign(leg.quantity)
        return nets

    def offsetting(self, legs: Sequence[Leg]) -> Decimal:
        """What offsets within each group: the smaller of its long and its short notional."""
        sides: dict[str, list[Decimal]] = {}
        for leg in legs:
            both = sides.setdefault(self.group(leg.name), [ZERO, ZERO])
            both[leg.quantity > 0] += leg.notional
        return sum((min(both) for both in sides.values()), ZERO)

    def total(
        self, legs: Sequence[Leg], assets: Sequence[Asset], factor: Decimal, contingency: Decimal
    ) -> Decimal:
        gross = sum((leg.notional for leg in legs), ZERO)
        scanned = max(factor * self.worst(legs, assets), self.minimum * gross)
        return scanned + contingency * gross + self.pair_contingency * self.offsetting(legs)

    def requirement(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        return self.total(legs, assets, *self.of_maintenance)

    def initial(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        return self.total(legs, assets, *self.of_initial)


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
