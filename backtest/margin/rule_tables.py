"""Rules of margin as the arrays of compiled functions: brackets and spot legs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest.core import IntArray
from backtest.margin import portfolio_kernels
from backtest.margin.brackets import LEVELS, MarginRules
from backtest.margin.collateral import pack_rows
from backtest.margin.portfolio_kernels import SpotTables

FLAGS = ("inverse", "isolated", "valued_at_entry")


NUMBERS = ("close_fee", "taker", "size", "setting", "multiplier", "initial_multiplier")


def pack_brackets(rules: Sequence[MarginRules], width: int = 1) -> portfolio_kernels.BracketTables:
    """Return the margin rules of n instruments as arrays, for compiled code.

    What brackets have (floors, caps, rates, amounts, leverages) has the shape (n, brackets), padded
    to at least ``width`` brackets; ``counts`` says how many each instrument has. Flags and numbers
    have the shape (n,). A field has the plural of the name that it has in :class:`MarginRules`.
    """
    levels = {}
    for name in LEVELS:
        # All levels of an instrument are as many, so the counts are the same each time.
        counts, levels[name] = pack_rows([getattr(row, name) for row in rules], width)
    flags = {f"are_{name}": read_column(rules, f"is_{name}", np.bool_) for name in FLAGS}
    numbers = {f"{name}s": read_column(rules, name) for name in NUMBERS}
    columns: dict[str, Any] = {**levels, **flags, **numbers}
    return portfolio_kernels.BracketTables(counts=counts, **columns)


def read_column(rows: Sequence[object], name: str, kind: type = np.float64) -> Any:
    """Return an attribute of each row as an array; None is NaN among numbers."""
    return np.array([getattr(row, name) for row in rows], dtype=kind)


def pack_spot(haircuts: Sequence[float | None] = ()) -> SpotTables:
    """Return which instruments are spot legs: those with a haircut, which may be 0."""
    are_spot = np.array([haircut is not None for haircut in haircuts], dtype=np.bool_)
    rates = np.array([haircut or 0.0 for haircut in haircuts], dtype=np.float64)
    return SpotTables(bool(are_spot.any()), are_spot, rates)


def index_names(wanted: Sequence[object], order: Sequence[object]) -> IntArray:
    """Return the place in ``order`` of each name that is wanted."""
    places = {name: k for k, name in enumerate(order)}
    return np.array([places[name] for name in wanted], dtype=np.int64)


def number_each(keys: Sequence[object]) -> IntArray:
    """Return the number of each key, from 0 in the order in which they first come."""
    return index_names(keys, list(dict.fromkeys(keys)))
