"""Read the facts of a snapshot from the end of a run, or from the structures of ccxt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from backtest.account.portfolio_records import (
    CASH,
    HIGHEST,
    IS_OVER,
    IS_RUINED,
    OVERLAY,
    PAID_IN,
    PEAK,
    RESERVE,
    SINCE_POOL,
    UNIT,
)
from backtest.base import Choice, ParameterError, repr_plain
from backtest.venue import compute_price

if TYPE_CHECKING:
    from backtest.account import AccountState
    from backtest.engine import Result


def read_snapshot(result: Result) -> dict[str, Any]:
    state = result.state
    wallet = state.wallet
    overlay = float(wallet[OVERLAY])
    return {
        "cash": float(wallet[CASH]),
        "positions": {
            name: read_held(result, state, i, name) for i, name in enumerate(result.names)
        },
        "time": pd.Timestamp(result.last_time + result.interval, tz="UTC"),
        "started": pd.Timestamp(result.started, tz="UTC"),
        "reserve": float(wallet[RESERVE]),
        "unit": float(wallet[UNIT]),
        "unit_peak": float(wallet[PEAK]),
        "highest_equity": float(wallet[HIGHEST]),
        "paid_in": float(wallet[PAID_IN]),
        "bars_since_liquidation": float(wallet[SINCE_POOL]),
        "overlay": None if math.isnan(overlay) else overlay,
        "collateral": {
            each.name: float(amount)
            for each, amount in zip(result.account.collateral, state.held.amounts, strict=True)
        },
        "halted": bool(wallet[IS_OVER] + wallet[IS_RUINED] != 0.0),
        "traded_30d": None if result.traded is None else result.traded.sum_past(),
    }


def read_held(result: Result, state: AccountState, i: int, name: str) -> dict[str, Any]:
    opened = float(state.opened[i])
    contract, entry, best = result.venues[name].contract, state.held.entries[i], state.best[i]

    def price(value: float) -> float | None:
        is_inverse = contract.kind == "inverse"
        return float(compute_price(contract.size, is_inverse, value)) if value != 0.0 else None

    return {
        "quantity": float(state.held.quantities[i]),
        "entry": price(float(entry)),
        "entry_value": float(entry),
        "margin": float(state.margin[i]),
        "mode": result.account.for_instrument(name).margin,
        "best_price": price(float(best)),
        "best_value": float(best),
        "opened": None if math.isnan(opened) else pd.Timestamp(int(opened), tz="UTC"),
        "bars_since_liquidation": float(state.since[i]),
        "bars_since_stop": float(state.since_stop[i]),
        "overlay": float(state.factor[i]),
        "halted": bool(state.is_halted[i]),
        "venue_leverage": float(state.setting[i]) or None,
    }


def read_ccxt(
    balance: Mapping[str, Any],
    positions: Sequence[Mapping[str, Any]],
    currency: str,
    total: str,
    names: Mapping[str, str],
) -> dict[str, Any]:
    Choice("equity", "wallet").check("total", total)
    own = balance.get(currency)
    if not isinstance(own, Mapping) or own.get("total") is None:
        raise ParameterError(
            f"a balance must have the total of {currency}, got {repr_plain(own)}; currency= names "
            "another"
        )
    held = {}
    for each in positions:
        if float(each.get("contracts") or 0.0) != 0.0:
            symbol = str(each.get("symbol"))
            held[names.get(symbol, shorten(symbol))] = read_position(each, symbol)
    return {total: float(own["total"]), "positions": held}


def shorten(symbol: str) -> str:
    pair, _, settled = symbol.partition(":")
    _, dash, expiry = settled.partition("-")
    return pair.replace("/", "") + dash + expiry


def read_position(given: Mapping[str, Any], symbol: str) -> dict[str, Any]:
    side = {"long": 1.0, "short": -1.0}.get(str(given.get("side")))
    if side is None:
        raise ParameterError(
            f"a position must have the side long or short, got {given.get('side')!r} ({symbol})"
        )
    mode = given.get("marginMode")
    return {
        "quantity": side * abs(float(given["contracts"])),
        "entry": given.get("entryPrice"),
        "margin": find_margin(given) if mode == "isolated" else 0.0,
        "mode": mode,
    }


def find_margin(given: Mapping[str, Any]) -> float:
    collateral, profit = given.get("collateral"), given.get("unrealizedPnl")
    if collateral is not None and profit is not None:
        return float(collateral) - float(profit)
    return float(given.get("initialMargin") or 0.0)
