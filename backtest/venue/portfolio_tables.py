"""Builds the arrays of :mod:`backtest.venue.portfolio_rules` from declared rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.venue.portfolio_rules import (
    BracketTables,
    Holdings,
    ScenarioTables,
    SpotTables,
)
from backtest.venue.requirement import MarginRules


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
