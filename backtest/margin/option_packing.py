"""Options of an account as the arrays of compiled functions, and what their margin rule needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from backtest.core import FloatArray, IntArray, ParameterError
from backtest.margin import option_values
from backtest.margin.brackets import MarginRules
from backtest.margin.option_kernels import N_AFTER
from backtest.margin.option_values import (
    OptionPositions,
    OptionRates,
    OptionRules,
    OptionScratch,
    ShockTables,
)
from backtest.margin.requirement_rule import MarginRule, ScenarioMargin, Standard, Strategy
from backtest.margin.rule_tables import index_names, number_each, read_column
from backtest.margin.scenario_fields import NO_SHOCKS
from backtest.margin.scenario_packing import pack_moves
from backtest.venue.option_contract import OptionPosition

Names = Sequence[str]


def number_groups(
    rule: MarginRule, labels: Names, names: Names
) -> tuple[tuple[str, ...], IntArray]:
    """Return all groups of an account with options, and for each option the number of its group.

    ``labels`` are the underlyings of the options, ``names`` the instruments. An option belongs to
    the group of its underlying. Groups of instruments come first, in the order of the rule.
    """
    groups = rule.list_groups(names)
    group_of_name: dict[str, str] = {}
    for group, members in groups.items():
        group_of_name.update(dict.fromkeys(members, group))

    # An underlying that is in no group is a group of its own.
    group_of_option = [group_of_name.get(label, label) for label in labels]
    all_groups = tuple(dict.fromkeys([*groups, *group_of_option]))
    return all_groups, index_names(group_of_option, all_groups)


def pack_options(positions: Sequence[OptionPosition], groups: IntArray) -> OptionPositions:
    """Return options as arrays of shape (n,), an entry for each.

    ``groups`` has the number of the group of each. ``values`` are NaN until the model writes them,
    and so are marks that are not known. Marks are per unit as given, and per contract here.
    """
    options = [position.option for position in positions]
    years = read_column(positions, "years")
    strikes = read_column(options, "strike")
    sizes = read_column(options, "size")
    indices = read_column(positions, "index")

    forwards = [position.forward or position.index for position in positions]
    marks = [math.nan if position.mark is None else position.mark for position in positions]

    # Options of one expiry of one group share a forward, and those of a pair the strike too.
    expiries = list(zip(groups.tolist(), years.tolist(), strict=True))
    pairs = list(zip(expiries, strikes.tolist(), strict=True))
    return OptionPositions(
        signs=read_column(options, "sign"),
        strikes=strikes,
        sizes=sizes,
        are_coin=read_column(options, "is_coin", np.bool_),
        groups=groups,
        expiries=number_each(expiries),
        pairs=number_each(pairs),
        years=years,
        rates=read_column(positions, "rate"),
        volatilities=read_column(positions, "volatility"),
        bases=np.array(forwards, dtype=np.float64) / indices,
        indices=indices,
        quantities=read_column(positions, "quantity"),
        values=np.full(len(positions), math.nan),
        marks=np.array(marks, dtype=np.float64) * sizes,
    )


KINDS: dict[type, int] = {
    ScenarioMargin: option_values.BY_SCENARIOS,
    Standard: option_values.PER_OPTION,
    Strategy: option_values.BY_STRATEGIES,
}


def pack_option_rules(
    rule: MarginRule, options: OptionPositions, groups: Names, names: Names
) -> OptionRules:
    """Return what a margin rule says of options, as numbers and arrays that compiled code reads.

    ``groups`` are the names of the groups of options, such as "BTC"; ``options.groups`` has for
    each option the index of its group there. ``names`` are the instruments of the account, in its
    order. Fields that the kind of rule does not have are 0 or empty, so that they have no effect.
    The scratch is memory in which the kernels compute; its size depends on the options.
    """
    # For each group the index of the instrument of that name, its underlying; -1 without one.
    number_by_name = {name: number for number, name in enumerate(names)}
    underlyings = [number_by_name.get(group, -1) for group in groups]

    # Only these two rules have rates, and each has some of the fields of OptionRates.
    rates = dict.fromkeys(OptionRates._fields, 0.0)
    if isinstance(rule, Standard | Strategy):
        rates = {name: float(getattr(rule, name, 0.0)) for name in rates}
    shocks = pack_shocks(rule, groups)
    return OptionRules(
        kind=KINDS.get(type(rule), option_values.BY_BRACKETS),
        counted=find_counted(rule),
        underlyings=np.array(underlyings, dtype=np.int64),
        shocks=shocks,
        rates=OptionRates(**rates),
        scratch=make_scratch(options, n_rows=shocks.moves.shape[1]),
    )


def find_counted(rule: MarginRule) -> int:
    """Return which option values back the account under a rule."""
    if getattr(rule, "option_value", "none") == "long":
        return option_values.LONG
    if isinstance(rule, ScenarioMargin):
        return option_values.NET
    return option_values.NONE


def pack_shocks(rule: MarginRule, groups: Names) -> ShockTables:
    """Return the scenarios of a margin rule for options, as arrays of shape (groups, scenarios).

    Moves of the price with their logarithms and roots, moves of volatility, and reliefs; then the
    charges that the rule declares for options, empty where it declares none. Under a rule without
    scenarios there are no scenarios, and all of it is without effect.
    """
    scenarios = None
    declared = NO_SHOCKS
    if isinstance(rule, ScenarioMargin):
        scenarios = rule
        declared = rule.options
    moves, _, volatilities, reliefs = pack_moves(scenarios, groups)

    def pack(figures: Sequence[float] | None) -> FloatArray:
        """Return figures of the rule as an array, empty if it has none."""
        return np.array(figures or (), dtype=np.float64)

    return ShockTables(
        moves=moves,
        logs=np.log1p(moves),
        roots=np.sqrt(1.0 + moves),
        volatilities=volatilities,
        reliefs=reliefs,
        days=declared.days,
        least_days=declared.least_days,
        least_volatility=declared.least_volatility,
        power=pack(declared.power),
        short_charge=pack(declared.short_charge),
        delta_charge=pack(declared.delta_charge),
        discounts=pack(declared.discounts),
        skew=pack(declared.skew),
        expiry_charge=pack(declared.expiry_charge),
    )


def make_scratch(options: OptionPositions, n_rows: int) -> OptionScratch:
    """Return the arrays, all 0, in which the kernels compute the margin of some options.

    ``n_rows`` is the number of scenarios. The table has a row for each option and a column for each
    scenario; N_AFTER more columns take the charges by expiry. Arrays that pair shorts with longs
    have a place for each option and a last one for shares.
    """
    n = len(options.signs)
    n_expiries = int(options.expiries.max(initial=-1)) + 1
    n_columns = n_rows + N_AFTER
    return OptionScratch(
        table=np.zeros((n, n_columns)),
        sums=np.zeros((n_expiries, n_columns)),
        totals=np.zeros(n_expiries),
        nets=np.zeros(int(options.pairs.max(initial=-1)) + 1),
        matches=np.zeros((n, n + 1)),
        rows=np.zeros((5, n + 1)),
        paths=np.zeros((2, n + 1), dtype=np.int64),
    )


def check_options(
    options: Sequence[OptionPosition], rule: MarginRule, rules: Mapping[str, MarginRules]
) -> None:
    """Raise ParameterError if a margin rule is not for options, or they do not belong together.

    Options of one underlying must have one index and one time. ``rules`` are those of the contracts
    beside them, which must settle in the same currency. Scenarios need the volatility of each
    option.
    """
    if not isinstance(rule, ScenarioMargin | Standard | Strategy):
        raise ParameterError(
            f"options need portfolio margin, bt.Standard or bt.Strategy, got {type(rule).__name__}"
        )
    check_settlement(options, rule, rules)

    first_of_label: dict[str, OptionPosition] = {}
    for position in options:
        first = first_of_label.setdefault(position.label, position)
        check_same_underlying(first, position)
        if isinstance(rule, ScenarioMargin) and position.volatility is None:
            raise ParameterError(
                "portfolio margin needs the volatility of each option, got none for "
                f"{position.option.name}; bt.options.implied_volatility finds it from a mark"
            )
    if isinstance(rule, ScenarioMargin):
        check_moves(rule)


def check_settlement(
    options: Sequence[OptionPosition], rule: MarginRule, rules: Mapping[str, MarginRules]
) -> None:
    """Raise ParameterError unless all options and contracts settle in one currency.

    Cash, or the coin of the options. ``rules`` are those of the contracts beside them, by name. A
    margin rule by strategies is of options settled in cash alone.
    """
    currencies = set()
    for position in options:
        option = position.option
        currency = "cash"
        if option.is_coin:
            currency = f"{option.underlying} coins"
        currencies.add(currency)
    if len(currencies) > 1:
        listed = ", ".join(sorted(currencies))
        raise ParameterError(f"options of one balance must settle in one currency, got {listed}")

    first = options[0].option
    if first.is_coin and isinstance(rule, Strategy):
        raise ParameterError(
            f"margin by strategies is of options settled in cash, got {first.name}"
        )
    for name, row in rules.items():
        if row.is_inverse != first.is_coin:
            kinds = "in cash beside an inverse"
            if first.is_coin:
                kinds = "in coins beside a linear"
            raise ParameterError(
                "options and contracts of one balance must settle in one currency, got "
                f"{first.name} {kinds} contract, {name}"
            )


def check_same_underlying(first: OptionPosition, other: OptionPosition) -> None:
    """Raise ParameterError if two options of one underlying have another index or time."""
    for field in ("index", "at"):
        expected = getattr(first, field)
        got = getattr(other, field)
        if expected != got:
            raise ParameterError(
                f"options of one underlying must have one {field}, got {expected} for "
                f"{first.option.name} and {got} for {other.option.name}"
            )


def check_moves(rule: ScenarioMargin) -> None:
    lowest = math.inf
    for rows in rule.moves.values():  # type: ignore[union-attr]
        for move, *_ in rows:
            lowest = min(lowest, move)
    if lowest <= -1.0:
        raise ParameterError(f"moves of an index with options must be over -1, got {lowest:g}")
