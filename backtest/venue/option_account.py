"""Options beside the cross positions of an account, valued and margined."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from backtest.base import FloatArray, IntArray, ParameterError, repr_plain
from backtest.venue.collateral import pack_rows
from backtest.venue.option_contract import OptionPosition
from backtest.venue.option_kernels import (
    BY_BRACKETS,
    BY_SCENARIOS,
    BY_STRATEGIES,
    LONG,
    NET,
    NONE,
    PER_OPTION,
    OptionPositions,
    OptionRates,
    OptionRules,
    OptionScratch,
    ShockTables,
    compute_counted_value,
    compute_option_requirement,
    compute_options_value,
    fill_option_table,
)
from backtest.venue.portfolio_kernels import Holdings, PortfolioRules
from backtest.venue.requirement import MarginRules
from backtest.venue.requirement_rule import (
    MarginRule,
    OptionShocks,
    ScenarioMargin,
    Standard,
    Strategy,
)

YEAR_DAYS = 365.0


def name_labels(options: Sequence[OptionPosition]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.label for each in options))


def number_groups(
    options: Sequence[OptionPosition], rule: MarginRule, names: Sequence[str]
) -> tuple[tuple[str, ...], IntArray]:
    labels = name_labels(options)
    if not isinstance(rule, ScenarioMargin):
        return labels, index_names([each.label for each in options], labels)
    groups = rule.list_groups(names)
    of_names = {name: group for group, members in groups.items() for name in members}
    found = [of_names.get(each.label, each.label) for each in options]
    order = (*groups, *(each for each in dict.fromkeys(found) if each not in groups))
    rule.check_rows([each for each in order if each in found])
    return order, index_names(found, order)


def index_names(found: Sequence[object], order: Sequence[object]) -> IntArray:
    places = {each: k for k, each in enumerate(order)}
    return np.array([places[each] for each in found], dtype=np.int64)


def number_each(keys: Sequence[object]) -> IntArray:
    return index_names(keys, list(dict.fromkeys(keys)))


def pack_options(options: Sequence[OptionPosition], groups: IntArray) -> OptionPositions:
    def read(numbers: Sequence[float]) -> FloatArray:
        return np.array(numbers, dtype=np.float64)

    years = [each.years for each in options]
    expiries = list(zip(groups.tolist(), years, strict=True))
    strikes = [float(each.option.strike) for each in options]
    sizes = [each.option.size for each in options]
    return OptionPositions(
        signs=read([each.option.sign for each in options]),
        strikes=read(strikes),
        sizes=read(sizes),
        are_coin=np.array([each.option.is_coin for each in options], dtype=np.bool_),
        groups=groups,
        expiries=number_each(expiries),
        pairs=number_each(list(zip(expiries, strikes, strict=True))),
        years=read(years),
        rates=read([each.rate for each in options]),
        volatilities=read(
            [math.nan if each.volatility is None else each.volatility for each in options]
        ),
        bases=read([(each.forward or each.index) / each.index for each in options]),
        indices=read([each.index for each in options]),
        quantities=read([each.quantity for each in options]),
        values=np.full(len(options), math.nan),
        marks=read([math.nan if each.mark is None else each.mark for each in options])
        * read(sizes),
    )


def pack_shocks(rule: ScenarioMargin | None, groups: Sequence[str]) -> ShockTables:
    rows = [[(*row, 0.0, 0.0)[:4] for row in rule.rows_of(each)] for each in groups] if rule else []
    shocks = OptionShocks() if rule is None else rule.options
    counts, moves = pack_rows([[row[0] for row in each] for each in rows])

    def pack(column: int) -> FloatArray:
        return pack_rows([[row[column] for row in each] for each in rows])[1]

    return ShockTables(
        counts=counts,
        moves=moves,
        logs=np.log1p(moves),
        roots=np.sqrt(1.0 + moves),
        linear_moves=np.clip(moves, -shocks.futures_range, shocks.futures_range),
        volatilities=pack(2),
        weights=pack(1),
        reliefs=pack(3),
        short_power=shocks.power[0],
        long_power=shocks.power[1],
        days=shocks.days,
        least_days=shocks.least_days,
        least_volatility=shocks.least_volatility,
        short_charge=shocks.short_charge[0],
        initial_short_charge=shocks.short_charge[1],
        delta_charge=shocks.delta_charge[0],
        yearly_delta_charge=shocks.delta_charge[1],
        has_discounts=shocks.discounts is not None,
        discounts=np.array(shocks.discounts or np.zeros(6)),
        has_skew=shocks.skew is not None,
        skew=np.array(shocks.skew or np.zeros(8)),
        has_expiry_charge=shocks.expiry_charge is not None,
        expiry_charge=np.array(shocks.expiry_charge or np.zeros(3)),
    )


def pack_rates(rule: MarginRule) -> OptionRates:
    standard = rule if isinstance(rule, Standard) else None
    strategy = rule if isinstance(rule, Strategy) else None
    return OptionRates(
        initial=standard.initial if standard else 0.0,
        least=standard.least if standard else 0.0,
        maintenance=standard.maintenance if standard else 0.0,
        of_mark=standard.of_mark if standard else 0.0,
        factor=standard.factor if standard else 1.0,
        naked=strategy.naked if strategy else 0.0,
        least_call=strategy.least_call if strategy else 0.0,
        least_put=strategy.least_put if strategy else 0.0,
        has_covered_itm=strategy.covered_itm if strategy else False,
        conversion=strategy.conversion if strategy else 0.0,
        loan_rate=strategy.loan_value if strategy else 0.0,
        loan_years=strategy.loan_days / YEAR_DAYS if strategy else 0.0,
    )


def make_scratch(options: OptionPositions, shocks: ShockTables) -> OptionScratch:
    n, (groups, rows) = len(options.signs), shocks.moves.shape
    expiries = int(options.expiries.max(initial=-1)) + 1
    return OptionScratch(
        table=np.zeros((n, rows + 4)),
        sums=np.zeros((expiries, rows + 4)),
        losses=np.zeros((groups, rows)),
        totals=np.zeros(expiries),
        nets=np.zeros(int(options.pairs.max(initial=-1)) + 1),
        matches=np.zeros((n, n + 1)),
        rows=np.zeros((5, n + 1)),
        paths=np.zeros((2, n + 1), dtype=np.int64),
    )


def pack_option_rules(
    rule: MarginRule, options: OptionPositions, groups: Sequence[str], names: Sequence[str]
) -> OptionRules:
    scenarios = rule if isinstance(rule, ScenarioMargin) else None
    kinds = {ScenarioMargin: BY_SCENARIOS, Standard: PER_OPTION, Strategy: BY_STRATEGIES}
    counts = {"none": NONE, "long": LONG}
    shocks = pack_shocks(scenarios, groups)
    order = list(names)
    return OptionRules(
        kind=kinds.get(type(rule), BY_BRACKETS),
        counted=NET if scenarios else counts[getattr(rule, "option_value", "none")],
        underlyings=np.array(
            [order.index(each) if each in order else -1 for each in groups], dtype=np.int64
        ),
        shocks=shocks,
        rates=pack_rates(rule),
        scratch=make_scratch(options, shocks),
    )


def check_options(options: Sequence[OptionPosition], rule: MarginRule) -> None:
    if not isinstance(rule, ScenarioMargin | Standard | Strategy):
        raise ParameterError(
            f"options need portfolio margin, bt.Standard or bt.Strategy, got {type(rule).__name__}"
        )
    check_settlement(options, rule)
    check_indices(options)
    if isinstance(rule, ScenarioMargin):
        check_scenarios(options, rule)


def check_settlement(options: Sequence[OptionPosition], rule: MarginRule) -> None:
    coin = [each.option.name for each in options if each.option.is_coin]
    cash = [each.option.name for each in options if not each.option.is_coin]
    coins = sorted({str(each.option.underlying) for each in options if each.option.is_coin})
    if (coin and cash) or len(coins) > 1:
        found = f"{coin[0]} in coins and {cash[0]} in cash" if coin and cash else ", ".join(coins)
        raise ParameterError(f"options of one balance must settle in one currency, got {found}")
    if coin and isinstance(rule, Strategy):
        raise ParameterError(f"margin by strategies is of options settled in cash, got {coin[0]}")


def check_indices(options: Sequence[OptionPosition]) -> None:
    first: dict[str, OptionPosition] = {}
    for each in options:
        other = first.setdefault(each.label, each)
        for field in ("index", "at"):
            one, two = getattr(other, field), getattr(each, field)
            if one != two:
                raise ParameterError(
                    f"options of one underlying must have one {field}, got {one} for "
                    f"{other.option.name} and {two} for {each.option.name}"
                )


def check_scenarios(options: Sequence[OptionPosition], rule: ScenarioMargin) -> None:
    for each in options:
        if each.volatility is None:
            raise ParameterError(
                "portfolio margin needs the volatility of each option, got none for "
                f"{each.option.name}; bt.options.implied_volatility finds it from a mark"
            )
    check_moves(rule)


def check_moves(rule: ScenarioMargin) -> None:
    moves = [row[0] for rows in rule.moves.values() for row in rows]  # type: ignore[union-attr]
    if min(moves) <= -1.0:
        raise ParameterError(f"moves of an index with options must be over -1, got {min(moves):g}")


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
