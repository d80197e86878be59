"""Scenarios of a requirement, a ``ScenarioMargin`` or none, as arrays of the kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from backtest.core import FloatArray, ParameterError
from backtest.margin.brackets import MarginRules
from backtest.margin.collateral import pack_rows
from backtest.margin.portfolio_kernels import PortfolioRules, ScenarioTables
from backtest.margin.rule_tables import index_names, number_each
from backtest.margin.scenario_fields import NUMBERS_OF_ROW

Names = Sequence[str]


def pack_moves(rule: Any, groups: Iterable[str]) -> list[FloatArray]:
    """Return the numbers of the scenarios of groups as columns, of shape (groups, scenarios) each.

    A scenario is a row of numbers: its move, weight, change of volatility and relief. Groups with
    fewer rows repeat their last one; without a rule there are no groups.
    """
    rows_by_group = []
    if rule is not None:
        rows_by_group = [rule.rows_of(group) for group in groups]

    columns = []
    for column in range(len(NUMBERS_OF_ROW)):
        numbers_by_group = [[row[column] for row in rows] for rows in rows_by_group]
        _, padded = pack_rows(numbers_by_group)
        columns.append(padded)
    return columns


def pack_scenarios(rule: Any, groups: Mapping[str, Names], names: Names) -> ScenarioTables:
    """Return the scenarios of a ``ScenarioMargin`` as the arrays that compiled code reads.

    ``groups`` has the names of the instruments of each group, ``names`` all instruments of the
    account in their order. Without a rule (None) the arrays are empty and the terms 0, so that
    loops over them do nothing.
    """
    moves, weights, *_ = pack_moves(rule, groups)
    futures_range = math.inf
    initial_factor = 0.0
    initial_contingency = 0.0
    if rule is not None:
        futures_range = rule.options.futures_range
        initial_factor, initial_contingency = rule.initial_terms()

    # Fields of the rule that have the same name in the tables.
    term_names = ("offset", "factor", "minimum", "contingency", "pair_contingency")
    terms = {name: float(getattr(rule, name, 0.0)) for name in term_names}

    # The instruments, group after group; group g has those from starts[g] up to starts[g + 1].
    members = [*itertools.chain.from_iterable(groups.values())]
    starts = np.cumsum([0, *map(len, groups.values())], dtype=np.int64)
    products = number_products(rule, tuple(groups))
    return ScenarioTables(
        # Futures may count in a smaller range than options.
        moves=np.clip(moves, -futures_range, futures_range),
        weights=weights,
        members=index_names(members, names),
        starts=starts,
        products=np.array(products, dtype=np.int64),
        n_products=max(products, default=-1) + 1,
        initial_factor=initial_factor,
        initial_contingency=initial_contingency,
        # Room for one evaluation.
        nets=np.zeros((len(moves), 2)),
        losses=np.zeros(moves.shape),
        **terms,
    )


def number_products(rule: Any, groups: Names) -> list[int]:
    """Return for each group of instruments the number of its product, from 0.

    A product is several groups whose losses are added in each scenario, so that one scenario is the
    worst for all of them. A group that no product names is a product by itself. Under
    across="same row" without any products, all groups are one. Without a rule there are no groups.
    """
    if rule is None:
        return []
    # One product of all groups.
    if rule.across == "same row" and not rule.products:
        return [0] * len(groups)

    product_of: dict[str, tuple[str]] = {}
    for product, members in (rule.products or {}).items():
        for group in members:
            # The key is a tuple, so that it differs from a group of the same name in no product.
            product_of[group] = (product,)

    keys = [product_of.get(group, group) for group in groups]
    numbers: list[int] = number_each(keys).tolist()
    return numbers


def check_inverse_moves(
    packed: PortfolioRules, groups: Mapping[str, Names], rules: Mapping[str, MarginRules]
) -> None:
    """Raise ParameterError if a move takes the price of an inverse contract to 0."""
    for members, moves in zip(groups.values(), packed.scenarios.moves, strict=True):
        inverse = [name for name in members if rules[name].is_inverse]
        if inverse and moves.min() <= -1.0:
            raise ParameterError(
                f"moves of a group with an inverse contract must be over -1, got "
                f"{moves.min():g} for {inverse[0]}"
            )
