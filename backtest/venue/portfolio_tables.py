"""Builds the arrays of :mod:`backtest.venue.portfolio_rules` from declared rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.venue.portfolio_rules import (
    BracketTables,
    CollateralTables,
    Holdings,
    ScenarioTables,
    SpotTables,
)
from backtest.venue.requirement import MarginRules


class PortfolioTerms(Protocol):
    @property
    def across(self) -> str:
        """How groups add up."""

    @property
    def offset(self) -> float:
        """The share of gains that counts."""

    @property
    def factor(self) -> float:
        """What multiplies the worst loss."""

    @property
    def minimum(self) -> float:
        """The least requirement per unit of gross notional."""

    @property
    def contingency(self) -> float:
        """The charge per unit of gross notional."""

    @property
    def pair_contingency(self) -> float:
        """The charge per unit of notional that offsets."""

    def list_groups(self, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the instruments of each group."""

    def linear_rows_of(self, group: str) -> Sequence[tuple[float, float]]:
        """Return the scenarios of a group."""

    def number_products(self, groups: Sequence[str]) -> list[int]:
        """Return the number of each group's product."""

    def initial_terms(self) -> tuple[float, float]:
        """Return the factor and the contingency of initial margin."""


class Asset(Protocol):
    @property
    def slippage(self) -> float:
        """How much under the price it is sold."""

    @property
    def cancels_risk(self) -> str | None:
        """The group whose losses it offsets."""

    def list_tiers(self) -> Sequence[tuple[float, float, float]]:
        """Return the tiers as (floor, cap, rate)."""


def pack_rows(rows: Sequence[Sequence[float]], width: int = 1) -> tuple[IntArray, FloatArray]:
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    most = max([width, *(len(row) for row in rows)])
    padded = [[*row, *[row[-1] if row else math.nan] * (most - len(row))] for row in rows]
    return counts, np.array(padded, dtype=np.float64).reshape(len(rows), most)


def pack_brackets(rules: Sequence[MarginRules], width: int = 1) -> BracketTables:
    counts, floors = pack_rows([each.floors for each in rules], width)

    def pack(name: str) -> FloatArray:
        return pack_rows([getattr(each, name) for each in rules], width)[1]

    def read(name: str) -> FloatArray:
        return np.array([getattr(each, name) for each in rules], dtype=np.float64)

    def test(name: str) -> BoolArray:
        return np.array([getattr(each, name) for each in rules], dtype=np.bool_)

    return BracketTables(
        counts=counts,
        floors=floors,
        caps=pack("caps"),
        rates=pack("rates"),
        amounts=pack("amounts"),
        leverages=pack("leverages"),
        close_fees=read("close_fee"),
        takers=read("taker"),
        sizes=read("size"),
        settings=read("setting"),
        are_inverse=test("is_inverse"),
        are_isolated=test("is_isolated"),
        are_valued_at_entry=test("is_valued_at_entry"),
        multipliers=read("multiplier"),
        initial_multipliers=read("initial_multiplier"),
    )


def pack_groups(groups: Mapping[str, Sequence[str]], names: Sequence[str]) -> tuple[IntArray, ...]:
    places = {name: i for i, name in enumerate(names)}
    members = [[places[name] for name in group] for group in groups.values()]
    lengths = [len(group) for group in members]
    flat = np.array([i for group in members for i in group], dtype=np.int64)
    return flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def pack_scenarios(
    rule: PortfolioTerms, names: Sequence[str], underlyings: Sequence[str] = ()
) -> ScenarioTables:
    groups = rule.list_groups(names)
    groups |= {each: () for each in underlyings if each not in groups}
    rows = [rule.linear_rows_of(group) for group in groups]
    counts, moves = pack_rows([[move for move, _ in row] for row in rows])
    members, starts = pack_groups(groups, names)
    products = rule.number_products(list(groups))
    factor, contingency = rule.initial_terms()
    return ScenarioTables(
        counts=counts,
        moves=moves,
        weights=pack_rows([[weight for _, weight in row] for row in rows])[1],
        members=members,
        starts=starts,
        products=np.array(products, dtype=np.int64),
        n_products=max(products, default=-1) + 1,
        is_same_row=rule.across == "same row",
        offset=rule.offset,
        factor=rule.factor,
        minimum=rule.minimum,
        contingency=rule.contingency,
        pair_contingency=rule.pair_contingency,
        initial_factor=factor,
        initial_contingency=contingency,
        nets=np.zeros((len(groups), 2)),
    )


def pack_no_scenarios() -> ScenarioTables:
    empty = np.zeros(0, dtype=np.int64)
    return ScenarioTables(
        counts=empty,
        moves=np.zeros((0, 1)),
        weights=np.zeros((0, 1)),
        members=empty,
        starts=np.zeros(1, dtype=np.int64),
        products=empty,
        n_products=0,
        is_same_row=False,
        offset=0.0,
        factor=1.0,
        minimum=0.0,
        contingency=0.0,
        pair_contingency=0.0,
        initial_factor=1.0,
        initial_contingency=0.0,
        nets=np.zeros((0, 2)),
    )


def pack_spot(haircuts: Sequence[float | None] = ()) -> SpotTables:
    are_spot = np.array([each is not None for each in haircuts], dtype=np.bool_)
    if not are_spot.any():
        return SpotTables(False, np.zeros(1, dtype=np.bool_), np.zeros(1))
    return SpotTables(True, are_spot, np.array([each or 0.0 for each in haircuts]))


def pack_collateral(collateral: Sequence[Asset], groups: Sequence[str] = ()) -> CollateralTables:
    tiers = [each.list_tiers() for each in collateral]
    counts, floors = pack_rows([[row[0] for row in rows] for rows in tiers])
    cancelled = [each.cancels_risk or "" for each in collateral]
    return CollateralTables(
        counts=counts,
        floors=floors,
        caps=pack_rows([[row[1] for row in rows] for rows in tiers])[1],
        rates=pack_rows([[row[2] for row in rows] for rows in tiers])[1],
        groups=np.array(
            [list(groups).index(name) if name in groups else -1 for name in cancelled],
            dtype=np.int64,
        ),
        slippages=np.array([each.slippage for each in collateral], dtype=np.float64),
    )


def pack_holdings(
    quantities: Sequence[float],
    values: Sequence[float],
    entries: Sequence[float] | None = None,
    amounts: Sequence[float] = (),
    prices: Sequence[float] = (),
) -> Holdings:
    return Holdings(
        quantities=np.array(quantities, dtype=np.float64),
        entries=np.array(values if entries is None else entries, dtype=np.float64),
        values=np.array(values, dtype=np.float64),
        amounts=np.array(amounts, dtype=np.float64),
        prices=np.array(prices, dtype=np.float64),
    )
