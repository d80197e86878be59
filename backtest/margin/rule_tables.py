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
    def read(name: str, kind: type = np.float64) -> Any:
        return np.array([getattr(each, name) for each in rules], dtype=kind)

    rows = {name: pack_rows([getattr(each, name) for each in rules], width) for name in LEVELS}
    flags = {f"are_{name}": read(f"is_{name}", np.bool_) for name in FLAGS}
    numbers = {f"{name}s": read(name) for name in NUMBERS}
    packed: dict[str, Any] = {name: row for name, (_, row) in rows.items()}
    return portfolio_kernels.BracketTables(counts=rows["floors"][0], **packed, **flags, **numbers)


def pack_spot(haircuts: Sequence[float | None] = ()) -> SpotTables:
    are_spot = np.array([each is not None for each in haircuts], dtype=np.bool_)
    rates = np.array([each or 0.0 for each in haircuts], dtype=np.float64)
    return SpotTables(bool(are_spot.any()), are_spot, rates)


def index_names(wanted: Sequence[object], order: Sequence[object]) -> IntArray:
    places = {each: k for k, each in enumerate(order)}
    return np.array([places[each] for each in wanted], dtype=np.int64)


def number_each(keys: Sequence[object]) -> IntArray:
    return index_names(keys, list(dict.fromkeys(keys)))
