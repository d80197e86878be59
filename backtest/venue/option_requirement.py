"""The requirement and the backing of an account with options: the entry of its loop."""

from __future__ import annotations

from backtest.base import FloatArray
from backtest.venue.option_records import (
    BY_SCENARIOS,
    BY_STRATEGIES,
    OptionPositions,
    OptionRules,
)
from backtest.venue.option_scenarios import compute_option_scenario_margin
from backtest.venue.option_strategies import compute_standard, compute_strategies
from backtest.venue.option_values import (
    compute_counted_value,
    compute_option_value,
    fill_scenario_values,
)
from backtest.venue.portfolio_requirement import (
    compute_portfolio_backing,
    compute_portfolio_initial,
    compute_portfolio_requirement,
)
from backtest.venue.portfolio_rules import Holdings, PortfolioRules

KERNELS = ("fill_option_table", "fill_option_margins")


def fill_option_table(
    options: OptionPositions, rules: OptionRules, has_quotes: bool, room: FloatArray
) -> None:
    for i in range(len(options.signs)):
        fill_option(options, rules, i)
        if not has_quotes:
            options.marks[i] = options.values[i]
    room[0] = 1.0


def fill_option(options: OptionPositions, rules: OptionRules, i: int) -> None:
    options.values[i] = compute_option_value(options, i, 1.0, options.volatilities[i])
    if rules.kind == BY_SCENARIOS:
        fill_scenario_values(options, rules, i)


def compute_option_requirement(
    packed: PortfolioRules,
    held: Holdings,
    options: OptionPositions,
    rules: OptionRules,
    is_initial: bool,
) -> float:
    if rules.kind == BY_SCENARIOS:
        return compute_option_scenario_margin(packed, held, options, rules, is_initial)
    total = (
        compute_portfolio_initial(packed, held)
        if is_initial
        else compute_portfolio_requirement(packed, held)
    )
    if rules.kind == BY_STRATEGIES:
        return total + compute_strategies(packed, held, options, rules, is_initial)
    return total + compute_standard(options, rules, is_initial)


def compute_option_backing(
    packed: PortfolioRules,
    held: Holdings,
    options: OptionPositions,
    rules: OptionRules,
    cash: float,
) -> float:
    return compute_portfolio_backing(packed, held, cash) + compute_counted_value(rules, options)


def fill_option_margins(
    packed: PortfolioRules,
    held: Holdings,
    options: OptionPositions,
    rules: OptionRules,
    cash: float,
    margins: FloatArray,
) -> None:
    for k in range(2):  # one place of the call: it is inlined
        margins[k] = compute_option_requirement(packed, held, options, rules, k == 1)
    margins[2] = compute_option_backing(packed, held, options, rules, cash)
