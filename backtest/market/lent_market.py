"""Copies of a market for code of the user: what it does to them does not reach the original."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np

from backtest.base import copy_frozen
from backtest.market.market import Market
from backtest.market.markets import Markets


def lend(market: Market | Markets) -> Any:
    return copy_each(market, lend_one)


def detach(market: Market | Markets) -> Any:
    return copy_each(market, detach_one)


def copy_each(market: Market | Markets, copy: Callable[[Market], Market]) -> Any:
    if isinstance(market, Markets):
        return market.with_markets({name: copy(each) for name, each in market.items()})
    return copy(market)


def lend_one(market: Market) -> Market:
    copy: Market = object.__new__(type(market))
    fields = {**vars(market), "columns": MappingProxyType(dict(market.columns))}
    vars(copy).update(fields)
    return copy


def detach_one(market: Market) -> Market:
    copies: dict[int, Any] = {}  # without mark prices, two fields share one array

    def copy(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        if id(value) not in copies:
            copies[id(value)] = copy_frozen(value)
        return copies[id(value)]

    lent = lend_one(market)
    columns = {name: copy(values) for name, values in market.columns.items()}
    fields = {name: copy(value) for name, value in vars(market).items()}
    vars(lent).update({**fields, "columns": MappingProxyType(columns)})
    return lent
