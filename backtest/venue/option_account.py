"""Options beside the cross positions of an account, valued and margined."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from backtest.base import FloatArray, ParameterError, repr_plain
from backtest.venue.option_contract import OptionPosition
from backtest.venue.option_records import OptionPositions, OptionRules
from backtest.venue.option_requirement import compute_option_requirement, fill_option_table
from backtest.venue.option_tables import (
    check_options,
    number_groups,
    pack_option_rules,
    pack_options,
)
from backtest.venue.option_values import compute_counted_value, compute_options_value
from backtest.venue.portfolio_rules import Holdings, PortfolioRules
from backtest.venue.requirement import MarginRules
from backtest.venue.requirement_rule import MarginRule

QUOTES = re.compile(r"[-_/]?(USDT|USDC|BUSD|FDUSD|USD|PERP|SWAP).*")
ALIASES = {"XBT": "BTC", "PF_XBT": "BTC", "PF_ETH": "ETH"}


def find_asset(instrument: str) -> str:
    whole = instrument.upper()
    asset = QUOTES.sub("", whole) or whole
    return ALIASES.get(asset, asset)


T = TypeVar("T")


@dataclass(frozen=True)
class OptionAccount:
    rule: MarginRule
    given: tuple[OptionPosition, ...]
    names: tuple[str, ...]
    options: OptionPositions
    rules: OptionRules
    quoted: FloatArray
    offsets: FloatArray

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.names[g] for g in self.options.groups))

    def move(self, ratios: Mapping[str, float]) -> None:
        options, first = self.options, np.array([each.index for each in self.given])
        factors = np.array([ratios.get(self.names[g], 1.0) for g in options.groups])
        if self.offsets.any() or not np.array_equal(options.indices, first * factors):
            options.indices[:] = first * factors
            self.value()
            options.marks[:] = np.maximum(0.0, options.values + self.offsets)
        if (factors == 1.0).all():
            options.marks[:] = np.where(np.isnan(self.quoted), options.values, self.quoted)

    def value(self) -> None:
        fill_option_table(self.options, self.rules, False, np.zeros(1))

    def list_linked(self, group: str, instruments: Sequence[str]) -> list[str]:
        labels = {each.label for k, each in enumerate(self.given) if self.name_of(k) == group}
        assets = {*map(find_asset, (group, *labels))}
        return [each for each in instruments if each in labels or find_asset(each) in assets]

    def name_of(self, k: int) -> str:
        return str(self.names[self.options.groups[k]])

    def requirement(
        self, packed: PortfolioRules, held: Holdings, *, is_initial: bool = False
    ) -> float:
        return float(compute_option_requirement(packed, held, self.options, self.rules, is_initial))

    def counted_value(self) -> float:
        return float(compute_counted_value(self.rules, self.options))

    def full_value(self) -> float:
        return float(compute_options_value(self.options))


def list_given(noun: str, given: Any, kind: type[T]) -> tuple[T, ...]:
    listed = (given,) if isinstance(given, kind) else given
    is_list = isinstance(listed, list | tuple)
    if not is_list or not all(isinstance(each, kind) for each in listed):
        raise ParameterError(
            f"{noun} must be bt.{kind.__name__} or a list of them, got {repr_plain(given):.80}"
        )
    return tuple(listed)


def make_option_account(
    options: Sequence[OptionPosition],
    rule: MarginRule,
    rules: Mapping[str, MarginRules],
) -> OptionAccount:
    names = list(rules)
    resolved = rule.resolve(names, [each.label for each in options])
    check_options(options, resolved)
    check_instruments(options, rules)
    groups, numbers = number_groups(options, resolved, names)
    packed = pack_options(options, numbers)
    packed_rules = pack_option_rules(resolved, packed, groups, names)
    quoted, offsets = packed.marks.copy(), np.zeros(len(options))
    found = OptionAccount(resolved, tuple(options), groups, packed, packed_rules, quoted, offsets)
    found.value()
    offsets[:] = np.where(np.isnan(quoted), 0.0, quoted - packed.values)
    found.move({})
    return found


def check_instruments(options: Sequence[OptionPosition], rules: Mapping[str, MarginRules]) -> None:
    is_coin = options[0].option.is_coin
    for name, each in rules.items():
        if each.is_inverse != is_coin:
            kinds = "in coins beside a linear" if is_coin else "in cash beside an inverse"
            raise ParameterError(
                "options and contracts of one balance must settle in one currency, got "
                f"{options[0].option.name} {kinds} contract, {name}"
            )
