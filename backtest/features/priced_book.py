"""A book of cross positions at its prices, which can be moved to other ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from backtest.base import Number, ParameterError
from backtest.base.units import TOLERANCE
from backtest.venue import (
    Brackets,
    Collateral,
    Holdings,
    MarginRule,
    MarginRules,
    OptionAccount,
    OwnMargin,
    PortfolioRules,
    RequirementRule,
    ask_rule,
    compute_collateral_value,
    compute_haircuts,
    compute_portfolio_initial,
    compute_portfolio_requirement,
    compute_value,
    cross_margin,
    is_spot_leg,
    list_given,
    pack_holdings,
    pack_spot,
)


class CheckedBook(NamedTuple):
    rules: Mapping[str, MarginRules]
    packed: PortfolioRules
    quantities: Mapping[str, float]
    prices: Mapping[str, float]
    entries: Mapping[str, float]
    balance: float
    rule: RequirementRule | MarginRule
    collateral: tuple[Collateral, ...]
    collateral_prices: tuple[float, ...]
    linked: Mapping[str, str]
    options: OptionAccount | None = None
    ratios: Mapping[str, float] = MappingProxyType({})

    @property
    def level(self) -> float:
        return float(getattr(self.rule, "level", 1.0))

    def value_of(self, name: str, price: float) -> float:
        return compute_value(self.rules[name].size, self.rules[name].is_inverse, price)

    def move(self, ratios: Mapping[str, float]) -> CheckedBook:
        prices = {name: price * ratios.get(name, 1.0) for name, price in self.prices.items()}
        collateral = tuple(
            price * ratios.get(self.linked.get(each.name, ""), 1.0)
            for each, price in zip(self.collateral, self.collateral_prices, strict=True)
        )
        return self._replace(
            prices=prices, collateral_prices=collateral, ratios=self.find_ratios(ratios)
        )

    def find_ratios(self, ratios: Mapping[str, float]) -> dict[str, float]:
        if self.options is None:
            return {}
        found = {}
        for group in self.options.groups:
            linked = (group, *self.options.list_linked(group, list(self.rules)))
            found[group] = next((ratios[each] for each in linked if each in ratios), 1.0)
        return found

    def value_options(self) -> OptionAccount | None:
        if self.options is not None:
            self.options.move(self.ratios)
        return self.options

    def hold(self) -> Holdings:
        return pack_holdings(
            quantities=list(self.quantities.values()),
            values=[self.value_of(name, price) for name, price in self.prices.items()],
            entries=[self.value_of(name, price) for name, price in self.entries.items()],
            amounts=[each.amount for each in self.collateral],
            prices=self.collateral_prices,
        )

    def held(self) -> dict[str, float]:
        return {name: quantity for name, quantity in self.quantities.items() if quantity != 0.0}

    def profit_of(self, name: str) -> float:
        gained = self.value_of(name, self.prices[name]) - self.value_of(name, self.entries[name])
        return self.quantities[name] * gained

    def backing(self) -> float:
        profit = sum(self.profit_of(name) for name in self.quantities)
        paid = sum(
            self.quantities[name] * self.value_of(name, self.entries[name])
            for i, name in enumerate(self.rules)
            if is_spot_leg(self.packed, i)
        )
        options = self.value_options()
        counted = 0.0 if options is None else options.counted_value()
        return self.balance + profit + paid + self.collateral_value() - self.haircuts() + counted

    def haircuts(self) -> float:
        return float(compute_haircuts(self.packed, self.hold()))

    def collateral_value(self) -> float:
        return float(compute_collateral_value(self.packed.collateral, self.hold()))

    def requirement(self) -> float:
        options = self.value_options()
        if options is not None:
            return options.requirement(self.packed, self.hold())
        if isinstance(self.rule, MarginRule):
            return float(compute_portfolio_requirement(self.packed, self.hold()))
        return ask_rule(self.rule, "requirement", self.held(), self.prices)

    def initial(self) -> float:
        options = self.value_options()
        if options is not None:
            return options.requirement(self.packed, self.hold(), is_initial=True)
        if isinstance(self.rule, MarginRule):
            return float(compute_portfolio_initial(self.packed, self.hold()))
        return ask_rule(self.rule, "initial", self.held(), self.prices)

    def distance(self) -> float:
        return self.backing() - self.level * self.requirement()

    def is_failing(self) -> bool:
        needed = self.level * self.requirement()
        return not self.is_flat() and self.backing() <= needed * (1.0 + TOLERANCE)

    def is_flat(self) -> bool:
        options = () if self.options is None else self.options.given
        return not self.held() and all(each.quantity == 0.0 for each in options)


def read_arguments(
    venues: cross_margin.Venues,
    quantities: cross_margin.Numbers,
    prices: cross_margin.Numbers,
    balance: float,
    entries: cross_margin.Numbers | None,
    rule: RequirementRule | MarginRule,
    collateral: cross_margin.Assets,
    collateral_prices: cross_margin.Numbers | None,
    options: cross_margin.Options = (),
) -> CheckedBook:
    found = cross_margin.read_positions(venues, quantities, prices)
    names = list(found.rules)
    entered = found.prices
    if entries is not None:
        entered = cross_margin.read_numbers("entries", entries, names)
    assets = list_given("collateral", collateral, Collateral)
    linked = link_collateral(assets, names)
    if collateral_prices is None:
        priced = {
            each.name: found.prices[linked[each.name]] if each.name in linked else each.last_price()
            for each in assets
        }
    else:
        priced = cross_margin.read_numbers(
            "collateral_prices", collateral_prices, [each.name for each in assets]
        )
    checked = cross_margin.read_rule(rule)
    account = cross_margin.read_options(checked, found, options)
    if isinstance(checked, OwnMargin):
        cross_margin.call_own_rule(checked, "requirement", found, ())
    known, groups = (checked, ()) if account is None else (account.rule, account.names)
    compiled = Brackets() if isinstance(known, OwnMargin) else known
    packed = compiled.pack(found.rules, assets, underlyings=groups)
    return CheckedBook(
        rules=found.rules,
        packed=packed._replace(spot=pack_spot(found.haircuts)),
        quantities=found.quantities,
        prices=found.prices,
        entries=entered,
        balance=Number().check("balance", balance),
        rule=checked.rule if isinstance(checked, OwnMargin) else known,
        collateral=assets,
        collateral_prices=tuple(priced[each.name] for each in assets),
        linked=linked,
        options=account,
    )


def link_collateral(assets: Sequence[Collateral], names: Sequence[str]) -> dict[str, str]:
    linked = {each.name: each.prices for each in assets if isinstance(each.prices, str)}
    unknown = [name for name, instrument in linked.items() if instrument not in names]
    if unknown:
        raise ParameterError(
            f"prices of collateral {unknown[0]!r} must be a number or an instrument of the book, "
            f"{', '.join(names)}, got {linked[unknown[0]]!r}"
        )
    return linked
