"""Options of an account as the arrays of compiled functions, and what their margin rule needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backtest.core import IntArray, ParameterError
from backtest.margin import option_values
from backtest.margin.brackets import MarginRules
from backtest.margin.option_values import OptionPositions, OptionRates, OptionRules, ShockTables
from backtest.margin.requirement_rule import (
    NO_SHOCKS,
    MarginRule,
    ScenarioMargin,
    Standard,
    Strategy,
    pack_moves,
)
from backtest.margin.rule_tables import index_names, number_each
from backtest.venue.option_contract import OptionPosition

Names = Sequence[str]


def number_groups(
    rule: MarginRule, labels: Names, names: Names
) -> tuple[tuple[str, ...], IntArray]:
    """Return the names of groups in order, and the number of the group of each label."""
    groups = rule.list_groups(names)
    of_names = {name: group for group, members in groups.items() for name in members}
    names_of_groups = [of_names.get(each, each) for each in labels]
    order = tuple(dict.fromkeys([*groups, *names_of_groups]))
    return order, index_names(names_of_groups, order)


def pack_options(given: Sequence[OptionPosition], groups: IntArray) -> OptionPositions:
    options, years = [each.option for each in given], [each.years for each in given]
    strikes = [float(each.strike) for each in options]
    expiries = list(zip(groups.tolist(), years, strict=True))
    numbers: dict[str, Any] = {
        "signs": [each.sign for each in options],
        "strikes": strikes,
        "sizes": [each.size for each in options],
        "years": years,
        "rates": [each.rate for each in given],
        "volatilities": [each.volatility for each in given],
        "bases": [(each.forward or each.index) / each.index for each in given],
        "indices": [each.index for each in given],
        "quantities": [each.quantity for each in given],
        "values": [math.nan] * len(given),
        "marks": [None if each.mark is None else each.mark * each.option.size for each in given],
    }
    return OptionPositions(
        are_coin=np.array([each.is_coin for each in options], dtype=np.bool_),
        groups=groups,
        expiries=number_each(expiries),
        pairs=number_each(list(zip(expiries, strikes, strict=True))),
        **{name: np.array(each, dtype=np.float64) for name, each in numbers.items()},
    )


def pack_option_rules(
    rule: MarginRule, options: OptionPositions, groups: Names, names: Names
) -> OptionRules:
    scenarios = rule if isinstance(rule, ScenarioMargin) else None
    kinds = {
        ScenarioMargin: option_values.BY_SCENARIOS,
        Standard: option_values.PER_OPTION,
        Strategy: option_values.BY_STRATEGIES,
    }
    shocks, order = NO_SHOCKS if scenarios is None else scenarios.options, list(names)
    moves, _, volatilities, reliefs = pack_moves(scenarios, groups)
    n, rows = len(options.signs), moves.shape[1]
    numbers = ("days", "least_days", "least_volatility")
    terms = ("power", "short_charge", "delta_charge", "discounts", "skew", "expiry_charge")
    packed: dict[str, Any] = {name: getattr(shocks, name) for name in numbers}
    packed |= {name: np.array(getattr(shocks, name) or (), dtype=np.float64) for name in terms}
    own = rule if isinstance(rule, Standard | Strategy) else None
    counted = option_values.NET if scenarios else option_values.NONE
    if getattr(rule, "option_value", "none") == "long":
        counted = option_values.LONG
    n_expiries = int(options.expiries.max(initial=-1)) + 1
    places = [order.index(each) if each in order else -1 for each in groups]
    return OptionRules(
        kind=kinds.get(type(rule), option_values.BY_BRACKETS),
        counted=counted,
        underlyings=np.array(places, dtype=np.int64),
        shocks=ShockTables(
            moves=moves,
            logs=np.log1p(moves),
            roots=np.sqrt(1.0 + moves),
            volatilities=volatilities,
            reliefs=reliefs,
            **packed,
        ),
        rates=OptionRates(**{x: float(getattr(own, x, 0.0)) for x in OptionRates._fields}),
        scratch=option_values.OptionScratch(
            table=np.zeros((n, rows + 4)),
            sums=np.zeros((n_expiries, rows + 4)),
            totals=np.zeros(n_expiries),
            nets=np.zeros(int(options.pairs.max(initial=-1)) + 1),
            matches=np.zeros((n, n + 1)),
            rows=np.zeros((5, n + 1)),
            paths=np.zeros((2, n + 1), dtype=np.int64),
        ),
    )


def check_options(
    options: Sequence[OptionPosition], rule: MarginRule, rules: Mapping[str, MarginRules]
) -> None:
    if not isinstance(rule, ScenarioMargin | Standard | Strategy):
        raise ParameterError(
            f"options need portfolio margin, bt.Standard or bt.Strategy, got {type(rule).__name__}"
        )
    coin = [each.option.name for each in options if each.option.is_coin]
    currencies = {f"{x.option.underlying} coins" if x.option.is_coin else "cash" for x in options}
    if len(currencies) > 1:
        listed = ", ".join(sorted(currencies))
        raise ParameterError(f"options of one balance must settle in one currency, got {listed}")
    if coin and isinstance(rule, Strategy):
        raise ParameterError(f"margin by strategies is of options settled in cash, got {coin[0]}")
    for name, own in rules.items():
        if own.is_inverse != bool(coin):
            kinds = "in coins beside a linear" if coin else "in cash beside an inverse"
            raise ParameterError(
                "options and contracts of one balance must settle in one currency, got "
                f"{options[0].option.name} {kinds} contract, {name}"
            )
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
        if isinstance(rule, ScenarioMargin) and each.volatility is None:
            raise ParameterError(
                "portfolio margin needs the volatility of each option, got none for "
                f"{each.option.name}; bt.options.implied_volatility finds it from a mark"
            )
    if isinstance(rule, ScenarioMargin):
        check_moves(rule)


def check_moves(rule: ScenarioMargin) -> None:
    moves = [row[0] for rows in rule.moves.values() for row in rows]  # type: ignore[union-attr]
    if min(moves) <= -1.0:
        raise ParameterError(f"moves of an index with options must be over -1, got {min(moves):g}")
