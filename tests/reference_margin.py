"""What margin a book of positions needs, in exact decimals: the oracle of the requirement.

Written from the rules of an account with several positions alone. It shares no code with
``backtest``. Every position is a signed number of contracts at a value ``u`` of one contract, so
that linear and inverse contracts are one formula: the move of ``u`` under a relative move m of the
price is ``u·m`` (linear) or ``u·(1/(1 + m) - 1)`` (inverse).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from tests.reference import INFINITY, ONE, ZERO, Brackets, exact

STRAIGHT = Decimal("1e-28")  # of the size of a function: its middle is on the chord


class Leg(NamedTuple):
    """One position as the requirement sees it: contracts, value of one now and at the entry."""

    name: str
    quantity: Decimal
    value: Decimal
    entry: Decimal
    is_linear: bool
    table: Brackets
    setting: Decimal | None  # the leverage set at the venue, as far as its brackets allow it
    at_entry: bool  # the requirement values the notional at the entry

    @property
    def notional(self) -> Decimal:
        """|q·u|."""
        return abs(self.quantity * self.value)

    def change(self, move: Decimal) -> Decimal:
        """Profit of the position if its price moves by a fraction."""
        factor = move if self.is_linear else ONE / (ONE + move) - ONE
        return self.quantity * self.value * factor


class Asset(NamedTuple):
    """Collateral as a scenario sees it: the group whose risk it cancels, and its full value."""

    group: str | None
    value: Decimal


# ---------------------------------------------------------------------------------------------
# Standard cross margin


def bracket_requirement(leg: Leg) -> Decimal:
    """That of one position, §3 of docs/accounting.md."""
    valued = abs(leg.quantity * leg.entry) if leg.at_entry else leg.notional
    return leg.table.requirement(valued)


def bracket_initial(leg: Leg) -> Decimal:
    """The least of notional / leverage over the brackets whose cap holds the notional."""
    notional = leg.notional
    if leg.setting is not None:
        return notional / leg.setting
    rows = zip(leg.table.caps, leg.table.leverages, strict=True)
    holding = [notional / leverage for cap, leverage in rows if cap * (ONE + STRAIGHT) >= notional]
    return min(holding) if holding else notional / leg.table.leverages[-1]


# ---------------------------------------------------------------------------------------------
# Portfolio margin


class Scenarios:
    """``ScenarioMargin``: losses under moves of each group, row by row."""

    def __init__(self, rule: Any) -> None:
        self.moves = {
            group: [(exact(move), exact(weight)) for move, weight in rows]
            for group, rows in rule.moves.items()
        }
        groups = rule.groups or {}
        self.group_of = {name: group for group, names in groups.items() for name in names}
        products = rule.products or {}
        self.product_of = {group: name for name, owned in products.items() for group in owned}
        self.is_same_row = rule.across == "same row"
        self.offset, self.factor = exact(rule.offset), exact(rule.factor)
        self.minimum, self.contingency = exact(rule.minimum), exact(rule.contingency)
        self.pair_contingency = exact(rule.pair_contingency)
        initial = rule.initial or (rule.factor, rule.contingency)
        self.initial_factor, self.initial_contingency = map(exact, initial)

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
            cancelling = [asset.value for asset in assets if asset.group == group]
            result[group] = [
                -weight * (sum((leg.change(move) for leg in inside), ZERO) + move * sum(cancelling))
                for move, weight in self.moves.get(group, self.moves.get("*"))
            ]
        return result

    def worst(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        """What the rows lose together, across groups."""
        losses = self.losses(legs, assets)
        if not self.is_same_row:
            return sum((max(ZERO, *rows) for rows in losses.values()), ZERO)
        products: dict[str, list[list[Decimal]]] = {}
        for group, rows in losses.items():
            own = group if self.product_of else ""
            products.setdefault(self.product_of.get(group, own), []).append(rows)
        total = ZERO
        for groups in products.values():
            sums = [
                sum((loss if loss > 0 else self.offset * loss for loss in row), ZERO)
                for row in zip(*groups, strict=True)
            ]
            total += max(ZERO, *sums)
        return total

    def nets(self, legs: Sequence[Leg]) -> dict[str, Decimal]:
        """Long less short notional of each group; where it changes sign, R is not convex."""
        nets: dict[str, Decimal] = {}
        for leg in legs:
            group = self.group(leg.name)
            side = leg.notional if leg.quantity > 0 else -leg.notional
            nets[group] = nets.get(group, ZERO) + side
        return nets if self.pair_contingency > 0 else {}

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
        """Factor, minimum and contingencies."""
        gross = sum((leg.notional for leg in legs), ZERO)
        scanned = max(factor * self.worst(legs, assets), self.minimum * gross)
        return scanned + contingency * gross + self.pair_contingency * self.offsetting(legs)

    def requirement(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        """R."""
        return self.total(legs, assets, self.factor, self.contingency)

    def initial(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        """The same with the factor and contingency of initial margin."""
        return self.total(legs, assets, self.initial_factor, self.initial_contingency)


class Standard:
    """``Brackets``: each position for itself."""

    def nets(self, legs: Sequence[Leg]) -> dict[str, Decimal]:
        """No group offsets anything."""
        return {}

    def requirement(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        """R."""
        return sum((bracket_requirement(leg) for leg in legs), ZERO)

    def initial(self, legs: Sequence[Leg], assets: Sequence[Asset]) -> Decimal:
        """Σ of the positions' initial margins."""
        return sum((bracket_initial(leg) for leg in legs), ZERO)


# ---------------------------------------------------------------------------------------------
# Collateral


class Collateral:
    """Assets held beside the money."""

    def __init__(self, declared: Any) -> None:
        self.name = declared.name
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


# ---------------------------------------------------------------------------------------------
# Roots


def find_fall(test: Callable[[Decimal], Decimal], low: Decimal, high: Decimal) -> Decimal:
    """The one root of a concave, piecewise linear function that is > 0 at low and <= 0 at high.

    The interval is halved until the function is straight on it; then the chord has the root.
    Concave and equal to its chord in the middle is equal to it everywhere.
    """
    at_low, at_high = test(low), test(high)
    while True:
        middle = (low + high) / 2
        at_middle = test(middle)
        size = abs(at_low) + abs(at_high) + abs(at_middle)
        is_straight = abs(at_middle - (at_low + at_high) / 2) <= STRAIGHT * size
        if is_straight or high - low < STRAIGHT:
            return low + (high - low) * at_low / (at_low - at_high)
        if at_middle > 0:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle


def largest_passing(
    test: Callable[[Decimal], Decimal], edges: Sequence[Decimal] = ()
) -> Decimal | None:
    """The largest f of [0, 1] at which a function is >= 0, or None.

    It is concave and piecewise linear between the edges.
    """
    ends = sorted({ZERO, ONE, *(edge for edge in edges if 0 < edge < 1)})
    for left, right in reversed(list(pairwise(ends))):
        if test(right) >= 0:
            return right
        start = left if test(left) >= 0 else find_peak(test, left, right)
        if test(start) > 0:
            return find_fall(test, start, right)
        if test(start) == 0:
            return start
    return None


def find_peak(test: Callable[[Decimal], Decimal], low: Decimal, high: Decimal) -> Decimal:
    """Where a concave function is largest, by thirds; any place where it is >= 0 does."""
    for _ in range(160):
        third = (high - low) / 3
        left, right = test(low + third), test(high - third)
        if left >= 0:
            return low + third
        if right >= 0:
            return high - third
        if left < right:
            low += third
        else:
            high -= third
    return (low + high) / 2


def find_signs(nets: Callable[[Decimal], Mapping[str, Decimal]]) -> list[Decimal]:
    """Where linear functions of [0, 1] change their signs."""
    first, last = nets(ZERO), nets(ONE)
    pairs = [(first.get(name, ZERO), last.get(name, ZERO)) for name in {**first, **last}]
    return [a / (a - b) for a, b in pairs if a * b < 0]


def largest_of_pieces(
    test: Callable[[Decimal], Decimal], edges: Sequence[Decimal]
) -> Decimal | None:
    """The same for a function that falls, linear between edges, and jumps down after them."""
    if test(ONE) >= 0:
        return ONE
    ends = sorted({ZERO, ONE, *(edge for edge in edges if 0 < edge < 1)})
    for left, right in reversed(list(pairwise(ends))):
        at_right = test(right)
        if at_right >= 0:
            return right
        if right - left < STRAIGHT:
            continue
        middle = (left + right) / 2
        slope = (at_right - test(middle)) / (right - middle)
        root = right - at_right / slope if slope < 0 else -INFINITY
        if root > left:
            return root
    return ZERO if test(ZERO) >= 0 else None
