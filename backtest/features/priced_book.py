"""A book of cross positions at its prices, which can be moved to other ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from backtest.base.errors import ParameterError
from backtest.base.ranges import Number
from backtest.base.units import TOLERANCE
from backtest.venue import MarginRules, book_margin
from backtest.venue.book_requirement import (
    compute_book_initial,
    compute_book_requirement,
    compute_haircuts,
)
from backtest.venue.book_rules import BookRules, Holdings, is_spot_leg
from backtest.venue.book_tables import pack_holdings, pack_spot
from backtest.venue.collateral import Collateral
from backtest.venue.collateral_value import compute_collateral_value
from backtest.venue.contract_value import compute_value
from backtest.venue.own_requirement import OwnMargin, ask_rule
from backtest.venue.requirement_rule import Brackets, MarginRule, RequirementRule

WHERE = "bt.calculate_book"


class CheckedBook(NamedTuple):
    """A checked book: its positions by name, its money, rule, and collateral.

    ``packed`` is the rules as arrays, of brackets if the rule is the user's own. ``linked`` is the
    instrument whose price a collateral has, by the name of the collateral.
    """

    rules: Mapping[str, MarginRules]
    packed: BookRules
    quantities: Mapping[str, float]
    prices: Mapping[str, float]
    entries: Mapping[str, float]
    balance: float
    rule: RequirementRule | MarginRule
    collateral: tuple[Collateral, ...]
    collateral_prices: tuple[float, ...]
    linked: Mapping[str, str]

    @property
    def level(self) -> float:
        """The level of the requirement at which the book fails."""
        return float(getattr(self.rule, "level", 1.0))

    def value_of(self, name: str, price: float) -> float:
        """Return the value u of one contract."""
        return compute_value(self.rules[name].size, self.rules[name].is_inverse, price)

    def move(self, ratios: Mapping[str, float]) -> CheckedBook:
        """Return the book at prices multiplied by ratios; collateral of an instrument follows."""
        prices = {name: price * ratios.get(name, 1.0) for name, price in self.prices.items()}
        collateral = tuple(
            price * ratios.get(self.linked.get(each.name, ""), 1.0)
            for each, price in zip(self.collateral, self.collateral_prices, strict=True)
        )
        return self._replace(prices=prices, collateral_prices=collateral)

    def hold(self) -> Holdings:
        """Return what is held as arrays."""
        return pack_holdings(
            quantities=list(self.quantities.values()),
            values=[self.value_of(name, price) for name, price in self.prices.items()],
            entries=[self.value_of(name, price) for name, price in self.entries.items()],
            amounts=[each.amount for each in self.collateral],
            prices=self.collateral_prices,
        )

    def held(self) -> dict[str, float]:
        """Return the quantities that are not 0."""
        return {name: quantity for name, quantity in self.quantities.items() if quantity != 0.0}

    def profit_of(self, name: str) -> float:
        """Return the unrealized profit of one position."""
        gained = self.value_of(name, self.prices[name]) - self.value_of(name, self.entries[name])
        return self.quantities[name] * gained

    def backing(self) -> float:
        """Return M, what backs the positions: spot legs, which are paid, by their value."""
        profit = sum(self.profit_of(name) for name in self.quantities)
        paid = sum(
            self.quantities[name] * self.value_of(name, self.entries[name])
            for i, name in enumerate(self.rules)
            if is_spot_leg(self.packed, i)
        )
        return self.balance + profit + paid + self.collateral_value() - self.haircuts()

    def haircuts(self) -> float:
        """Return what of the value of long spot legs does not back the positions."""
        return float(compute_haircuts(self.packed, self.hold()))

    def collateral_value(self) -> float:
        """Return the value of all collateral at its rates."""
        return float(compute_collateral_value(self.packed.collateral, self.hold()))

    def requirement(self) -> float:
        """Return R."""
        if isinstance(self.rule, MarginRule):
            return float(compute_book_requirement(self.packed, self.hold()))
        return ask_rule(self.rule, "requirement", self.held(), self.prices)

    def initial(self) -> float:
        """Return the initial margin of the book."""
        if isinstance(self.rule, MarginRule):
            return float(compute_book_initial(self.packed, self.hold()))
        return ask_rule(self.rule, "initial", self.held(), self.prices)

    def distance(self) -> float:
        """Return M - level R, negative where the book fails."""
        return self.backing() - self.level * self.requirement()

    def is_failing(self) -> bool:
        """Return whether the book fails: it holds positions, and M is at most level R."""
        needed = self.level * self.requirement()
        return bool(self.held()) and self.backing() <= needed * (1.0 + TOLERANCE)


def read_arguments(
    venues: book_margin.Venues,
    quantities: book_margin.Numbers,
    prices: book_margin.Numbers,
    balance: float,
    entries: book_margin.Numbers | None,
    rule: RequirementRule | MarginRule,
    collateral: book_margin.Assets,
    collateral_prices: book_margin.Numbers | None,
) -> CheckedBook:
    """Return the book of checked arguments."""
    found = book_margin.read_book(venues, quantities, prices, WHERE)
    names = list(found.rules)
    entered = found.prices
    if entries is not None:
        entered = book_margin.read_numbers("entries", entries, names, WHERE)
    for name, entry in entered.items():
        book_margin.PRICE.check("entries", entry, where=f"{WHERE}, {name}")
    assets = book_margin.list_assets(collateral, WHERE)
    linked = link_collateral(assets, names)
    if collateral_prices is None:
        priced = {
            each.name: found.prices[linked[each.name]] if each.name in linked else each.last_price()
            for each in assets
        }
    else:
        priced = book_margin.read_numbers(
            "collateral_prices", collateral_prices, [each.name for each in assets], WHERE
        )
    for name, price in priced.items():
        book_margin.PRICE.check("collateral_prices", price, where=f"{WHERE}, {name}")
    rule = rule.rule if isinstance(rule, OwnMargin) else rule
    if not isinstance(rule, MarginRule):
        book_margin.call_own_rule(rule, "requirement", found, WHERE)
    known = rule if isinstance(rule, MarginRule) else Brackets()
    return CheckedBook(
        rules=found.rules,
        packed=known.pack(found.rules, assets)._replace(spot=pack_spot(found.haircuts)),
        quantities=found.quantities,
        prices=found.prices,
        entries=entered,
        balance=Number().check("balance", balance, where=WHERE),
        rule=rule,
        collateral=assets,
        collateral_prices=tuple(priced[each.name] for each in assets),
        linked=linked,
    )


def link_collateral(assets: Sequence[Collateral], names: Sequence[str]) -> dict[str, str]:
    """Return the instrument that each collateral takes its price from, if it names one."""
    linked = {each.name: each.prices for each in assets if isinstance(each.prices, str)}
    unknown = [name for name, instrument in linked.items() if instrument not in names]
    if unknown:
        raise ParameterError(
            f"prices of collateral must be a number or an instrument of the book, "
            f"got {linked[unknown[0]]!r}",
            where=f"{WHERE}, {unknown[0]}",
            cure=f"use {', '.join(names)}, or a number",
        )
    return linked
